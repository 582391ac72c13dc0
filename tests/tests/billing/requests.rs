//! Billing's answers to clients, its end, and its faults.

use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use handover_tests::billing::http::{FAULT_HEADER, VERSION_HEADER};
use http_body_util::Full;
use hyper::{Request, StatusCode};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::agent::nobody;
use crate::process::{Billing, Place, ask, command, until};

fn start(place: &Place, flags: &[&str]) -> Billing {
    Billing::start(place, &nobody(&place.path("")), flags)
}

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).body(Full::default()).expect("request")
}

#[tokio::test]
async fn a_charge_is_written_once_per_key_by_whichever_instance() {
    let place = Place::new();
    let (a, b) = (start(&place, &[]), start(&place, &[]));
    let charge = json!({ "account": "x", "cents": 7 });
    assert_eq!(a.post("/charges", &charge, Some("k")).await.0, StatusCode::CREATED);
    assert_eq!(b.post("/charges", &charge, Some("k")).await.0, StatusCode::OK, "the same again, elsewhere");
    let other = json!({ "account": "x", "cents": 8 });
    assert_eq!(b.post("/charges", &other, Some("k")).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(b.post("/charges", &charge, None).await.0, StatusCode::BAD_REQUEST, "no key");
    assert_eq!(a.post("/charges", &json!({ "account": 5 }), Some("k2")).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(b.get("/balance/x").await.1["cents"], 7);
    assert_eq!(place.ledger().payments["k"], [("x".to_owned(), 7)]);
}

#[tokio::test]
async fn an_acknowledged_charge_survives_kill_9() {
    let place = Place::new();
    let mut billing = start(&place, &[]);
    let charge = json!({ "account": "x", "cents": 7 });
    assert_eq!(billing.post("/charges", &charge, Some("k")).await.0, StatusCode::CREATED);
    billing.signal(Signal::SIGKILL);
    billing.wait();
    assert_eq!(place.ledger().payments.len(), 1);
}

#[tokio::test]
async fn it_says_its_version_and_its_readiness_by_named_conditions() {
    let place = Place::new();
    let billing = start(&place, &[]);
    let (status, headers, _) = ask(billing.address, get("/health")).await;
    assert_eq!((status, &headers[VERSION_HEADER]), (StatusCode::OK, &"1.0.0".parse().expect("value")));
    assert_eq!(billing.get("/version").await.1["instance"], billing.instance.as_str());
    let (status, ready) = billing.get("/ready").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&ready["schema_gate"], &ready["test_clock"]), (&"active".into(), &"stopped".into()));
    assert_eq!((&ready["lease"], &ready["ok"]), (&"single-holder".into(), &true.into()));
    assert_eq!(billing.get("/nothing").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn sigterm_lets_a_request_in_flight_finish_and_takes_no_new_one() {
    let place = Place::new();
    let mut billing = start(&place, &[]);
    let slow = tokio::spawn(ask(billing.address, get("/slow?ms=600")));
    // The head of the answer is what proves that it is in flight.
    until("a connection", || established(billing.address.port())).await;
    billing.get("/health").await;
    billing.signal(Signal::SIGTERM);
    until("no new connection", || std::net::TcpStream::connect(billing.address).is_err()).await;
    assert!(!slow.is_finished(), "precondition: still in flight when the port was closed");
    assert!(billing.running());
    let (status, _, body) = slow.await.expect("task");
    assert_eq!((status, body.len() % 25), (StatusCode::OK, 0));
    assert_eq!(billing.wait().code(), Some(0));
}

#[tokio::test]
async fn sigterm_closes_an_idle_connection() {
    let place = Place::new();
    let mut billing = start(&place, &[]);
    let stream = tokio::net::TcpStream::connect(billing.address).await.expect("connect");
    let handshake = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.expect("handshake");
    let driven = tokio::spawn(connection);
    let response = sender.send_request(get("/health")).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::OK);
    billing.signal(Signal::SIGTERM);
    let closed = tokio::time::timeout(Duration::from_secs(30), driven).await.expect("closed by the service");
    closed.expect("task").expect("in order");
    assert_eq!(billing.wait().code(), Some(0));
}

/// Whether the kernel has an established connection to this port of 127.0.0.1.
fn established(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("table");
    let server = format!("0100007F:{port:04X}");
    table.lines().any(|line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        fields.get(1) == Some(&server.as_str()) && fields.get(3) == Some(&"01")
    })
}

#[tokio::test]
async fn a_version_that_turns_bad_marks_its_failures_and_stays_ready() {
    let place = Place::new();
    let billing = start(&place, &["--fault", "bad-after-requests=2"]);
    for expected in [StatusCode::OK, StatusCode::OK, StatusCode::INTERNAL_SERVER_ERROR] {
        let (status, headers, _) = ask(billing.address, get("/balance/x")).await;
        assert_eq!((status, headers.contains_key(FAULT_HEADER)), (expected, expected != StatusCode::OK));
    }
    assert_eq!(billing.get("/ready").await.0, StatusCode::OK);
}

#[tokio::test]
async fn faults_come_and_go_while_it_runs() {
    let place = Place::new();
    let billing = start(&place, &[]);
    assert_eq!(billing.get("/ready").await.0, StatusCode::OK);
    let cases = [
        ("unready-after = '0s'", "ok", json!(false)),
        ("test-clock-running = true", "test_clock", json!("running")),
        ("schema-gate-closed = true", "schema_gate", json!("closed")),
        ("never-ready = true", "ok", json!(false)),
    ];
    for (text, condition, value) in cases {
        std::fs::write(place.path("behaviour.toml"), text).expect("write");
        let mut now = billing.get("/ready").await;
        for _ in 0..1000 {
            if now.1[condition] == value {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            now = billing.get("/ready").await;
        }
        assert_eq!((now.0, &now.1[condition]), (StatusCode::SERVICE_UNAVAILABLE, &value), "{text}");
    }
    std::fs::remove_file(place.path("behaviour.toml")).expect("remove");
    let mut status = StatusCode::SERVICE_UNAVAILABLE;
    for _ in 0..1000 {
        status = billing.get("/ready").await.0;
        if status == StatusCode::OK {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(status, StatusCode::OK, "the faults are gone");
}

#[tokio::test]
async fn a_slow_version_is_slow_by_so_much() {
    let place = Place::new();
    let billing = start(&place, &["--fault", "slow=150ms"]);
    let begin = std::time::Instant::now();
    assert_eq!(billing.get("/balance/x").await.0, StatusCode::OK);
    assert!(begin.elapsed() >= Duration::from_millis(150));
}

#[test]
fn crashes_on_purpose_exit_with_3() {
    let place = Place::new();
    for fault in ["crash-at-start", "crash-after=100ms"] {
        let mut command = command(&place, &nobody(&place.path("")), &["--fault", fault]);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("billing");
        assert_eq!(status.code(), Some(3), "{fault}");
    }
}

#[test]
fn a_fault_that_does_not_exist_is_refused_at_the_start() {
    let place = Place::new();
    let mut command = command(&place, &nobody(&place.path("")), &["--fault", "no-such"]);
    let output = command.output().expect("billing");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such"));
}

#[tokio::test]
async fn a_version_that_hangs_on_sigterm_goes_on_and_dies_of_sigkill() {
    let place = Place::new();
    let mut billing = start(&place, &["--fault", "hang-on-sigterm"]);
    billing.signal(Signal::SIGTERM);
    // Two answers on two connections: the signal was delivered before the first request was sent.
    for _ in 0..2 {
        assert_eq!(billing.get("/balance/x").await.0, StatusCode::OK);
    }
    assert!(billing.running());
    billing.signal(Signal::SIGKILL);
    assert!(!billing.wait().success());
}
