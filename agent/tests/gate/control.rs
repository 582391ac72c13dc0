//! The agent and its gate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use handover_agent::gate::client::GateLink;
use handover_agent::gate::control::{Admission, GateState, Refusal};
use handover_agent::gate::server::{GateError, Server};
use handover_agent::gate::settings::GateSettings;
use hyper::Method;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::bench::{PATIENCE, Service, TestGate, until};
use crate::visitor::{get, read};

async fn refusal(link: &GateLink) -> Refusal {
    let mut refusals = link.refusals();
    let found = tokio::time::timeout(PATIENCE, refusals.wait_for(Option::is_some)).await.expect("refused");
    found.expect("the link lives").clone().expect("a refusal")
}

#[tokio::test]
async fn a_restarted_gate_goes_on_with_its_last_routes_before_any_agent_sends_a_state() {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    let seq = gate.open(&[a.upstream(1, 1)]).await;
    let before = gate.report_when("saved", |report| report.saved == seq).await;
    let gate = gate.restart().await;
    let after = gate.report_when("back", |_| true).await;
    assert_eq!((after.applied, after.saved, after.admission), (seq, seq, Admission::Open));
    assert_ne!(after.gate_start_id, before.gate_start_id);
    assert_eq!(gate.client().await.get("/").await.status, 200);
}

#[tokio::test]
async fn a_link_outlives_its_gate_and_sends_its_state_again() {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    let link = GateLink::connect(&gate.settings.control);
    let state = GateState { seq: 40, admission: Admission::Open, upstreams: vec![a.upstream(1, 1)] };
    link.send(state.clone());
    let mut reports = link.reports();
    let at_40 = |report: &Option<_>| {
        report.as_ref().is_some_and(|report: &handover_agent::gate::control::GateReport| report.saved == 40)
    };
    tokio::time::timeout(PATIENCE, reports.wait_for(at_40)).await.expect("in time").expect("applied");
    let (settings, directory) = (gate.settings.clone(), gate.files());
    gate.stop().await.expect("stopped in good order");
    tokio::time::timeout(PATIENCE, reports.wait_for(Option::is_none)).await.expect("in time").expect("none while away");
    let gate = TestGate::start_in(Arc::clone(&directory), settings.clone()).await;
    tokio::time::timeout(PATIENCE, reports.wait_for(at_40)).await.expect("in time").expect("back");
    // Now a gate that has lost its file as well.
    gate.stop().await.expect("stopped");
    std::fs::remove_file(&settings.state_file).expect("lost");
    tokio::time::timeout(PATIENCE, reports.wait_for(Option::is_none)).await.expect("in time").expect("none while away");
    let gate = TestGate::start_in(directory, settings).await;
    tokio::time::timeout(PATIENCE, reports.wait_for(at_40)).await.expect("in time").expect("sent again");
    assert_eq!(gate.client().await.get("/").await.body, a.name());
    assert_eq!(link.refusals().borrow().clone(), None);
}

#[tokio::test]
async fn a_link_that_is_made_before_its_gate_finds_it_later() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let link = GateLink::connect(path("c.sock"));
    link.send(GateState { seq: 1, admission: Admission::LameDuck, upstreams: Vec::new() });
    link.send(GateState { seq: 2, admission: Admission::Open, upstreams: Vec::new() });
    let settings = GateSettings::new(([127, 0, 0, 1], 0).into(), path("c.sock"), path("s.json"));
    let server = Server::bind(settings).await.expect("bound");
    let gate = tokio::spawn(server.serve(std::future::pending()));
    let mut reports = link.reports();
    let last = reports.wait_for(|report| report.as_ref().is_some_and(|report| report.applied == 2));
    tokio::time::timeout(PATIENCE, last).await.expect("in time").expect("the last state");
    gate.abort();
}

#[tokio::test]
async fn without_its_agent_the_gate_keeps_its_routes_and_touches_no_request() {
    let (mut gate, a) = (TestGate::start().await, Service::start(1).await);
    gate.open(&[a.upstream(1, 1)]).await;
    let mut client = gate.client().await;
    let waiting = get(gate.address, "/wait");
    until("in flight", async || a.saw("GET /wait") == 1).await;
    // The link is dropped as by a killed agent, and another one comes later.
    gate.link = GateLink::connect("/nonexistent/agent-is-away");
    for _ in 0..50 {
        assert_eq!(client.get("/").await.status, 200);
    }
    a.release(1);
    assert_eq!(waiting.await.expect("no panic").status, 200);
    gate.link = GateLink::connect(&gate.settings.control);
    let report = gate.report_when("a new agent is told where things stand", |_| true).await;
    assert_eq!(report.applied, 1);
    assert_eq!(gate.upstream_when(&a, "all counted", |_| true).await.reads.requests, 51);
}

#[tokio::test]
async fn a_state_that_is_older_or_contradicts_is_refused_and_the_routes_stay() {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    gate.open(&[a.upstream(1, 1)]).await;
    gate.open(&[a.upstream(2, 2)]).await;
    let other = GateLink::connect(&gate.settings.control);
    other.send(GateState { seq: 1, admission: Admission::Shut, upstreams: Vec::new() });
    assert_eq!(refusal(&other).await, Refusal::Older { seq: 1, applied: 2 });
    other.send(GateState { seq: 2, admission: Admission::Shut, upstreams: Vec::new() });
    let mut refusals = other.refusals();
    let conflict = refusals.wait_for(|refusal| *refusal == Some(Refusal::Conflict { seq: 2 }));
    tokio::time::timeout(PATIENCE, conflict).await.expect("in time").expect("refused");
    assert_eq!(gate.client().await.get("/").await.status, 200);
    other.send(GateState { seq: 3, admission: Admission::Shut, upstreams: Vec::new() });
    gate.report_when("a newer one is accepted from anybody", |report| report.applied == 3).await;
    assert_eq!(*other.refusals().borrow(), None, "a newer state clears the refusal");
}

#[tokio::test]
async fn a_line_that_is_no_message_is_refused_and_the_connection_goes_on() {
    let gate = TestGate::start().await;
    let mut stream = BufReader::new(UnixStream::connect(&gate.settings.control).await.expect("connected"));
    for bad in ["hello\n", "{\"state\":{\"seq\":1}}\n", "{\"unknown\":1}\n", "\n"] {
        stream.write_all(bad.as_bytes()).await.expect("written");
        let mut line = String::new();
        while !line.contains("unreadable") {
            line.clear();
            let count = stream.read_line(&mut line).await.expect("a line");
            assert!(count > 0, "closed after {bad:?}");
        }
    }
    // A newer agent may say more than this gate knows.
    let newer = "{\"state\":{\"seq\":9,\"admission\":\"open\",\"upstreams\":[],\"added_later\":true}}\n";
    stream.write_all(newer.as_bytes()).await.expect("written");
    gate.report_when("applied", |report| report.applied == 9).await;
}

#[tokio::test]
async fn a_line_without_end_does_not_fill_the_gates_memory() {
    let gate = TestGate::start().await;
    let mut stream = UnixStream::connect(&gate.settings.control).await.expect("connected");
    let piece = [b'x'; 64 << 10];
    let mut sent = 0;
    while stream.write_all(&piece).await.is_ok() {
        sent += piece.len();
        assert!(sent < 64 << 20, "the gate takes everything");
    }
    gate.put(Admission::Open, &[]).await;
}

/// Reports that come with nothing but the regular beat of one second come, one after another, a second apart. A machine that
/// is busy may be late for some.
fn before_the_beat(mut waited: Vec<Duration>) {
    waited.sort_unstable();
    let median = waited[waited.len() / 2];
    assert!(median < Duration::from_millis(500), "{waited:?}: that was the regular beat");
}

#[tokio::test]
async fn the_end_of_the_last_request_of_a_drained_upstream_is_reported_at_once() {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    let mut waited = Vec::new();
    for round in 1..=8 {
        gate.open(&[a.upstream(1, 1)]).await;
        let mut client = gate.client().await;
        let answer = client.begin(Method::GET, "/drip", "").await.expect("the head");
        gate.open(&[a.upstream(0, 0)]).await;
        gate.upstream_when(&a, "in flight", |one| one.in_flight == 1).await;
        let began = Instant::now();
        a.release(1);
        read(answer).await.expect("the rest");
        gate.upstream_when(&a, "drained", |one| one.in_flight == 0 && one.reads.requests == round).await;
        waited.push(began.elapsed());
    }
    before_the_beat(waited);
}

#[tokio::test]
async fn the_first_error_of_an_upstream_is_reported_at_once() {
    let mut waited = Vec::new();
    for _ in 0..8 {
        let (gate, a) = (TestGate::start().await, Service::start(1).await);
        gate.open(&[a.upstream(1, 1)]).await;
        let began = Instant::now();
        gate.client().await.get("/status/500").await;
        gate.upstream_when(&a, "the error", |one| one.reads.answered_5xx == 1).await;
        waited.push(began.elapsed());
    }
    before_the_beat(waited);
}

#[tokio::test]
async fn a_gate_where_nothing_happens_reports_nothing() {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    let seq = gate.open(&[a.upstream(1, 1)]).await;
    gate.client().await.get("/").await;
    gate.report_when("at rest", |r| r.saved == seq && r.connections == 0 && r.upstreams[0].reads.answered_2xx == 1)
        .await;
    let mut reports = gate.link.reports();
    reports.mark_unchanged();
    let news = tokio::time::timeout(Duration::from_millis(2200), reports.changed()).await;
    assert!(news.is_err(), "{:?}", reports.borrow());
}

#[tokio::test]
async fn a_second_gate_on_the_same_port_or_the_same_control_socket_is_refused_with_what_to_do() {
    let gate = TestGate::start().await;
    let elsewhere = tempfile::tempdir().expect("a directory");
    let same_port = GateSettings { listen: gate.address, control: elsewhere.path().join("c"), ..gate.settings.clone() };
    let error = Server::bind(same_port).await.err().expect("refused");
    assert!(matches!(error, GateError::Listen { .. }));
    let text = error.to_string();
    assert!(text.contains(&gate.address.to_string()) && text.contains("ss -ltnp"), "{text}");
    let error = Server::bind(gate.settings.clone()).await.err().expect("refused").to_string();
    assert!(error.contains("gate.sock") && error.contains("stop that one"), "{error}");
    gate.put(Admission::Open, &[]).await;
}

#[tokio::test]
async fn a_control_path_with_something_else_on_it_is_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let control = directory.path().join("precious");
    std::fs::write(&control, "data").expect("written");
    let settings = GateSettings::new(([127, 0, 0, 1], 0).into(), control.clone(), directory.path().join("s.json"));
    let error = Server::bind(settings).await.err().expect("refused").to_string();
    assert!(error.contains("precious") && error.contains("no socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&control).expect("still there"), "data");
}

#[tokio::test]
async fn only_its_own_user_may_speak_to_the_gate() {
    use std::os::unix::fs::PermissionsExt;
    let gate = TestGate::start().await;
    let mode = std::fs::metadata(&gate.settings.control).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_damaged_state_file_does_not_stop_the_gate_and_the_agent_is_told() {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    let (settings, files) = (gate.settings.clone(), gate.files());
    gate.stop().await.expect("stopped");
    std::fs::write(&settings.state_file, "{ half").expect("written");
    let gate = TestGate::start_in(files, settings).await;
    let report = gate.report_when("started", |_| true).await;
    assert!(
        report.applied == 0 && report.save_error.as_deref().is_some_and(|error| error.contains("damaged")),
        "{report:?}"
    );
    let held = get(gate.address, "/");
    gate.report_when("requests wait for the agent", |report| report.held == 1).await;
    let kept = std::fs::read_to_string(&gate.settings.state_file).expect("still there");
    assert_eq!(kept, "{ half", "left as it is for whoever wants to know");
    let seq = gate.open(&[a.upstream(1, 1)]).await;
    assert_eq!(held.await.expect("no panic").status, 200);
    gate.report_when("healed", |report| report.saved == seq && report.save_error.is_none()).await;
}

#[tokio::test]
async fn a_state_that_cannot_be_saved_is_in_force_and_reported_as_not_saved_until_it_can_be() {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    let in_the_way = gate.settings.state_file.with_extension("new");
    std::fs::create_dir(&in_the_way).expect("made");
    let seq = gate.open(&[a.upstream(1, 1)]).await;
    assert_eq!(gate.client().await.get("/").await.status, 200);
    let report = gate.report_when("the failure", |report| report.save_error.is_some()).await;
    assert_eq!((report.applied, report.saved), (seq, 0));
    std::fs::remove_dir(&in_the_way).expect("removed");
    gate.report_when("saved after all", |report| report.saved == seq && report.save_error.is_none()).await;
}
