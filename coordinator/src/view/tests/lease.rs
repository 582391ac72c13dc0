//! The lease, its history and the standing orders, as they are shown.

use handover_proto::lease::Candidate;

use super::*;
use crate::core::standing::{Freeze, Line, Outcome, Phase, StandingOrder, What};
use crate::core::turns::TurnRecord;

fn owner(agent: &str, instance: &InstanceId) -> Owner {
    Owner {
        instance: instance.clone(),
        agent: name(agent),
        host: "host-1".into(),
        boot_id: String::new(),
        version: "1.0.0".parse().expect("a version"),
    }
}

impl Made {
    fn candidate(mut self, agent: &str, instance: &InstanceId, rank: u32, ready: bool) -> Self {
        let value = serde_json::json!({
            "v": 1, "owner": owner(agent, instance), "lease_id": 5, "ttl_s": 10, "ready": ready, "serving": true,
            "prepared_for": null, "declined": null, "active": null, "rank": rank
        });
        let value: Candidate = serde_json::from_value(value).expect("a candidate");
        let key = self.world.keys.service(&billing()).lease().candidate(instance);
        self.put(key, &value, 49);
        self
    }

    fn order(mut self, number: u64, phase: Phase) -> Self {
        let order = StandingOrder {
            v: STORED_VERSION,
            number,
            op: OpId::random(),
            what: What::Handoff { to: None },
            by: "ann".into(),
            because: String::new(),
            at_ms: 10,
            phase,
            asks: 0,
            before: None,
            staged: Default::default(),
            lines: vec![Line { at_ms: 10, term: Default::default(), what: "given".into() }],
        };
        self.put(self.world.keys.service(&billing()).order(number), &order, 50);
        self
    }
}

fn ended() -> Phase {
    Phase::Ended { outcome: Outcome::Done, reason: "app-1 holds".into(), at_ms: 20 }
}

#[test]
fn the_holder_is_not_among_those_who_could_take_the_lease_and_the_best_comes_first() {
    let (holder, second, third) = (InstanceId::random(), InstanceId::random(), InstanceId::random());
    let made = Made::new().agent("app-1", &billing()).holder(&holder, true).candidate("app-1", &holder, 0, true);
    let world = made.candidate("app-2", &second, 4, true).candidate("app-3", &third, 0, false).world();
    let lease = ask(&world).lease.expect("a lease");
    assert_eq!(lease.candidates, ["app-2/1.0.0", "app-3/1.0.0 (not ready)"]);
}

#[test]
fn who_froze_the_lease_is_shown_even_if_the_key_was_written_by_hand() {
    let mut made = Made::new().agent("app-1", &billing()).holder(&InstanceId::random(), true);
    let key = made.world.keys.service(&billing()).lease().freeze();
    made.put(key.clone(), &Freeze { v: 1, by: "ann".into(), because: "etcd".into(), at_ms: 7 }, 60);
    let world = made.world();
    let freeze = ask(&world).lease.and_then(|lease| lease.freeze).expect("frozen");
    assert_eq!((freeze.by.as_str(), freeze.because.as_str(), freeze.at_ms), ("ann", "etcd", 7));
    let mut made = Made::new().agent("app-1", &billing());
    made.put(key, &"1", 60);
    let freeze = ask(&made.world()).lease.and_then(|lease| lease.freeze).expect("frozen");
    assert!(freeze.by.contains("by hand"), "{freeze:?}");
}

#[test]
fn a_lost_lease_is_dark_and_why_says_so() {
    let world = Made::new().agent("app-1", &billing()).holder(&InstanceId::random(), false).world();
    let reply = ask(&world);
    assert!(reply.lease.is_some_and(|lease| lease.dark_since_ms == 5 && lease.dark_because.contains("app-1 is lost")));
    assert_eq!(reply.blockers.iter().map(|blocker| blocker.kind.as_str()).collect::<Vec<_>>(), ["lease-dark"]);
}

#[test]
fn open_orders_are_shown_with_what_they_wait_for_and_old_ones_that_are_over_are_not() {
    let mut made = Made::new().agent("app-1", &billing());
    for number in 1..=9 {
        made = made.order(number, ended());
    }
    let due = Phase::Due { due_ms: 10, late_ms: 5000 };
    let world = made.order(10, due).order(11, Phase::Due { due_ms: 99_000, late_ms: 0 }).world();
    let reply = ask(&world);
    let numbers: Vec<u64> = reply.orders.iter().map(|order| order.number).collect();
    assert_eq!(numbers, [5, 6, 7, 8, 9, 10, 11]);
    let said: Vec<&str> = reply.blockers.iter().map(|blocker| blocker.waiting_for.as_str()).collect();
    assert_eq!(said.len(), 1, "one that waits for its time is no trouble: {said:?}");
    assert!(said[0].contains("nobody holds the scheduler lease") && said[0].contains("order 10"), "{said:?}");
    let request = StatusRequest { order: 2, ..StatusRequest::default() };
    let reply = status(&world, &request, &Viewer::default()).expect("a status");
    assert!(reply.orders.iter().any(|order| order.number == 2), "the one that is asked for is always shown");
}

#[test]
fn a_gap_in_the_history_is_a_row_of_its_own() {
    let mut made = Made::new().agent("app-1", &billing());
    for turn in [1, 2, 5] {
        let record = TurnRecord {
            v: STORED_VERSION,
            turn,
            revision: i64::try_from(turn).expect("small") + 100,
            era: Era(0),
            owner: owner("app-1", &InstanceId::random()),
            proof: None,
            cause: LeaseCause::TakeOver,
            order: None,
            at_ms: turn * 1000,
            stopped_ms: None,
            active_ms: Some(turn * 1000 + 70),
            lost_ms: None,
            term: Default::default(),
        };
        made.put(made.world.keys.service(&billing()).turn(turn), &record, 60);
    }
    let world = made.world();
    let rows = turns(&world, &TurnsRequest::default(), 9000).expect("turns").turns;
    let shape: Vec<(u64, u64)> = rows.iter().map(|row| (row.turn, row.gap_to)).collect();
    assert_eq!(shape, [(5, 0), (3, 4), (2, 0), (1, 0)]);
    assert_eq!((rows[2].ended.as_str(), rows[3].ended.as_str()), ("not known", "lost; app-1 took over"));
    let last = TurnsRequest { last: 1, ..TurnsRequest::default() };
    assert_eq!(turns(&world, &last, 9000).expect("turns").turns.len(), 1);
}

#[test]
fn shares_that_nobody_reported_are_not_said_to_be_nothing() {
    let world = Made::new().agent("app-1", &billing()).assigned("app-1", Lifecycle::Serving).world();
    assert!(!ask(&world).fleet[0].reported_shares);
}
