//! The load generator against a server with known failures: it must count exactly what the server did.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

mod stub;

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use handover_tests::load::outcome::Outcome;
use handover_tests::load::request::Mix;
use handover_tests::load::tally::LoadReceipt;
use handover_tests::load::{Load, LoadError, LoadSpec};

use stub::{Act, Stub};

fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn spec(gates: Vec<SocketAddr>, rate_per_s: f64) -> LoadSpec {
    LoadSpec { timeout: Duration::from_millis(1500), ..LoadSpec::new(gates, rate_per_s) }
}

/// Runs against the stub until it has had so many requests.
fn run(stub: &Stub, requests: u64, rate_per_s: f64) -> LoadReceipt {
    let load = Load::start(spec(vec![stub.address], rate_per_s)).expect("load");
    until("enough requests", || stub.requests() >= requests);
    let stopping = Instant::now();
    let receipt = load.stop().expect("receipt");
    assert!(stopping.elapsed() < Duration::from_secs(10), "what hangs ends by its timeout, 1.5 s");
    receipt
}

fn accounted(receipt: &LoadReceipt) {
    let ended: u64 = receipt.total.outcomes.values().sum();
    assert_eq!(receipt.total.sent, ended, "every request has one outcome: {:?}", receipt.total);
}

#[test]
fn every_kind_of_failure_is_counted_as_often_as_the_server_made_it() {
    let stub = Stub::start(&[
        Act::Ok,
        Act::ServiceFault,
        Act::GateError,
        Act::Ok,
        Act::ServiceError,
        Act::NotFound,
        Act::Close,
        Act::OkFromVersion2,
        Act::CutBody,
        Act::Hang,
    ]);
    let receipt = run(&stub, 200, 400.0);
    accounted(&receipt);
    let total = &receipt.total;
    let expected = [
        (Outcome::Ok, stub.did(Act::Ok) + stub.did(Act::OkFromVersion2)),
        (Outcome::ServiceFault, stub.did(Act::ServiceFault)),
        (Outcome::GateError, stub.did(Act::GateError)),
        (Outcome::ServiceError, stub.did(Act::ServiceError)),
        (Outcome::Unexpected, stub.did(Act::NotFound)),
        (Outcome::Reset, stub.did(Act::Close) + stub.did(Act::CutBody)),
        (Outcome::Timeout, stub.did(Act::Hang)),
        (Outcome::Refused, 0),
    ];
    for (outcome, count) in expected {
        assert_eq!(total.of(outcome), count, "{outcome:?}, {:?}", receipt.failures);
    }
    assert_eq!(total.sent, stub.requests(), "nothing was tried again");
    assert_eq!(total.versions["2.0.0"], stub.did(Act::OkFromVersion2));
    assert_eq!(receipt.failures.len() as u64, total.sent - total.of(Outcome::Ok));
}

#[test]
fn a_gate_that_does_not_listen_refuses_its_share_and_only_that() {
    let stub = Stub::start(&[Act::Ok]);
    let closed = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
    let load = Load::start(spec(vec![stub.address, closed], 400.0)).expect("load");
    until("enough requests", || stub.requests() >= 100);
    let receipt = load.stop().expect("receipt");
    accounted(&receipt);
    assert_eq!(receipt.total.of(Outcome::Ok), stub.requests());
    assert_eq!(receipt.total.of(Outcome::Refused), receipt.total.lost());
    assert!(receipt.total.lost() > 50, "{:?}", receipt.total);
    assert!(receipt.failures.iter().all(|failure| failure.gate == 1));
}

#[test]
fn a_connection_that_was_closed_while_idle_loses_nothing() {
    let stub = Stub::start(&[Act::Ok, Act::OkThenClose, Act::OkAndSaysClose]);
    // Slow enough that the close is seen before the next request is due.
    let receipt = run(&stub, 24, 20.0);
    accounted(&receipt);
    assert_eq!(receipt.total.of(Outcome::Ok), stub.requests(), "{:?}", receipt.failures);
    assert!(stub.connections() >= 15, "two of three close: {}", stub.connections());
}

#[test]
fn connections_are_kept_and_more_are_opened_only_when_all_are_busy() {
    let stub = Stub::start(&[Act::Ok]);
    let receipt = run(&stub, 200, 200.0);
    assert_eq!(receipt.total.of(Outcome::Ok), receipt.total.sent);
    assert!(stub.connections() < 20, "{} connections for {} requests", stub.connections(), receipt.total.sent);
}

#[test]
fn requests_leave_at_their_times_whatever_became_of_earlier_ones() {
    let stub = Stub::start(&[Act::Hold]);
    let limited = LoadSpec { max_connections: 5, ..LoadSpec::new(vec![stub.address], 500.0) };
    let load = Load::start(limited).expect("load");
    until("many waiting at a server that answers none", || load.in_flight() >= 100);
    assert_eq!((stub.requests(), load.answered_well()), (5, 0), "bounded by connections, the rest waits its turn");
    let held = Duration::from_millis(198);
    stub.release();
    let receipt = load.stop().expect("receipt");
    accounted(&receipt);
    assert_eq!(receipt.total.of(Outcome::Ok), receipt.total.sent);
    // From the first to the hundredth request at 500 a second are 198 ms: so long the first waited.
    assert!(receipt.total.slowest >= held, "{:?}", receipt.total.slowest);
    assert!(receipt.total.longest_gap >= held, "{:?}", receipt.total.longest_gap);
    assert!(receipt.total.latency.quantile(0.5) >= Duration::from_millis(50), "the wait is in their latency");
    assert_eq!(stub.connections(), 5);
}

#[test]
fn phases_tell_apart_before_and_after() {
    let stub = Stub::start(&[Act::Ok]);
    let load = Load::start(spec(vec![stub.address], 300.0)).expect("load");
    until("some at the start", || load.answered_well() >= 20);
    load.mark("before");
    until("some", || load.answered_well() >= 40);
    load.mark("after");
    let so_far = load.answered_well();
    until("more", || load.answered_well() >= so_far + 20);
    let receipt = load.stop().expect("receipt");
    let names: Vec<_> = receipt.phases.iter().map(|phase| phase.name.as_str()).collect();
    assert!(names.ends_with(&["before", "after"]), "{names:?}");
    assert!(receipt.phases.iter().rev().take(2).all(|phase| phase.counts.sent > 0));
    assert_eq!(receipt.phases.iter().map(|phase| phase.counts.sent).sum::<u64>(), receipt.total.sent);
}

#[test]
fn stopping_waits_for_what_is_in_flight() {
    let stub = Stub::start(&[Act::Hold]);
    let load = Load::start(spec(vec![stub.address], 200.0)).expect("load");
    until("some in flight", || load.in_flight() >= 5 && stub.requests() >= 5);
    let releasing = stub.clone();
    std::thread::spawn(move || {
        // By now stop() has been called, or will be: either way nothing may be lost.
        releasing.release();
    });
    let receipt = load.stop().expect("receipt");
    accounted(&receipt);
    assert_eq!(receipt.total.of(Outcome::Ok), receipt.total.sent);
}

#[test]
fn load_that_makes_no_sense_is_refused() {
    let gate = vec!["127.0.0.1:1".parse().expect("address")];
    let mix = Mix { write_share: 0.7, slow_share: 0.5, slow: Duration::ZERO };
    for wrong in [
        LoadSpec::new(vec![], 1.0),
        LoadSpec::new(gate.clone(), 0.0),
        LoadSpec::new(gate.clone(), f64::NAN),
        LoadSpec { max_connections: 0, ..LoadSpec::new(gate.clone(), 1.0) },
        LoadSpec { mix, ..LoadSpec::new(gate.clone(), 1.0) },
    ] {
        assert!(matches!(Load::start(wrong), Err(LoadError::Spec(_))));
    }
}
