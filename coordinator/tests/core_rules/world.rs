//! A fleet in memory whose agents do as they are told, lap by lap, when the test says so.

mod built;

use std::collections::BTreeSet;
use std::time::Duration;

use handover::core::event::{Event, Record};
use handover::core::fleet::{Agent, Assigned, Fleet, Heard, Instance, Reported};
use handover::core::next::{Act, Ask, Decision, Now, next};
use handover::core::order::{Order, order};
use handover::core::plan::{Plan, PlanError};
use handover::core::progress::{Progress, State};
use handover::core::samples::Samples;
use handover::core::spec::Spec;
use handover::core::staging::{self, Requested};
use handover_proto::assignment::{LeaseWish, SlotWish};
use handover_proto::blocker::BlockerKind;
use handover_proto::ids::RolloutId;
use handover_proto::lease::Intent;
use handover_proto::numbers::{Era, Serial, Term};

pub(crate) use built::{
    agent, candidate, empty_fleet, hold, instance_id, obey, owner, seen, serves, serving_fleet, slot, version,
};

pub(crate) const SPEC: &str = r#"
[[service]]
name = "billing"
version = "1.1.0"
"#;

pub(crate) fn term() -> Term {
    Term::new(Era(0), 7).expect("a term")
}

pub(crate) fn spec(more: &str) -> Spec {
    Spec::parse("rollout.toml", &format!("{SPEC}{more}")).expect("a spec")
}

pub(crate) fn plan(spec: &Spec, fleet: &Fleet) -> Result<Plan, PlanError> {
    let known = BTreeSet::from(["billing".parse().expect("a service")]);
    Plan::make(spec, fleet, &known, &"7f3a2c".parse::<RolloutId>().expect("a rollout"))
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) progress: Progress,
    pub(crate) records: Vec<Record>,
    pub(crate) fleet: Fleet,
    pub(crate) samples: Samples,
    pub(crate) now: Now,
    revision: i64,
}

impl World {
    /// A rollout from 1.0.0 to 1.1.0 that has just begun.
    pub(crate) fn new(hosts: u8, spec_more: &str) -> Self {
        Self::of(serving_fleet(hosts), spec_more)
    }

    /// The same where the service has a scheduler: `holder`'s instance of 1.0.0 holds the lease.
    pub(crate) fn with_holder(hosts: u8, holder: u8, spec_more: &str) -> Self {
        let mut fleet = serving_fleet(hosts);
        hold(&mut fleet.lease, &agent(holder), "a", "1.0.0", 50);
        Self::of(fleet, spec_more)
    }

    pub(crate) fn of(fleet: Fleet, spec_more: &str) -> Self {
        let plan = plan(&spec(spec_more), &fleet).expect("a plan");
        let now = Now { wall_ms: 1_000_000, boot: Duration::from_secs(100), term: term() };
        let started = Event::Started {
            spec_hash: String::new(),
            plan_hash: plan.hash().to_owned(),
            by: "ann".into(),
            op: "0123456789abcdef".parse().expect("an op"),
        };
        let first = Record::after(None, now.wall_ms, now.term, started).expect("a record");
        let progress = Progress::begin(&plan, &first).expect("a beginning");
        Self { plan, progress, records: vec![first], fleet, samples: Samples::default(), now, revision: 100 }
    }

    /// One lap, without carrying out what it decides.
    pub(crate) fn decide(&mut self) -> Decision {
        self.samples.observe(&self.plan, &self.progress, &self.fleet, self.now);
        next(&self.plan, &self.progress, &self.fleet, &self.samples, self.now)
    }

    /// One lap; what it decides is journalled and stored.
    pub(crate) fn lap(&mut self) -> Decision {
        let decision = self.decide();
        if let Decision::Do(act) = &decision {
            self.commit((**act).clone());
        }
        decision
    }

    pub(crate) fn commit(&mut self, act: Act) {
        self.journal(act.event);
        self.revision += 1;
        for (id, assignment) in act.assignments {
            assignment.check().expect("an assignment that an agent accepts");
            let host = self.fleet.agents.get_mut(&id).expect("a registered agent");
            host.assigned = Some(Assigned { assignment, serial: Serial(self.revision) });
        }
        match act.ask {
            Some(Ask::Intent(intent)) => self.fleet.lease.intent = Some(seen(intent, self.revision)),
            Some(Ask::Withdraw) => self.fleet.lease.intent = None,
            None => {}
        }
        match act.staging {
            Some(staging::Ask::Request(request)) => {
                self.fleet.staging = Some(Requested { request, serial: Serial(self.revision) });
            }
            Some(staging::Ask::Withdraw) => self.fleet.staging = None,
            None => {}
        }
    }

    pub(crate) fn journal(&mut self, event: Event) {
        let record = Record::after(self.records.last(), self.now.wall_ms, self.now.term, event).expect("a record");
        self.progress = self.progress.clone().after(&self.plan, &record).expect("a legal move");
        self.records.push(record);
    }

    pub(crate) fn order(&mut self, what: Order) {
        let event = order(&self.plan, &self.progress, what, "ann", "because").expect("an order that makes sense");
        self.journal(event);
    }

    /// Every agent that is heard makes its assignment true, and the holder follows an intent.
    pub(crate) fn obey(&mut self) {
        let heard = self.fleet.agents.iter_mut().filter(|(_, host)| host.heard == Heard::Yes);
        heard.for_each(|(id, host)| obey(id, host));
        self.offer_candidates();
    }

    pub(crate) fn hand_over(&mut self) {
        let Some(open) = self.fleet.lease.open_intent().cloned() else { return };
        let to = open.value.to.as_ref().expect("an heir");
        let heir = self.fleet.lease.candidates.get(to).expect("an heir").value.owner.clone();
        self.revision += 1;
        let op = open.value.op.clone();
        let in_slot = if heir.version == self.plan.to { "b" } else { "a" };
        hold(&mut self.fleet.lease, &heir.agent, in_slot, heir.version.as_str(), self.revision);
        self.fleet.lease.holder.as_mut().expect("a holder").value.op = op;
    }

    /// Each running instance that its assignment lets hold is a ready candidate.
    fn offer_candidates(&mut self) {
        if self.fleet.lease.holder.is_none() {
            return;
        }
        for (id, host) in &self.fleet.agents {
            let Some(assigned) = &host.assigned else { continue };
            for (name, wish) in &assigned.assignment.slots {
                let instance = instance_id(id, name);
                let Some(_) = self.fleet.instance(id, name) else { continue };
                let entry = self.fleet.lease.candidates.entry(instance.clone());
                let value =
                    entry.or_insert_with(|| seen(candidate(owner(id, name.as_str(), wish.version.as_str())), 60));
                value.value.ready = wish.lease == LeaseWish::Eligible;
            }
        }
    }

    /// Laps and obedience until nothing is left but to wait for what `kind` says; panics if that never comes.
    pub(crate) fn until(&mut self, kind: BlockerKind) {
        self.run(|decision| matches!(decision, Decision::Wait { blockers, .. } if blockers[0].kind == kind));
    }

    /// Laps, obedience and time until the present step is `step`.
    pub(crate) fn until_step(&mut self, step: u32) {
        self.run_while(|world| world.progress.state != State::Running { step });
    }

    /// Laps, obedience and time until the rollout is over.
    pub(crate) fn until_the_end(&mut self) {
        self.run(|decision| matches!(decision, Decision::Ended(_)));
    }

    fn run(&mut self, mut done: impl FnMut(&Decision) -> bool) {
        for _ in 0..300 {
            let decision = self.lap();
            if done(&decision) {
                return;
            }
            self.world_moves(&decision);
        }
        let last = self.decide();
        panic!("it never came; last state {:?}, last lap {last:?}", self.progress.state);
    }

    fn run_while(&mut self, more: impl Fn(&Self) -> bool) {
        for _ in 0..300 {
            if !more(self) {
                return;
            }
            let decision = self.lap();
            self.world_moves(&decision);
        }
        let last = self.decide();
        panic!("it never came; last state {:?}, last lap {last:?}", self.progress.state);
    }

    fn world_moves(&mut self, decision: &Decision) {
        self.obey();
        self.hand_over();
        if let Decision::Wait { until, .. } = decision {
            self.pass(until.map_or(Duration::from_millis(100), |until| until.saturating_sub(self.now.boot)));
        }
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now.boot += time;
        self.now.wall_ms += u64::try_from(time.as_millis()).expect("a short time");
    }

    /// The events of the journal, in short.
    pub(crate) fn events(&self) -> Vec<&Event> {
        self.records.iter().map(|record| &record.event).collect()
    }

    pub(crate) fn host(&mut self, number: u8) -> &mut Agent {
        self.fleet.agents.get_mut(&agent(number)).expect("an agent")
    }

    pub(crate) fn report(&mut self, number: u8) -> &mut Reported {
        self.host(number).report.as_mut().expect("a report")
    }

    pub(crate) fn instance(&mut self, number: u8, name: &str) -> &mut Instance {
        let here = self.report(number).slots.get_mut(&slot(name)).expect("a slot");
        here.instance.as_mut().expect("an instance")
    }

    /// Stored weights of both slots, reads and writes.
    pub(crate) fn weights(&self, number: u8) -> [(u32, u32); 2] {
        let assignment = self.fleet.agents[&agent(number)].assignment().expect("an assignment");
        ["a", "b"].map(|name| assignment.weights(&slot(name)))
    }

    /// Stored state of a slot; none: it is not named.
    pub(crate) fn wish(&self, number: u8, name: &str) -> Option<SlotWish> {
        let assignment = self.fleet.agents[&agent(number)].assignment().expect("an assignment");
        assignment.slots.get(&slot(name)).cloned()
    }
}

pub(crate) fn blockers(decision: &Decision) -> Vec<BlockerKind> {
    match decision {
        Decision::Wait { blockers, .. } => blockers.iter().map(|blocker| blocker.kind).collect(),
        other => panic!("a wait was expected, not {other:?}"),
    }
}

pub(crate) fn event(decision: &Decision) -> &Event {
    match decision {
        Decision::Do(act) => &act.event,
        other => panic!("an event was expected, not {other:?}"),
    }
}

/// The intent that stands in the store.
pub(crate) fn intent(world: &World) -> Option<Intent> {
    world.fleet.lease.intent.as_ref().map(|seen| seen.value.clone())
}
