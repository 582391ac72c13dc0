//! From the wire's report to the typed one.

use handover::core::fleet::{Counts, Process, Reported};
use handover_proto::blocker::BlockerKind;
use handover_proto::lifecycle::Lifecycle;
use handover_proto::numbers::Serial;
use handover_proto::wire;

use crate::world::slot;

fn report() -> wire::Report {
    let line = |count, oldest_ms| wire::DrainLine { kind: "requests".into(), count, oldest_ms, unknown: String::new() };
    let condition =
        |name: &str, met| wire::Condition { name: name.into(), met, reading: "HTTP 503".into(), since_ms: 1 };
    let instance = wire::InstanceReport {
        instance: "0123456789abcdef".into(),
        version: "1.1.0".into(),
        lifecycle: wire::Lifecycle::Serving.into(),
        process: wire::ProcessState::Running.into(),
        ready: true,
        conditions: vec![condition("schema", true), condition("http", false)],
        since_ms: 9,
        reads: 25,
        writes: 0,
        drain: Some(wire::Drain { lines: vec![line(3, 70), line(1, 90)] }),
        read_traffic: Some(wire::Traffic { requests: 100, errors: 2, lost: 1, ..Default::default() }),
        write_traffic: None,
        resident_bytes: 0,
    };
    let exit = wire::ExitReport { how: "signal 9".into(), ..Default::default() };
    wire::Report {
        agent: "app-01".into(),
        accepted: 12,
        reached: 11,
        blocker: Some(wire::Blocker { kind: "drain".into(), since_ms: 5, waiting_for: "3 requests".into() }),
        slots: vec![
            wire::SlotReport { slot: "b".into(), instance: Some(instance), last_exit: Some(exit), crashes: 2 },
            wire::SlotReport { slot: "a".into(), ..Default::default() },
        ],
        gate: Some(wire::GateReport { connected: true, ..Default::default() }),
        ..Default::default()
    }
}

#[test]
fn a_report_is_read_field_by_field() {
    let read = Reported::from_wire(&report()).expect("a report");
    assert_eq!((read.accepted, read.reached, read.gate), (Serial(12), Serial(11), true));
    assert_eq!(read.blocker.map(|blocker| blocker.kind), Some(BlockerKind::Drain));
    assert!(read.slots[&slot("a")].instance.is_none());
    let here = &read.slots[&slot("b")];
    assert_eq!((here.crashes, here.last_exit.as_deref()), (2, Some("signal 9")));
    let found = here.instance.as_ref().expect("an instance");
    assert_eq!((found.lifecycle, found.process, found.ready), (Some(Lifecycle::Serving), Process::Running, true));
    assert_eq!((found.reads, found.writes, found.in_flight, found.oldest_ms), (25, 0, 4, 90));
    assert_eq!(found.unmet, ["http (HTTP 503)"]);
    let traffic = found.traffic.expect("counted");
    assert_eq!((traffic.reads, traffic.writes), (Counts { requests: 100, bad: 3 }, Counts::default()));
}

#[test]
fn a_report_with_a_name_that_is_none_is_refused_with_its_agent() {
    let mut garbled = report();
    garbled.slots[0].slot = "../b".into();
    let error = Reported::from_wire(&garbled).expect_err("no report").to_string();
    assert!(error.contains("app-01"), "{error}");
}

#[test]
fn an_agent_that_just_started_has_neither_gate_nor_blocker() {
    let read = Reported::from_wire(&wire::Report { agent: "app-01".into(), ..Default::default() }).expect("a report");
    assert_eq!(read, Reported::default());
}

#[test]
fn counts_that_no_host_can_have_are_read_as_the_largest_one() {
    let mut report = report();
    let drain = report.slots[0].instance.as_mut().and_then(|found| found.drain.as_mut()).expect("a ledger");
    drain.lines.iter_mut().for_each(|line| line.count = u64::MAX);
    let read = Reported::from_wire(&report).expect("a report");
    assert_eq!(read.slots[&slot("b")].instance.as_ref().expect("an instance").in_flight, u64::MAX);
}
