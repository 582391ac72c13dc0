//! Two coordinators with their real decision code ([`handover::core::next`]): one leads, takes a rollout forward or back, and
//! asks for the lease; the other takes over when its key is gone. What they decide goes through one transaction on *I still
//! lead* and *this number is free*, as in production; here is only how it is carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use handover::core::event::{Event, Record, check_chain};
use handover::core::next::{Act as Decided, Ask, Decision, Now, next};
use handover::core::order::{Order, order};
use handover::core::plan::Plan;
use handover::core::progress::{Progress, State};
use handover::core::samples::Samples;
use handover::core::spec::Spec;
use handover_proto::lease::{LeaseView, ask};
use handover_proto::numbers::{Era, Term};
use handover_proto::stored::{decode, encode};
use handover_proto::txn::{Cmp, Op, Revision, Txn};

use super::etcd::Answers;
use super::fact::Fact;
use super::world::{Act, MS, SECOND, World, keys};

/// How long the leader's key outlives its last sign of life.
const LEADER_TTL_US: u64 = 4 * SECOND;
/// Between two turns of a coordinator.
const TURN_US: u64 = 400 * MS;
/// Decisions in one turn at most.
const MAX_DECISIONS: u32 = 20;

const SPEC: &str = r#"
[[service]]
name = "billing"
version = "1.1.0"
[rollout]
wave_size = 3
shift = ["100%"]
step_soak = "200ms"
soak = "1s"
start_deadline = "6s"
[lease]
quiesce_timeout = "3s"
"#;

/// One coordinator.
#[derive(Default)]
pub(crate) struct Coordinator {
    away_until: u64,
    /// The create revision of its leader key.
    leads: Option<Revision>,
    records: Vec<Record>,
    progress: Option<Progress>,
    samples: Samples,
    /// The lease's keys as it saw them last.
    view: LeaseView,
}

impl World {
    /// A coordinator is gone or stopped for so long; it goes on with what it knew.
    pub(crate) fn pause_coordinator(&mut self, ms: u64) {
        let leads = self.coordinators.iter().position(|coordinator| coordinator.leads.is_some()).unwrap_or(0);
        self.coordinators[leads].away_until = self.now + ms * MS;
        self.count("paused coordinators");
    }

    /// The operator starts a rollout.
    pub(crate) fn begin_rollout(&mut self) {
        let spec = match Spec::parse("sim", SPEC) {
            Ok(spec) => spec,
            Err(error) => return self.broken("spec", error.to_string()),
        };
        let fleet = self.fleet(&self.view());
        let known = BTreeSet::from([spec.service.clone()]);
        let Ok(id) = "7f3a2c".parse() else { return };
        match Plan::make(&spec, &fleet, &known, &id) {
            Ok(plan) => {
                self.fact(Fact::Nemesis(format!("a rollout of {} begins", plan.to)));
                self.count("rollouts");
                self.plan = Some(plan);
            }
            Err(error) => self.fact(Fact::Nemesis(format!("no rollout: {error}"))),
        }
    }

    /// The operator orders something of it.
    pub(crate) fn order_rollout(&mut self, what: Order) {
        let Some(n) = self.coordinators.iter().position(|one| one.leads.is_some() && one.progress.is_some()) else {
            return;
        };
        let (Some(plan), Some(progress)) = (self.plan.clone(), self.coordinators[n].progress.clone()) else { return };
        if let Ok(event) = order(&plan, &progress, what, "ann", "because") {
            self.append(n, &plan, Decided { event, assignments: BTreeMap::new(), ask: None, staging: None });
        }
    }

    /// A coordinator has its turn.
    pub(crate) fn govern(&mut self, n: usize) {
        let (answers, now) = (self.etcd.answers(self.etcd.leader, self.now), self.now);
        if now < self.coordinators[n].away_until || answers != Answers::Well || (self.lost() && self.lost()) {
            return;
        }
        if self.coordinators[n].leads.is_none() && !self.elect(n) {
            return;
        }
        if self.plan.is_some() {
            self.decide(n);
        }
        // Only now does it look whether it still leads: one that was stopped has decided with what it knew.
        let key = self.etcd.keys.get(&keys().leader()).map(|entry| entry.create_revision);
        if key == self.coordinators[n].leads {
            self.leader_until = now + LEADER_TTL_US;
            self.coordinators[n].view = self.view();
        } else {
            self.coordinators[n] = Coordinator::default();
        }
    }

    fn elect(&mut self, n: usize) -> bool {
        let key = keys().leader();
        if self.leader_until < self.now && self.etcd.keys.contains_key(&key) {
            self.etcd.write(vec![(key.clone(), None)]);
        }
        if self.etcd.keys.contains_key(&key) {
            return false;
        }
        self.etcd.write(vec![(key, Some((vec![n as u8], 0)))]);
        self.leader_until = self.now + LEADER_TTL_US;
        self.count("elections");
        let view = self.view();
        self.coordinators[n] = Coordinator { leads: Some(self.etcd.revision), view, ..Coordinator::default() };
        self.read_journal(n);
        true
    }

    fn read_journal(&mut self, n: usize) {
        let Some(plan) = self.plan.clone() else { return };
        let prefix = keys().rollout(&plan.id).events();
        let stored = self.etcd.keys.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
        let records: Vec<Record> = stored.filter_map(|(key, entry)| decode(key, &entry.value).ok()).collect();
        if let Err(error) = check_chain(&records) {
            return self.broken("journal", error.to_string());
        }
        let progress = if records.is_empty() { Ok(None) } else { Progress::fold(&plan, &records).map(Some) };
        match progress {
            Ok(progress) => {
                self.coordinators[n].progress = progress;
                self.coordinators[n].records = records;
            }
            Err(error) => self.broken("journal", error.to_string()),
        }
    }

    fn decide(&mut self, n: usize) {
        let Some(plan) = self.plan.clone() else { return };
        for _ in 0..MAX_DECISIONS {
            let Some(leads) = self.coordinators[n].leads else { return };
            if self.coordinators[n].progress.is_none() {
                let Ok(op) = self.chance.hex().parse() else { return };
                let (spec_hash, plan_hash, by) = (String::new(), plan.hash().to_owned(), "ann".to_owned());
                let event = Event::Started { spec_hash, plan_hash, by, op };
                if !self.append(n, &plan, Decided { event, assignments: BTreeMap::new(), ask: None, staging: None }) {
                    return;
                }
                continue;
            }
            let now = self.coordinator_now(leads);
            let fleet = self.fleet(&self.coordinators[n].view);
            let Some(progress) = self.coordinators[n].progress.clone() else { return };
            let samples = &mut self.coordinators[n].samples;
            samples.observe(&plan, &progress, &fleet, now);
            match next(&plan, &progress, &fleet, samples, now) {
                Decision::Do(act) => {
                    if !self.append(n, &plan, *act) {
                        return;
                    }
                }
                Decision::Wait { blockers, .. } => {
                    if blockers.iter().all(|blocker| blocker.waiting_for.is_empty()) {
                        self.broken("blocker", "a coordinator waits and does not say for what".to_owned());
                    }
                    return self.deliver();
                }
                Decision::Ended(_) => return self.deliver(),
            }
        }
        self.broken("core", format!("coordinator {n} does not come to rest"));
    }

    fn coordinator_now(&self, leads: Revision) -> Now {
        let term = Term::new(Era(0), leads).unwrap_or_default();
        Now { wall_ms: 1_000_000_000 + self.now / MS, boot: Duration::from_micros(self.now), term }
    }

    /// Writes a record with what it decides, if this coordinator still leads; false: it has to look again.
    fn append(&mut self, n: usize, plan: &Plan, act: Decided) -> bool {
        let Some(leads) = self.coordinators[n].leads else { return false };
        let now = self.coordinator_now(leads);
        let Some(txn) = self.appending(n, plan, &act, now) else { return false };
        let lease = [self.keys.holder(), self.keys.beat()];
        if txn.then.iter().any(|op| matches!(op, Op::Put { key, .. } | Op::Delete(key) if lease.contains(key))) {
            self.broken("I14", "a coordinator writes the holder key or the beat".to_owned());
        }
        let origin = self.etcd.origin(self.etcd.leader, Answers::Well);
        let done = self.etcd.txn(&txn, origin, self.now).is_ok_and(|reply| reply.succeeded);
        self.stored();
        // The answer is lost, or it was refused: the journal tells.
        if !done || self.lost() {
            self.read_journal(n);
            self.coordinators[n].view = self.view();
            return false;
        }
        for (agent, assignment) in act.assignments {
            if let Some(host) = self.host_of(agent.as_str()) {
                self.hosts[host].assigned = Some((assignment, self.etcd.revision));
            }
        }
        self.read_journal(n);
        self.coordinators[n].view = self.view();
        if let Some(State::Ended { outcome, .. }) = self.coordinators[n].progress.as_ref().map(|p| &p.state) {
            self.fact(Fact::Nemesis(format!("the rollout has ended: {outcome:?}")));
            self.count("rollouts that ended");
        }
        self.deliver();
        true
    }

    fn appending(&self, n: usize, plan: &Plan, act: &Decided, now: Now) -> Option<Txn> {
        let coordinator = &self.coordinators[n];
        let (leader, leads) = (keys().leader(), coordinator.leads?);
        let record = Record::after(coordinator.records.last(), now.wall_ms, now.term, act.event.clone()).ok()?;
        let event = keys().rollout(&plan.id).event(record.seq);
        let mut txn = Txn {
            cmp: vec![Cmp::CreateRevision(leader.clone(), leads), Cmp::ModRevision(event.clone(), 0)],
            then: vec![Op::put(event, record.bytes().ok()?)],
            or_else: Vec::new(),
        };
        let service = keys().service(&plan.service);
        for (agent, assignment) in &act.assignments {
            txn.then.push(Op::put(service.assigned(agent), encode(assignment).ok()?));
        }
        match &act.ask {
            None => {}
            Some(Ask::Intent(intent)) => {
                let asked = ask(&self.keys, &coordinator.view, intent, (leader, leads)).ok()?;
                txn.cmp.extend(asked.cmp);
                txn.then.extend(asked.then);
            }
            Some(Ask::Withdraw) => {
                let revision = coordinator.view.intent.as_ref().map_or(0, |seen| seen.mod_revision);
                txn.cmp.push(Cmp::ModRevision(self.keys.intent(), revision));
                txn.then.push(Op::Delete(self.keys.intent()));
            }
        }
        Some(txn)
    }

    fn host_of(&self, agent: &str) -> Option<usize> {
        agent.strip_prefix("app-")?.parse().ok().filter(|host| *host < self.hosts.len())
    }

    /// Every agent that can be reached and has not taken its assignment gets it.
    fn deliver(&mut self) {
        for host in 0..self.hosts.len() {
            let state = &self.hosts[host];
            let serial = state.assigned.as_ref().map(|(_, serial)| *serial);
            if serial.is_some_and(|serial| serial > state.accepted) && state.core.is_some() && !state.lost {
                let way = self.chance.within(1, 30) * MS;
                self.at(way, Act::Assign { host });
            }
        }
    }

    /// An agent takes its assignment.
    pub(crate) fn assign(&mut self, host: usize) {
        let state = &mut self.hosts[host];
        let Some((assignment, serial)) = state.assigned.clone().filter(|(_, serial)| *serial > state.accepted) else {
            return;
        };
        if state.core.is_none() || state.lost {
            return;
        }
        state.accepted = serial;
        for (slot, name) in ["a", "b"].into_iter().enumerate() {
            let wish = super::report::wish(&assignment, name);
            self.hosts[host].slots[slot].wish = wish;
        }
        self.tell_wanted(host);
        self.settle(host);
    }

    /// The turn of coordinator `n` in a run with rollouts.
    pub(crate) fn coordinate_rollout(&mut self, n: usize) {
        self.at(TURN_US, Act::Coordinate { n });
        self.govern(n);
    }
}
