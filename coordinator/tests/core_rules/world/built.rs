//! Builders of agents, assignments and lease keys.

use std::collections::BTreeMap;

use handover::core::fleet::{Agent, Assigned, Fleet, Heard, Instance, Process, Reported, Slot, Traffic};
use handover_proto::assignment::{Assignment, AtDeadline, Cause, DrainPolicy, LeaseWish, Route, SlotWish, Upstream};
use handover_proto::ids::{AgentId, InstanceId, SlotId, Version};
use handover_proto::lease::{Beat, Candidate, Held, Holder, HolderState, LeaseCause, LeaseView, Owner, Seen};
use handover_proto::lifecycle::Lifecycle;
use handover_proto::numbers::{Era, Serial, Term};
use handover_proto::registration::Registration;
use handover_proto::stored::Rest;

pub(crate) fn agent(number: u8) -> AgentId {
    format!("app-{number:02}").parse().expect("an agent")
}

pub(crate) fn slot(name: &str) -> SlotId {
    name.parse().expect("a slot")
}

pub(crate) fn version(text: &str) -> Version {
    text.parse().expect("a version")
}

/// Same slot, same version: same id, so that tests can name instances.
pub(crate) fn instance_id(agent: &AgentId, slot: &SlotId) -> InstanceId {
    let host = &agent.as_str()[4..];
    let side = slot.as_str().bytes().next().expect("a name");
    format!("{host:0>8}{side:08x}").parse().expect("an instance")
}

/// `hosts` hosts that serve 1.0.0 from slot a.
pub(crate) fn serving_fleet(hosts: u8) -> Fleet {
    let mut fleet = empty_fleet(hosts);
    for (id, agent) in &mut fleet.agents {
        agent.assigned = Some(Assigned { assignment: serves("a", "1.0.0"), serial: Serial(10) });
        obey(id, agent);
    }
    fleet
}

/// `hosts` hosts where nothing runs.
pub(crate) fn empty_fleet(hosts: u8) -> Fleet {
    let agents = (1..=hosts).map(|number| (agent(number), registered(&agent(number))));
    Fleet { agents: agents.collect(), ..Fleet::default() }
}

fn registered(id: &AgentId) -> Agent {
    let address = "127.0.0.1:1".parse().expect("an address");
    Agent {
        registration: Registration {
            v: 1,
            agent: id.clone(),
            service: "billing".parse().expect("a service"),
            endpoint: address,
            operations: address,
            host: id.to_string(),
            slots: BTreeMap::from([(slot("a"), address), (slot("b"), address)]),
            hold_ms: None,
            stages: None,
            labels: BTreeMap::new(),
            state_dir_id: "s".into(),
            boot_id: "b".into(),
            agent_version: "0.1.0".into(),
            protocol: (1, 1),
            rest: Rest::new(),
        },
        heard: Heard::Yes,
        assigned: None,
        report: Some(Reported { gate: true, ..Reported::default() }),
    }
}

pub(crate) fn serves(in_slot: &str, what: &str) -> Assignment {
    let wish = SlotWish { version: version(what), lifecycle: Lifecycle::Serving, lease: LeaseWish::Eligible };
    Assignment {
        v: 1,
        term: Term::default(),
        cause: Cause { rollout: None, step: 0, plan_hash: String::new() },
        slots: BTreeMap::from([(slot(in_slot), wish)]),
        routes: vec![Route { to: Upstream::Slot(slot(in_slot)), reads: 100, writes: 100 }],
        drain: DrainPolicy { deadline_ms: 30_000, at_deadline: AtDeadline::Wait, over_all: false },
        leaving: false,
        lease: Default::default(),
        hooks: Vec::new(),
        fallback: None,
    }
}

/// The agent makes its assignment true, at once and wholly.
pub(crate) fn obey(id: &AgentId, agent: &mut Agent) {
    let (Some(assigned), Some(report)) = (&agent.assigned, &mut agent.report) else { return };
    (report.accepted, report.reached) = (assigned.serial, assigned.serial);
    for name in ["a", "b"].map(slot) {
        let here = report.slots.entry(name.clone()).or_default();
        let wish = assigned.assignment.slots.get(&name).filter(|wish| wish.lifecycle != Lifecycle::Terminated);
        let Some(wish) = wish else {
            *here = Slot::default();
            continue;
        };
        let (reads, writes) = assigned.assignment.weights(&name);
        let traffic = here.instance.as_ref().map_or_else(|| Some(Traffic::default()), |found| found.traffic);
        here.instance = Some(Instance {
            id: instance_id(id, &name),
            version: wish.version.clone(),
            lifecycle: Some(wish.lifecycle),
            process: Process::Running,
            ready: true,
            unmet: Vec::new(),
            since_ms: 0,
            reads,
            writes,
            in_flight: 0,
            oldest_ms: 0,
            traffic,
        });
    }
}

pub(crate) fn seen<T>(value: T, revision: i64) -> Seen<T> {
    Seen { value, mod_revision: revision, create_revision: revision, lease: 5 }
}

pub(crate) fn owner(id: &AgentId, in_slot: &str, what: &str) -> Owner {
    Owner {
        instance: instance_id(id, &slot(in_slot)),
        agent: id.clone(),
        host: id.to_string(),
        boot_id: "b".into(),
        version: version(what),
    }
}

pub(crate) fn candidate(owner: Owner) -> Candidate {
    Candidate {
        v: 1,
        owner,
        lease_id: 5,
        ttl_s: 10,
        ready: true,
        serving: true,
        prepared_for: None,
        declined: None,
        active: None,
        active_at_ms: None,
        rank: 0,
        rho_ppm: None,
        agent_version: String::new(),
        stored_token: None,
        rest: Rest::new(),
    }
}

/// This instance holds since `revision`, and works.
pub(crate) fn hold(lease: &mut LeaseView, id: &AgentId, in_slot: &str, what: &str, revision: i64) {
    let owner = owner(id, in_slot, what);
    let op: handover_proto::ids::OpId = "00000000000000aa".parse().expect("an op");
    let beat = Beat { v: 1, instance: owner.instance.clone(), op: op.clone() };
    let mut working = candidate(owner.clone());
    let state = HolderState::Held(Held { owner: owner.clone(), lease_id: 5, ttl_s: 10 });
    let holder =
        Holder { v: 1, state, era: Era(0), turn: 1, op, cause: LeaseCause::Acquire, at_ms: 0, stopped_at_ms: None };
    lease.holder = Some(seen(holder, revision));
    lease.beat = Some(seen(beat, revision));
    working.active = lease.token().expect("a token");
    lease.candidates.insert(owner.instance.clone(), seen(working, 60));
}
