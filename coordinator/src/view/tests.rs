mod doctor;
mod lease;

use std::collections::BTreeMap;

use handover_proto::assignment::{Assignment, AtDeadline, Cause, DrainPolicy, LeaseWish, Route, SlotWish, Upstream};
use handover_proto::ids::{AgentId, InstanceId, OpId};
use handover_proto::lease::{Beat, Held, Holder, HolderState, LeaseCause, Owner};
use handover_proto::lifecycle::Lifecycle;
use handover_proto::numbers::Era;
use handover_proto::registration::Registration;
use handover_proto::stored::{STORED_VERSION, encode};
use handover_proto::wire::{Blocker, InstanceReport, Lifecycle as WireLifecycle, Report, SlotReport};
use handover_store::client::{Entry, Listing};
use serde::Serialize;

use super::*;
use crate::world::Silence;

/// A world made key by key, each written in the next revision.
struct Made {
    world: World,
    entries: Vec<Entry>,
}

fn name(text: &str) -> AgentId {
    text.parse().expect("a name")
}

fn billing() -> Service {
    "billing".parse().expect("a name")
}

impl Made {
    fn new() -> Self {
        Self { world: World::new(&"demo".parse().expect("a name")), entries: Vec::new() }
    }

    fn put(&mut self, key: String, value: &impl Serialize, revision: i64) {
        let value = encode(value).expect("json");
        self.entries.push(Entry { key, value, mod_revision: revision, create_revision: revision, lease: 0 });
    }

    fn agent(mut self, agent: &str, service: &Service) -> Self {
        let endpoint = "127.0.0.1:7".parse().expect("an address");
        let registration = Registration {
            v: STORED_VERSION,
            agent: name(agent),
            service: service.clone(),
            endpoint,
            operations: endpoint,
            host: "host-1".into(),
            slots: BTreeMap::from([("a".parse().expect("a slot"), endpoint)]),
            hold_ms: None,
            stages: None,
            labels: BTreeMap::new(),
            state_dir_id: String::new(),
            boot_id: String::new(),
            agent_version: String::new(),
            protocol: (1, 1),
            rest: Default::default(),
        };
        self.put(self.world.keys.service(service).agent(&name(agent)), &registration, 1);
        self
    }

    fn assigned(mut self, agent: &str, lifecycle: Lifecycle) -> Self {
        let slot: handover_proto::ids::SlotId = "a".parse().expect("a slot");
        let wish = SlotWish { version: "1.0.0".parse().expect("a version"), lifecycle, lease: LeaseWish::Eligible };
        let assignment = Assignment {
            v: STORED_VERSION,
            term: Default::default(),
            cause: Cause { rollout: None, step: 0, plan_hash: String::new() },
            slots: BTreeMap::from([(slot.clone(), wish)]),
            routes: vec![Route { to: Upstream::Slot(slot), reads: 100, writes: 100 }],
            drain: DrainPolicy { deadline_ms: 1, at_deadline: AtDeadline::Wait, over_all: false },
            leaving: false,
            lease: Default::default(),
            hooks: vec![],
            fallback: None,
        };
        self.put(self.world.keys.service(&billing()).assigned(&name(agent)), &assignment, 2);
        self
    }

    /// The host that was assigned something last is told to leave.
    fn leaves(mut self) -> Self {
        let last = self.entries.last_mut().expect("an assignment");
        let assignment: Assignment = handover_proto::stored::decode(&last.key, &last.value).expect("json");
        last.value = encode(&Assignment { leaving: true, ..assignment }).expect("json");
        self
    }

    fn holder(mut self, instance: &InstanceId, beats: bool) -> Self {
        let owner = Owner {
            instance: instance.clone(),
            agent: name("app-1"),
            host: "host-1".into(),
            boot_id: String::new(),
            version: "1.0.0".parse().expect("a version"),
        };
        let op = OpId::random();
        let holder = Holder {
            v: STORED_VERSION,
            state: HolderState::Held(Held { owner, lease_id: 1, ttl_s: 10 }),
            era: Era(0),
            turn: 3,
            op: op.clone(),
            cause: LeaseCause::Acquire,
            at_ms: 5,
            stopped_at_ms: None,
        };
        let keys = self.world.keys.service(&billing()).lease();
        self.put(keys.holder(), &holder, 48);
        if beats {
            self.put(keys.beat(), &Beat { v: STORED_VERSION, instance: instance.clone(), op }, 48);
        }
        self
    }

    fn world(self) -> World {
        let mut world = self.world;
        world.relist(Listing { entries: self.entries, revision: 100, cluster_id: 1 });
        world
    }
}

fn report(agent: &str, instance: &InstanceId, blocker: Option<Blocker>) -> Report {
    let instance = InstanceReport {
        instance: instance.to_string(),
        version: "1.0.0".into(),
        lifecycle: WireLifecycle::Serving.into(),
        reads: 100,
        ..InstanceReport::default()
    };
    let slot = SlotReport { slot: "a".into(), instance: Some(instance), ..SlotReport::default() };
    Report { agent: agent.into(), service: "billing".into(), slots: vec![slot], blocker, ..Report::default() }
}

fn ask(world: &World) -> StatusReply {
    status(world, &StatusRequest::default(), &Viewer { at_ms: 1000, ..Viewer::default() }).expect("a status")
}

#[test]
fn reported_and_assigned_stand_side_by_side() {
    let mut world = Made::new().agent("app-1", &billing()).assigned("app-1", Lifecycle::Ready).world();
    world.heard_mut(&billing(), &name("app-1")).report = Some(report("app-1", &InstanceId::random(), None));
    let row = &ask(&world).fleet[0];
    assert_eq!((row.reported.as_str(), row.assigned.as_str(), row.reads, row.alive), ("SERVING", "READY", 100, true));
}

#[test]
fn counts_that_no_host_can_have_are_shown_as_the_largest_one() {
    let mut world = Made::new().agent("app-1", &billing()).assigned("app-1", Lifecycle::Serving).world();
    let mut absurd = report("app-1", &InstanceId::random(), None);
    let line = handover_proto::wire::DrainLine { count: u64::MAX, ..Default::default() };
    let found = absurd.slots[0].instance.as_mut().expect("an instance");
    found.drain = Some(handover_proto::wire::Drain { lines: vec![line.clone(), line] });
    world.heard_mut(&billing(), &name("app-1")).report = Some(absurd);
    assert_eq!(ask(&world).fleet[0].in_flight, u64::MAX);
}

#[test]
fn a_slot_that_is_to_be_empty_and_is_has_no_row_but_its_agent_has() {
    let world = Made::new().agent("app-1", &billing()).assigned("app-1", Lifecycle::Terminated).world();
    let rows = ask(&world).fleet;
    assert_eq!((rows.len(), rows[0].slot.as_str(), rows[0].reported.as_str()), (1, "", "empty"));
}

#[test]
fn without_links_an_agent_goes_by_its_alive_key() {
    let mut made = Made::new().agent("app-1", &billing()).agent("app-2", &billing());
    let keys = made.world.keys.service(&billing());
    made.put(keys.alive(&name("app-2")), &"", 2);
    let alive: Vec<bool> = ask(&made.world()).fleet.iter().map(|row| row.alive).collect();
    assert_eq!(alive, [false, true]);
}

#[test]
fn the_holder_of_the_lease_is_marked_with_its_token() {
    let instance = InstanceId::random();
    let made = Made::new().agent("app-1", &billing()).assigned("app-1", Lifecycle::Serving).holder(&instance, true);
    let mut world = made.world();
    world.heard_mut(&billing(), &name("app-1")).report = Some(report("app-1", &instance, None));
    let reply = ask(&world);
    assert_eq!(reply.fleet[0].lease, "held #48");
    let lease = reply.lease.expect("a lease");
    assert_eq!((lease.state.as_str(), lease.token.as_str(), lease.beating), ("held", "48", true));
    assert_eq!(reply.current_version, "1.0.0");
}

#[test]
fn a_holder_without_a_beat_is_lost() {
    let world = Made::new().agent("app-1", &billing()).holder(&InstanceId::random(), false).world();
    assert_eq!(ask(&world).lease.expect("a lease").state, "lost");
}

#[test]
fn agents_that_are_not_heard_come_before_what_others_wait_for() {
    let mut world = Made::new().agent("app-1", &billing()).agent("app-2", &billing()).world();
    let own = Blocker { kind: "drain".into(), since_ms: 1, waiting_for: "4 requests in slot a".into() };
    world.heard_mut(&billing(), &name("app-1")).report = Some(report("app-1", &InstanceId::random(), Some(own)));
    world.heard_mut(&billing(), &name("app-2")).silent = Some(Silence { since_ms: 7, reason: "refused".into() });
    world.cut_off = Some(("away".into(), 3));
    let blockers = ask(&world).blockers;
    let kinds: Vec<&str> = blockers.iter().map(|blocker| blocker.kind.as_str()).collect();
    assert_eq!(kinds, ["store", "agent-silent", "drain"]);
    assert_eq!(blockers[2].waiting_for, "app-1: 4 requests in slot a");
    assert!(blockers[1].waiting_for.contains("handover-agent@billing on host host-1"), "{:?}", blockers[1]);
}

#[test]
fn what_is_said_of_an_agent_already_is_not_said_again_and_names_are_words() {
    let mut world = Made::new().agent("app-1", &billing()).agent("app-10", &billing()).world();
    for agent in ["app-1", "app-10"] {
        world.heard_mut(&billing(), &name(agent)).silent = Some(Silence { since_ms: 7, reason: "refused".into() });
    }
    let known = [Blocker { kind: "agent-silent".into(), since_ms: 1, waiting_for: "app-10 to be heard again".into() }];
    let said = blockers::of_agents(&world, &billing(), &known).expect("readable");
    assert_eq!(said.len(), 1);
    assert!(said[0].waiting_for.starts_with("agent app-1 at"), "{said:?}");
}

#[test]
fn a_service_is_named_by_whoever_has_several() {
    let other: Service = "orders".parse().expect("a name");
    let world = Made::new().agent("app-1", &billing()).agent("app-1", &other).world();
    let error = service(&world, "").expect_err("several");
    assert!(error.to_string().contains("billing, orders"), "{error}");
    assert_eq!(service(&world, "orders").expect("known"), Some(other));
    let error = service(&world, "nothing").expect_err("unknown");
    assert!(error.to_string().contains("known: billing, orders"), "{error}");
}

#[test]
fn an_empty_environment_is_no_error() {
    let reply = ask(&Made::new().world());
    assert_eq!((reply.service.as_str(), reply.fleet.len()), ("", 0));
}

#[test]
fn an_order_that_nobody_can_read_is_shown_and_waits_for_an_operator() {
    let mut site = Made::new().agent("app-01", &billing());
    let key = site.world.keys.service(&billing()).order(7);
    site.put(key.clone(), &serde_json::json!({ "v": 1 }), 9);
    let reply = ask(&site.world());
    let [order] = &reply.orders[..] else { panic!("{:?}", reply.orders) };
    assert_eq!((order.number, order.state.as_str()), (7, "unreadable"));
    let blocker = reply.blockers.iter().find(|blocker| blocker.kind == "operator").expect("a blocker");
    assert!(blocker.waiting_for.contains(&key) && blocker.waiting_for.contains("order 7"), "{}", blocker.waiting_for);
}
