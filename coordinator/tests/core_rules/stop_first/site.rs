//! Hosts with one slot, whose versions take turns in it: agents, processes and balancers, one small step at a time.

use std::time::Duration;

use handover::core::event::Event;
use handover::core::fleet::{Assigned, Fleet, Heard, Instance, Process, Slot};
use handover::core::next::{Act, Decision, MAX_ASSIGNMENTS};
use handover::core::order::{Order, carried_out, order};
use handover::core::plan::Plan;
use handover_proto::assignment::{AtDeadline, LeaseWish};
use handover_proto::ids::{AgentId, InstanceId, Version};
use handover_proto::lifecycle::Lifecycle;
use handover_proto::numbers::Serial;

use crate::world::{World, agent, candidate, hold, instance_id, owner, seen, serving_fleet, slot, version};

/// Everything that is true, whoever has heard of it.
pub(crate) struct Site {
    pub(crate) world: World,
    pub(crate) hosts: Vec<Host>,
    /// Whether 1.1.0 ever becomes ready.
    pub(crate) good: bool,
    /// Whether jobs of 1.1.0, which have a policy of their own, never end.
    pub(crate) jobs: bool,
    /// Whether the service has a scheduler.
    scheduler: bool,
    /// Ways in which something went wrong that we did not do.
    pub(crate) faults: u32,
}

pub(crate) struct Host {
    pub(crate) taken: Assigned,
    pub(crate) runs: Option<Runs>,
    /// Its balancers send requests here.
    pub(crate) sent: bool,
    pub(crate) heard: bool,
    /// As the agent counts them: of one version, in a row.
    crashes: Option<(Version, u32)>,
    /// Something went wrong here: what is decided about it may be overtaken by its getting well.
    faulty: bool,
}

#[derive(Clone)]
pub(crate) struct Runs {
    pub(crate) version: Version,
    pub(crate) ready: bool,
}

/// A small step of one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Move {
    /// The agent takes what is stored for it.
    Take,
    /// Balancers do as they are told.
    Balance,
    /// What is not wanted any more stops.
    Stop,
    Start,
    BecomeReady,
    /// The process ends by itself.
    Crash,
    BecomeUnready,
    Silence,
    Hear,
}

pub(crate) const OURS: [Move; 6] = [Move::Hear, Move::Take, Move::Balance, Move::Stop, Move::Start, Move::BecomeReady];
pub(crate) const FAULTS: [Move; 3] = [Move::Crash, Move::BecomeUnready, Move::Silence];

/// `hosts` hosts that serve 1.0.0 from their only slot, behind balancers; the gate of an only host holds for 20 seconds.
pub(crate) fn single_slots(hosts: u8) -> Fleet {
    let mut fleet = serving_fleet(hosts);
    for host in fleet.agents.values_mut() {
        host.registration.slots.retain(|name, _| *name == slot("a"));
        host.registration.hold_ms = (hosts == 1).then_some(20_000);
    }
    fleet
}

pub(crate) const STOP_FIRST: &str = "[rollout]\nway = \"stop-first\"\nstart_deadline = \"8s\"\n";

impl Site {
    /// A rollout from 1.0.0 to 1.1.0; the last host holds the lease, if `lease`.
    pub(crate) fn new(hosts: u8, more: &str, lease: bool) -> Self {
        Self::of(single_slots(hosts), more, lease)
    }

    /// The same of a fleet that is made already.
    pub(crate) fn of(mut fleet: Fleet, more: &str, lease: bool) -> Self {
        if lease {
            let last = fleet.agents.last_key_value().expect("an agent").0.clone();
            hold(&mut fleet.lease, &last, "a", "1.0.0", 50);
        }
        let world = World::of(fleet, &format!("{STOP_FIRST}{more}"));
        let host = |agent: &handover::core::fleet::Agent| Host {
            taken: agent.assigned.clone().expect("assigned"),
            runs: Some(Runs { version: version("1.0.0"), ready: true }),
            sent: true,
            heard: true,
            crashes: None,
            faulty: false,
        };
        let hosts = world.fleet.agents.values().map(host).collect();
        let mut site = Self { world, hosts, good: true, jobs: false, scheduler: lease, faults: 0 };
        site.sync();
        site
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.world.plan
    }

    /// An operator's order, with whatever it is recorded with; none: it makes no sense now.
    pub(crate) fn order(&mut self, what: Order) -> Option<()> {
        self.sync();
        let world = &self.world;
        let event = order(&world.plan, &world.progress, what, "ann", "because").ok()?;
        let acts = carried_out(&world.plan, &world.progress, &world.fleet, event, world.now.term);
        acts.into_iter().for_each(|act| self.world.commit(act));
        Some(())
    }

    /// One lap of the coordinator over what is reported; what it does is checked before it is done.
    pub(crate) fn lap(&mut self) -> Decision {
        self.sync();
        let decision = self.world.decide();
        if let Decision::Do(act) = &decision {
            assert!(act.assignments.len() <= MAX_ASSIGNMENTS, "more than a transaction takes: {:?}", act.event);
            self.takes_out_no_more_than_the_floor_lets(act);
            self.stops_no_frozen_holder(act);
            self.stops_nobody_who_has_left_while_others_are_lost(act);
            self.world.commit((**act).clone());
        }
        decision
    }

    fn takes_out_no_more_than_the_floor_lets(&self, act: &Act) {
        let wants = |number: usize| act.assignments.get(&agent(number as u8 + 1));
        let stays = |number: &usize| match wants(*number) {
            Some(change) => {
                let runs = self.hosts[*number].runs.as_ref().expect("it serves");
                !change.leaving && change.slots[&slot("a")].version == runs.version
            }
            None => true,
        };
        let serving: Vec<usize> = (0..self.hosts.len()).filter(|number| self.hosts[*number].serves()).collect();
        let heard = |number: &usize| self.hosts[*number].heard;
        let goes = serving.iter().filter(|number| heard(number) && !stays(number) && !self.told_to_go(**number));
        let left = serving.iter().filter(|number| stays(number) && !self.told_to_go(**number)).count();
        let (goes, floor) = (goes.count(), self.plan().min_serving);
        assert!(goes == 0 || left >= floor, "{:?} leaves {left} of {floor}", act.event);
    }

    /// One that has left could serve again.
    fn stops_nobody_who_has_left_while_others_are_lost(&self, act: &Act) {
        let stopped = |number: &usize| {
            let (id, host) = (agent(*number as u8 + 1), &self.hosts[*number]);
            let has_left = self.world.fleet.agents[&id].assignment().expect("assigned").leaving;
            let change = act.assignments.get(&id).filter(|_| has_left && host.heard);
            let able = host.runs.as_ref().filter(|runs| runs.ready && runs.version == host.wants());
            change.zip(able).is_some_and(|(change, runs)| change.slots[&slot("a")].version != runs.version)
        };
        let stopped = (0..self.hosts.len()).filter(stopped).count();
        let serving = (0..self.hosts.len()).filter(|number| self.hosts[*number].serves() && !self.told_to_go(*number));
        let (serving, floor) = (serving.count(), self.plan().min_serving);
        assert!(stopped == 0 || serving >= floor, "{:?} stops {stopped} where {serving} of {floor} serve", act.event);
    }

    /// Its agent would not stop it, and its gate would hold requests, or its balancers miss it, as long as that lasts.
    fn stops_no_frozen_holder(&self, act: &Act) {
        let lease = &self.world.fleet.lease;
        let owner = lease.holder.as_ref().filter(|_| lease.frozen).map(|seen| seen.value.owner());
        let change = owner.and_then(|owner| Some((owner, act.assignments.get(&owner.agent)?)));
        let stops = change.filter(|(owner, change)| change.slots[&slot("a")].version != owner.version);
        assert!(stops.is_none_or(|(owner, _)| !self.host(&owner.agent).serves()), "a frozen holder: {:?}", act.event);
    }

    fn host(&self, id: &AgentId) -> &Host {
        let number = self.world.fleet.agents.keys().position(|known| known == id).expect("an agent");
        &self.hosts[number]
    }

    fn told_to_go(&self, number: usize) -> bool {
        let stored = self.world.fleet.agents[&agent(number as u8 + 1)].assignment().expect("assigned");
        let runs = self.hosts[number].runs.as_ref();
        stored.leaving || runs.is_none_or(|runs| stored.slots[&slot("a")].version != runs.version)
    }

    /// Whether the move was possible.
    pub(crate) fn step(&mut self, number: usize, what: Move) -> bool {
        let id = agent(number as u8 + 1);
        let stored = self.world.fleet.agents[&id].assigned.clone().expect("assigned");
        let leaves = self.plan().host(&id).is_some_and(|host| self.plan().leaves(host.wave));
        let (good, jobs, many) = (self.good, self.jobs, self.hosts.len() > 1);
        let holder = self.world.fleet.lease.holder.as_ref().map(|seen| seen.value.owner().instance.clone());
        let frozen = self.world.fleet.lease.frozen;
        let host = &mut self.hosts[number];
        let (wants, open) = (host.wants(), host.is_open());
        match (what, &mut host.runs) {
            (Move::Take, _) if host.taken.serial != stored.serial => {
                host.taken = stored;
                let wants = host.wants();
                host.crashes.take_if(|(of, _)| *of != wants);
            }
            (Move::Balance, _) if host.sent != open => host.sent = open,
            (Move::Stop, Some(runs)) if runs.version != wants => {
                let holds = holder == Some(id_of(number, &runs.version));
                let drain = host.taken.assignment.drain;
                let cut = drain.over_all && drain.at_deadline == AtDeadline::Cut;
                if holds && frozen || jobs && runs.version == version("1.1.0") && !cut {
                    return false;
                }
                let told = !leaves || !host.sent || !runs.ready || host.faulty;
                assert!(told, "stopped while its balancers still send: {id}");
                assert!(!holds || self.faults > 0 || !many, "the holder is stopped under the lease: {id}");
                host.runs = None;
            }
            (Move::Start, none @ None) => *none = Some(Runs { version: wants, ready: false }),
            (Move::BecomeReady, Some(runs)) if !runs.ready && (good || runs.version == version("1.0.0")) => {
                runs.ready = true;
            }
            (Move::Crash, Some(runs)) => {
                let before = host.crashes.as_ref().filter(|(of, _)| *of == runs.version).map_or(0, |(_, count)| *count);
                host.crashes = Some((runs.version.clone(), before + 1));
                host.runs = None;
            }
            (Move::BecomeUnready, Some(runs)) if runs.ready => runs.ready = false,
            (Move::Silence, _) if host.heard => host.heard = false,
            (Move::Hear, _) if !host.heard => host.heard = true,
            _ => return false,
        }
        host.faulty |= FAULTS.contains(&what);
        self.faults += u32::from(FAULTS.contains(&what));
        true
    }

    /// Whoever is asked hands over; a lease that nobody holds is taken.
    pub(crate) fn lease_moves(&mut self) {
        self.sync();
        if self.world.fleet.lease.frozen {
            return;
        }
        let heir = self.world.fleet.lease.open_intent().and_then(|open| open.value.to.clone());
        let lease = &self.world.fleet.lease;
        if heir.is_some_and(|heir| lease.candidates.get(&heir).is_some_and(|seen| seen.value.ready)) {
            self.world.hand_over();
        } else if self.scheduler && lease.holder.is_none() && lease.open_intent().is_none() {
            let able = lease.candidates.values().map(|seen| &seen.value).find(|one| one.ready);
            if let Some(owner) = able.map(|one| one.owner.clone()) {
                let in_slot = if owner.version == version("1.0.0") { "a" } else { "b" };
                hold(&mut self.world.fleet.lease, &owner.agent, in_slot, owner.version.as_str(), 60);
            }
        }
        self.sync();
    }

    /// What the coordinator sees of it all.
    pub(crate) fn sync(&mut self) {
        let mut candidates = std::collections::BTreeMap::new();
        for (number, host) in self.hosts.iter().enumerate() {
            let id = agent(number as u8 + 1);
            let view = self.world.fleet.agents.get_mut(&id).expect("an agent");
            view.heard = if host.heard { Heard::Yes } else { Heard::Silent { since_ms: 1 } };
            let report = view.report.as_mut().expect("a report");
            report.accepted = host.taken.serial;
            report.reached = if host.is_settled() { host.taken.serial } else { Serial(0) };
            report.front_pending = host.sent != host.is_open();
            let instance = host.runs.as_ref().map(|runs| host.instance(number, runs));
            report.slots.insert(slot("a"), Slot { instance, crashes: host.crashes(), last_exit: None });
            if let Some(runs) = &host.runs {
                let side = if runs.version == version("1.0.0") { "a" } else { "b" };
                let mut value = candidate(owner(&id, side, runs.version.as_str()));
                let may = host.taken.assignment.slots[&slot("a")].lease == LeaseWish::Eligible;
                value.ready = runs.ready && may && runs.version == host.wants();
                candidates.insert(id_of(number, &runs.version), value);
            }
        }
        let lease = &mut self.world.fleet.lease;
        let working = lease.token().ok().flatten();
        let holder = lease.holder.as_ref().map(|seen| seen.value.owner().instance.clone());
        if let Some(holder) = holder {
            match candidates.get_mut(&holder) {
                Some(value) => value.active = working,
                None => (lease.holder, lease.beat) = (None, None),
            }
        }
        if self.scheduler {
            lease.candidates = candidates.into_iter().map(|(id, value)| (id, seen(value, 60))).collect();
        }
    }

    pub(crate) fn serving(&self) -> usize {
        self.hosts.iter().filter(|host| host.serves()).count()
    }

    pub(crate) fn versions(&self) -> Vec<String> {
        let word = |host: &Host| match &host.runs {
            Some(runs) if host.serves() => runs.version.to_string(),
            _ => "-".to_owned(),
        };
        self.hosts.iter().map(word).collect()
    }

    /// Everything that hosts and the lease can do by themselves.
    pub(crate) fn obey(&mut self) {
        for number in 0..self.hosts.len() {
            while OURS.into_iter().any(|what| self.step(number, what)) {}
        }
        self.lease_moves();
    }

    /// Laps, obedience and time until the coordinator's decision is like this.
    pub(crate) fn until(&mut self, mut done: impl FnMut(&Self, &Decision) -> bool) -> Decision {
        for _ in 0..600 {
            let decision = self.lap();
            if done(self, &decision) {
                return decision;
            }
            if let Decision::Wait { until, .. } = &decision {
                let again = until.map(|until| until.saturating_sub(self.world.now.boot));
                self.obey();
                let again = again.unwrap_or(Duration::from_millis(200)).min(Duration::from_millis(500));
                self.world.pass(again + Duration::from_millis(1));
            }
        }
        let last = self.world.decide();
        panic!("it never came; {:?}, last lap {last:?}", self.world.progress.state);
    }

    pub(crate) fn until_the_end(&mut self) -> Decision {
        self.until(|_, decision| matches!(decision, Decision::Ended(_)))
    }

    /// Until the journal has a record like this.
    pub(crate) fn until_event(&mut self, wanted: impl Fn(&Event) -> bool) {
        self.until(|_, decision| matches!(decision, Decision::Do(act) if wanted(&act.event)));
    }
}

/// Every version has its own instance.
fn id_of(number: usize, what: &Version) -> InstanceId {
    let side = if *what == version("1.0.0") { "a" } else { "b" };
    instance_id(&agent(number as u8 + 1), &slot(side))
}

impl Host {
    fn wants(&self) -> Version {
        self.taken.assignment.slots[&slot("a")].version.clone()
    }

    /// What its agent reports: of the version that is assigned, whatever crashed before it.
    fn crashes(&self) -> u32 {
        self.crashes.as_ref().filter(|(of, _)| *of == self.wants()).map_or(0, |(_, count)| *count)
    }

    /// What its agent tells balancers.
    fn is_open(&self) -> bool {
        !self.taken.assignment.leaving && self.runs.as_ref().is_some_and(|it| it.ready && it.version == self.wants())
    }

    /// Requests come, and are answered.
    pub(crate) fn serves(&self) -> bool {
        self.sent && self.runs.as_ref().is_some_and(|runs| runs.ready && runs.version == self.wants())
    }

    fn is_settled(&self) -> bool {
        self.sent == self.is_open() && self.runs.as_ref().is_some_and(|it| it.ready && it.version == self.wants())
    }

    fn instance(&self, number: usize, runs: &Runs) -> Instance {
        let wanted = runs.version == self.wants();
        let weight = if wanted { self.taken.assignment.weights(&slot("a")).0 } else { 0 };
        Instance {
            id: id_of(number, &runs.version),
            version: runs.version.clone(),
            lifecycle: runs.ready.then_some(if wanted { Lifecycle::Serving } else { Lifecycle::Draining }),
            process: Process::Running,
            ready: runs.ready,
            unmet: Vec::new(),
            since_ms: 0,
            reads: weight,
            writes: weight,
            in_flight: 0,
            oldest_ms: 0,
            traffic: Some(Default::default()),
        }
    }
}
