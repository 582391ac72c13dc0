use super::*;
use crate::gate::control::Admission;

fn upstream(instance: u8, in_flight: u64, requests: u64) -> UpstreamReport {
    let counts = ClassCounts { requests, answered_2xx: requests - in_flight, ..ClassCounts::default() };
    UpstreamReport {
        instance: format!("{instance:016x}").parse().expect("an id"),
        version: "1.0.0".parse().expect("a version"),
        listed: true,
        in_flight,
        oldest_ms: in_flight * 100,
        reads: counts,
        writes: ClassCounts::default(),
        last_request_ms_ago: Some(10 * requests),
        upgraded: in_flight,
        oldest_upgraded_ms: in_flight * 1000,
        upgraded_total: requests,
        upgraded_closed: 1,
    }
}

fn report(start_id: &str, applied: u64, upstreams: Vec<UpstreamReport>) -> GateReport {
    GateReport {
        gate_start_id: start_id.into(),
        pid: 7,
        took_over_from: None,
        leaving: false,
        forerunners: Vec::new(),
        applied,
        saved: applied,
        save_error: None,
        admission: Admission::Open,
        in_flight: upstreams.iter().map(|one| one.in_flight).sum(),
        upstreams,
        held: 1,
        connections: 2,
        refused_connections: 3,
        carried_from: Vec::new(),
        tls: None,
        own_answers: BTreeMap::from([(Reason::Shut, 1)]),
    }
}

#[test]
fn work_in_two_gates_is_summed_and_a_state_is_in_force_when_both_have_it() {
    let mut newer = report("new", 9, vec![upstream(1, 0, 4), upstream(2, 1, 5)]);
    let mut older = report("old", 8, vec![upstream(1, 3, 6), upstream(3, 1, 1)]);
    older.upstreams[1].listed = false;
    include(&mut newer, Some(&older));
    assert_eq!((newer.applied, newer.saved, newer.in_flight), (8, 9, 5));
    assert_eq!((newer.held, newer.connections, newer.own_answers[&Reason::Shut]), (2, 4, 2));
    let one = &newer.upstreams[0];
    assert_eq!((one.in_flight, one.oldest_ms, one.reads.requests, one.last_request_ms_ago), (3, 300, 10, Some(40)));
    assert_eq!((one.upgraded, one.oldest_upgraded_ms, one.upgraded_total, one.upgraded_closed), (3, 3000, 10, 2));
    assert_eq!(newer.refused_connections, 6);
    let gone = &newer.upstreams[2];
    assert!(gone.in_flight == 1 && !gone.listed, "one that only the older gate knows is reported, too");
    let forerunner = &newer.forerunners[0];
    assert_eq!((forerunner.start_id.as_str(), forerunner.applied, forerunner.in_flight), ("old", 8, 4));
}

#[test]
fn while_an_older_gate_is_silent_nothing_counts_as_applied() {
    let mut newer = report("new", 9, vec![upstream(1, 0, 4)]);
    include(&mut newer, None);
    assert_eq!(newer.applied, 0);
    assert!(newer.forerunners.is_empty());
}

#[test]
fn counts_of_a_gate_that_ended_are_kept_and_its_work_is_not() {
    let mut carried = Carried::default();
    let mut now = report("new", 9, vec![upstream(1, 0, 4)]);
    carried.take(&report("old", 9, vec![upstream(1, 2, 6)]), &now);
    carried.take(&report("oldest", 9, vec![upstream(1, 0, 10)]), &now);
    carried.add_to(&mut now, |_| false);
    let one = &now.upstreams[0];
    assert_eq!((one.in_flight, one.reads.requests, one.reads.answered_2xx), (0, 20, 18));
    assert_eq!((one.upgraded, one.upgraded_total, one.upgraded_closed), (0, 20, 3));
    assert_eq!((now.in_flight, now.own_answers[&Reason::Shut], now.refused_connections), (0, 3, 9));
}

#[test]
fn what_was_carried_for_an_instance_that_is_gone_is_forgotten() {
    let mut carried = Carried::default();
    carried.take(&report("a", 1, vec![upstream(1, 0, 4)]), &report("new", 1, vec![upstream(1, 0, 0)]));
    carried.take(&report("b", 2, vec![upstream(2, 0, 4)]), &report("new", 2, vec![upstream(2, 0, 0)]));
    assert_eq!(carried.0.values().map(|one| one.upstreams.len()).sum::<usize>(), 1);
}

#[test]
fn a_gate_that_two_gates_followed_to_its_end_is_counted_once() {
    let mut carried = Carried::default();
    let middle = |carried_from: &[&str]| GateReport {
        carried_from: carried_from.iter().map(|id| (*id).to_owned()).collect(),
        ..report("middle", 9, vec![upstream(1, 0, 10)])
    };
    let requests = |carried: &Carried, middle: Option<&GateReport>| {
        let mut now = report("new", 9, vec![upstream(1, 0, 4)]);
        carried.add_to(&mut now, |id| middle.is_some_and(|one| one.carried_from.iter().any(|from| from == id)));
        if let Some(middle) = middle {
            include(&mut now, Some(middle));
        }
        now.upstreams[0].reads.requests
    };
    carried.take(&report("oldest", 9, vec![upstream(1, 0, 6)]), &middle(&[]));
    assert_eq!(requests(&carried, Some(&middle(&[]))), 20, "the middle one has not counted it");
    assert_eq!(requests(&carried, Some(&middle(&["oldest"]))), 14, "it has");
    carried.take(&middle(&["oldest"]), &report("new", 9, vec![upstream(1, 0, 4)]));
    assert_eq!(requests(&carried, None), 14, "and has ended itself");
}

#[test]
fn every_count_of_a_class_is_added() {
    // A field that is added to the counts and not here would be lost in a take-over.
    let fields = |counts: &ClassCounts| {
        let json = serde_json::to_value(counts).expect("json");
        json.as_object().expect("fields").values().map(|v| v.as_u64().unwrap_or(0)).collect::<Vec<_>>()
    };
    let ones = r#"{"requests":1,"answered_2xx":1,"answered_3xx":1,"answered_4xx":1,"answered_5xx":1,"connect_errors":1,
        "no_answer":1,"client_left":1,"lost":1,"client_cut":1,"latency_sum_us":1}"#;
    let mut ones: ClassCounts = serde_json::from_str(ones).expect("counts");
    ones.latency[3] = 1;
    let mut twice = ones;
    add(&mut twice, &ones);
    assert_eq!(fields(&twice).iter().filter(|count| **count == 2).count(), 11);
    assert_eq!(twice.latency[3], 2);
    assert_eq!(fields(&ClassCounts::default()).len(), 12, "a new count: add it in `add`, and here");
}
