//! Hold, lame duck and shut.

use std::time::Duration;

use handover_agent::gate::control::{Admission, Reason, Upstream};

use crate::bench::{Service, TestGate, until};
use crate::visitor::{Client, get};

#[tokio::test]
async fn held_requests_go_on_the_moment_a_state_lets_them() {
    let (gate, a, b) = (TestGate::start().await, Service::start(1).await, Service::start(2).await);
    gate.put(Admission::Hold, &[a.upstream(1, 1)]).await;
    let held: Vec<_> = (0..5).map(|_| get(gate.address, "/")).collect();
    gate.report_when("five wait", |report| report.held == 5).await;
    assert_eq!(a.requests(), 0);
    gate.open(&[b.upstream(1, 1)]).await;
    for one in held {
        assert_eq!(one.await.expect("no panic").body, b.name());
    }
    let report = gate.report_when("nobody waits", |report| report.held == 0 && report.in_flight == 0).await;
    assert!(report.own_answers.is_empty());
}

#[tokio::test]
async fn an_open_gate_holds_while_nobody_is_ready_and_goes_on_when_somebody_is() {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    gate.open(&[Upstream { ready: false, ..a.upstream(1, 1) }]).await;
    let held = get(gate.address, "/");
    gate.report_when("it waits", |report| report.held == 1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    assert_eq!(held.await.expect("no panic").status, 200);
}

#[tokio::test]
async fn holding_is_bounded_in_number() {
    let gate = TestGate::start_with(|settings| settings.hold.count = 2).await;
    let a = Service::start(1).await;
    gate.put(Admission::Hold, &[a.upstream(1, 1)]).await;
    let held = [get(gate.address, "/"), get(gate.address, "/")];
    gate.report_when("two wait", |report| report.held == 2).await;
    let third = gate.client().await.get("/").await;
    assert_eq!((third.status, third.header("handover-gate"), third.header("retry-after")), (503, "hold-full", "1"));
    gate.open(&[a.upstream(1, 1)]).await;
    for one in held {
        assert_eq!(one.await.expect("no panic").status, 200);
    }
}

#[tokio::test]
async fn holding_is_bounded_in_time() {
    let gate = TestGate::start_with(|settings| settings.hold.time = Duration::from_millis(60)).await;
    gate.put(Admission::Hold, &[]).await;
    let held = get(gate.address, "/").await.expect("no panic");
    assert_eq!((held.status, held.header("handover-gate"), held.header("retry-after")), (503, "hold-expired", "1"));
    let report = gate.report_when("the answer", |report| !report.own_answers.is_empty()).await;
    assert_eq!((report.own_answers.get(&Reason::HoldExpired), report.held), (Some(&1), 0), "its place is free");
}

#[tokio::test]
async fn states_that_do_not_help_do_not_lengthen_the_wait() {
    let gate = TestGate::start_with(|settings| settings.hold.time = Duration::from_millis(150)).await;
    gate.put(Admission::Hold, &[]).await;
    let began = std::time::Instant::now();
    let held = get(gate.address, "/");
    while !held.is_finished() {
        gate.put(Admission::Hold, &[]).await;
        assert!(began.elapsed() < crate::bench::PATIENCE, "the wait has no end");
    }
    assert_eq!(held.await.expect("no panic").status, 503);
}

#[tokio::test]
async fn a_lame_duck_serves_everybody_and_tells_them_to_leave() {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    gate.open(&[a.upstream(1, 1)]).await;
    let mut early = gate.client().await;
    assert_eq!(early.get("/").await.header("connection"), "");
    let waiting = get(gate.address, "/wait");
    until("in flight before", async || a.saw("GET /wait") == 1).await;
    gate.put(Admission::LameDuck, &[a.upstream(1, 1)]).await;
    for mut client in [early, gate.client().await] {
        let answer = client.get("/").await;
        assert_eq!((answer.status, answer.header("connection")), (200, "close"));
        until("the gate closed it", async || !client.is_open().await).await;
    }
    a.release(1);
    let waited = waiting.await.expect("no panic");
    assert_eq!((waited.status, waited.header("connection")), (200, "close"));
    gate.open(&[a.upstream(1, 1)]).await;
    assert_eq!(gate.client().await.get("/").await.header("connection"), "");
}

#[tokio::test]
async fn a_lame_duck_leaves_idle_connections_alone() {
    let gate = TestGate::start_with(|settings| settings.limits.leave_grace = Duration::from_millis(20)).await;
    let a = Service::start(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    let mut idle = gate.client().await;
    assert_eq!(idle.get("/").await.status, 200);
    gate.put(Admission::LameDuck, &[a.upstream(1, 1)]).await;
    // The subject of the test: nothing happens for several graces.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(idle.get("/").await.status, 200, "its next request is served");
}

#[tokio::test]
async fn a_shut_gate_refuses_new_requests_while_those_in_flight_finish() {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    gate.open(&[a.upstream(1, 1)]).await;
    let mut early = gate.client().await;
    assert_eq!(early.get("/").await.status, 200);
    let waiting = get(gate.address, "/wait");
    until("in flight before", async || a.saw("GET /wait") == 1).await;
    gate.put(Admission::Shut, &[a.upstream(1, 1)]).await;
    for mut client in [early, gate.client().await] {
        let answer = client.get("/").await;
        assert_eq!((answer.status, answer.header("handover-gate")), (503, "shut"));
        assert_eq!((answer.header("connection"), answer.header("retry-after")), ("close", "1"));
    }
    a.release(1);
    assert_eq!(waiting.await.expect("no panic").status, 200);
    assert_eq!(a.saw("GET /"), 1);
    gate.open(&[a.upstream(1, 1)]).await;
    assert_eq!(gate.client().await.get("/").await.status, 200, "it can be opened again");
}

#[tokio::test]
async fn a_shut_gate_closes_idle_connections_after_a_grace() {
    let gate = TestGate::start_with(|settings| settings.limits.leave_grace = Duration::from_millis(30)).await;
    let a = Service::start(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    let (mut used, mut fresh) = (gate.client().await, gate.client().await);
    assert_eq!(used.get("/").await.status, 200);
    gate.report_when("both are connected", |report| report.connections == 2).await;
    assert!(fresh.is_open().await);
    gate.put(Admission::Shut, &[]).await;
    gate.report_when("both are closed", |report| report.connections == 0).await;
    assert!(!used.is_open().await && !fresh.is_open().await);
}

#[tokio::test]
async fn a_held_request_is_refused_when_the_gate_shuts() {
    let gate = TestGate::start().await;
    gate.put(Admission::Hold, &[]).await;
    let held = get(gate.address, "/");
    gate.report_when("it waits", |report| report.held == 1).await;
    gate.put(Admission::Shut, &[]).await;
    assert_eq!(held.await.expect("no panic").header("handover-gate"), "shut");
    gate.report_when("its place is free", |report| report.held == 0).await;
}

#[tokio::test]
async fn a_client_that_vanishes_while_it_waits_keeps_its_place_no_longer_than_the_hold_time() {
    // Longer than two reports are apart, so that it is seen to wait.
    let gate = TestGate::start_with(|settings| settings.hold.time = Duration::from_secs(3)).await;
    gate.put(Admission::Hold, &[]).await;
    let address = gate.address;
    let held = tokio::spawn(async move { Client::connect(address).await.get("/").await });
    gate.report_when("it waits", |report| report.held == 1).await;
    held.abort();
    gate.report_when("its place is free", |report| report.held == 0).await;
}
