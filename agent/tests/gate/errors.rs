//! What happens when an upstream fails, and that nothing is ever sent twice.

use std::net::SocketAddr;
use std::time::Duration;

use handover_agent::gate::control::{Reason, Upstream};
use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::bench::{PATIENCE, Service, TestGate, until};
use crate::visitor::{get, raw, read};

/// An upstream on a port that nobody listens on.
async fn nobody(number: u16) -> Upstream {
    let service = Service::start(number).await;
    let upstream = service.upstream(1, 1);
    service.kill();
    until("the port refuses", async || TcpStream::connect(upstream.address).await.is_err()).await;
    upstream
}

/// A service that answers each connection's first request with these bytes and closes.
async fn answers_once_with(bytes: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(bytes.as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn a_request_for_an_upstream_that_cannot_be_connected_to_goes_to_another_whatever_its_method() {
    let (gate, b, dead) = (TestGate::start().await, Service::start(2).await, nobody(1).await);
    gate.open(&[dead, b.upstream(1, 1)]).await;
    let mut client = gate.client().await;
    for _ in 0..10 {
        assert_eq!((client.get("/").await.body, client.post("/").await.body), (b.name(), b.name()));
    }
    assert_eq!((b.saw("GET /"), b.saw("POST /")), (10, 10), "each once");
    let report = gate
        .report_when("connect errors", |report| {
            let dead = &report.upstreams[0];
            dead.reads.connect_errors + dead.writes.connect_errors > 0
        })
        .await;
    // Passed over for a second each time, where half of the requests would have been sent there.
    let dead = &report.upstreams[0];
    assert!(dead.reads.connect_errors + dead.writes.connect_errors < 5, "{dead:?}");
    assert!(report.own_answers.is_empty());
}

#[tokio::test]
async fn with_no_upstream_to_connect_to_the_answer_says_that_the_gate_made_it_and_nothing_was_sent() {
    let short = TestGate::start_with(|settings| settings.hold.time = Duration::from_millis(60)).await;
    let (gate, a, b) = (short, nobody(1).await, nobody(2).await);
    gate.open(&[a, b]).await;
    let answer = gate.client().await.post("/").await;
    assert_eq!(
        (answer.status, answer.header("handover-gate"), answer.header("retry-after")),
        (503, "hold-expired", "1")
    );
    let body: serde_json::Value = serde_json::from_str(&answer.body).expect("json");
    assert_eq!(body["error"], "hold-expired");
    let report =
        gate.report_when("both were tried", |report| report.own_answers.contains_key(&Reason::HoldExpired)).await;
    assert!(report.upstreams.iter().all(|one| one.writes.connect_errors >= 1 && one.in_flight == 0), "{report:?}");
    assert_eq!(report.held, 0);
}

#[tokio::test]
async fn a_request_for_an_instance_that_died_waits_for_its_successor_and_is_sent_once() {
    let (gate, dead, b) = (TestGate::start().await, nobody(1).await, Service::start(2).await);
    gate.open(&[dead]).await;
    let mut client = gate.client().await;
    let waiting = tokio::spawn(async move { client.post("/").await });
    gate.report_when("the request waits", |report| report.held == 1 && report.in_flight == 0).await;
    gate.open(&[b.upstream(1, 1)]).await;
    let answer = waiting.await.expect("the client");
    assert_eq!((answer.status, answer.body), (200, b.name()));
    assert_eq!(b.saw("POST /"), 1);
    gate.report_when("nobody waits", |report| report.held == 0).await;
}

#[tokio::test]
async fn a_request_that_was_sent_is_never_sent_again_when_its_connection_ends_without_an_answer() {
    let (gate, a, b) = (TestGate::start().await, Service::start(1).await, Service::start(2).await);
    gate.open(&[a.upstream(1, 1), b.upstream(1, 1)]).await;
    let mut client = gate.client().await;
    for method in [Method::POST, Method::GET, Method::PUT, Method::DELETE] {
        let what = format!("{method} /close");
        let answer = client.send(method, "/close", "once").await.expect("an answer");
        assert_eq!((answer.status, answer.header("handover-gate")), (502, "no-answer"));
        assert_eq!(a.saw(&what) + b.saw(&what), 1, "{what} reached exactly one service exactly once");
    }
    assert_eq!(client.get("/").await.status, 200, "the client's connection is still good");
}

#[tokio::test]
async fn a_request_that_was_sent_on_a_used_connection_is_not_sent_again_on_a_fresh_one() {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    gate.open(&[a.upstream(1, 1)]).await;
    let mut client = gate.client().await;
    for round in 1..=20 {
        assert_eq!(client.get("/").await.status, 200);
        let used = a.connections();
        assert_eq!(client.post("/close").await.status, 502);
        assert_eq!((a.saw("POST /close"), a.connections()), (round, used), "on the used connection, once");
    }
}

#[tokio::test]
async fn a_pooled_connection_that_the_service_closed_costs_no_request() {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    let address = answers_once_with("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    gate.open(&[Upstream { address, ..a.upstream(1, 1) }]).await;
    for _ in 0..50 {
        // A connection of its own: by the time it is accepted, the gate has been told that the service closed.
        let answer = gate.client().await.post("/").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
    }
}

#[tokio::test]
async fn an_upstream_that_dies_in_the_middle_of_its_answer_is_counted_as_lost_and_the_client_can_tell() {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    gate.open(&[a.upstream(1, 1)]).await;
    let mut client = gate.client().await;
    let broken = client.begin(Method::GET, "/break", "").await.expect("the head");
    a.release(1);
    read(broken).await.expect_err("half an answer must not look whole");
    let one = gate.upstream_when(&a, "lost", |one| one.reads.lost == 1).await;
    assert_eq!((one.in_flight, one.reads.answered_2xx, one.reads.client_cut), (0, 1, 0));
    let killed = gate.client().await.begin(Method::GET, "/drip", "").await.expect("the head");
    a.kill();
    read(killed).await.expect_err("half an answer must not look whole");
    gate.upstream_when(&a, "lost again", |one| one.reads.lost == 2 && one.in_flight == 0).await;
}

#[tokio::test]
async fn the_services_own_errors_pass_unchanged_and_are_counted_as_its() {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    gate.open(&[a.upstream(1, 1)]).await;
    let mut client = gate.client().await;
    for status in [200, 301, 404, 500, 503] {
        let answer = client.get(&format!("/status/{status}")).await;
        assert_eq!((answer.status, answer.header("handover-gate")), (status, ""));
        assert_eq!(answer.body, a.name());
    }
    let one = gate.upstream_when(&a, "counted", |one| one.reads.answered() == 5).await.reads;
    assert_eq!((one.answered_2xx, one.answered_3xx, one.answered_4xx, one.answered_5xx), (1, 1, 1, 2));
    assert_eq!(one.latency.iter().sum::<u64>(), 5);
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_a_504_and_the_request_is_not_repeated() {
    let gate = TestGate::start_with(|settings| settings.limits.answer_time = Duration::from_millis(80)).await;
    let (a, b) = (Service::start(1).await, Service::start(2).await);
    gate.open(&[a.upstream(1, 1), b.upstream(1, 1)]).await;
    let answer = gate.client().await.get("/wait").await;
    assert_eq!((answer.status, answer.header("handover-gate")), (504, "answer-timeout"));
    assert_eq!(a.saw("GET /wait") + b.saw("GET /wait"), 1);
    let report = gate.report_when("ended", |report| report.in_flight == 0).await;
    assert_eq!(report.upstreams.iter().map(|one| one.reads.no_answer).sum::<u64>(), 1);
}

#[tokio::test]
async fn an_upload_that_keeps_moving_may_take_longer_than_the_answer_time() {
    let gate = TestGate::start_with(|settings| settings.limits.answer_time = Duration::from_millis(200)).await;
    let a = Service::start(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    let mut stream = TcpStream::connect(gate.address).await.expect("connected");
    let head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 10\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("written");
    for _ in 0..10 {
        // The subject of the test: a slow client.
        tokio::time::sleep(Duration::from_millis(60)).await;
        stream.write_all(b"x").await.expect("written");
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("x-request-bytes: 10"), "{answer}");
}

#[tokio::test]
async fn an_upload_that_stands_still_is_a_408_and_no_error_of_the_service() {
    let gate = TestGate::start_with(|settings| settings.limits.stall_time = Duration::from_millis(80)).await;
    let a = Service::start(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    let answer = raw(gate.address, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("handover-gate: upload-stalled"), "{answer}");
    let one = gate.upstream_when(&a, "ended", |one| one.writes.client_left == 1).await;
    assert_eq!((one.in_flight, one.writes.errors()), (0, 0));
}

#[tokio::test]
async fn a_client_that_breaks_off_its_upload_is_no_error_of_the_service() {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    gate.open(&[a.upstream(1, 1)]).await;
    let mut stream = TcpStream::connect(gate.address).await.expect("connected");
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf";
    stream.write_all(head.as_bytes()).await.expect("written");
    until("the service has the head", async || a.saw("POST /") == 1).await;
    drop(stream);
    let one = gate.upstream_when(&a, "ended", |one| one.writes.client_left == 1).await;
    assert_eq!((one.in_flight, one.writes.errors()), (0, 0));
}

#[tokio::test]
async fn a_client_that_breaks_off_its_upload_in_the_middle_of_the_answer_is_no_loss_of_the_service() {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    gate.open(&[a.upstream(1, 1)]).await;
    let mut stream = TcpStream::connect(gate.address).await.expect("connected");
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf";
    stream.write_all(head.as_bytes()).await.expect("written");
    gate.upstream_when(&a, "the answer began", |one| one.writes.answered_2xx == 1).await;
    drop(stream);
    let one = gate.upstream_when(&a, "ended", |one| one.in_flight == 0).await;
    assert_eq!((one.writes.client_cut, one.writes.errors()), (1, 0));
}

/// A service that reads a request's head and nothing more, after it has answered with these bytes.
async fn reads_no_body(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 200]).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            kept.push(stream);
        }
    });
    address
}

#[tokio::test]
async fn a_service_that_stops_reading_an_upload_does_not_keep_it_in_flight_for_ever() {
    for (answer, answered) in [("", 0), ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 1)] {
        let gate = TestGate::start_with(|settings| {
            settings.limits.answer_time = Duration::from_millis(300);
            settings.limits.stall_time = Duration::from_millis(300);
        })
        .await;
        let a = Service::start(1).await;
        gate.open(&[Upstream { address: reads_no_body(answer).await, ..a.upstream(1, 1) }]).await;
        let address = gate.address;
        let client = tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.expect("connected");
            let body = vec![b'x'; 32 << 20];
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await.expect("written");
            let _ = stream.write_all(&body).await;
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer).await;
        });
        let one = gate.upstream_when(&a, "ended", |one| one.writes.requests == 1 && one.in_flight == 0).await;
        assert_eq!((one.writes.answered_2xx, one.writes.no_answer), (answered, 1 - answered));
        client.abort();
    }
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_a_502_and_the_next_request_has_a_new_connection() {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    let garbage = answers_once_with("SSH-2.0-OpenSSH_9.2\r\n").await;
    gate.open(&[Upstream { address: garbage, ..a.upstream(1, 1) }]).await;
    for _ in 0..3 {
        let answer = get(gate.address, "/").await.expect("no panic");
        assert_eq!((answer.status, answer.header("handover-gate")), (502, "no-answer"));
    }
    let unasked = answers_once_with("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n").await;
    gate.open(&[Upstream { address: unasked, ..a.upstream(1, 1) }]).await;
    assert_eq!(get(gate.address, "/").await.expect("no panic").status, 502);
}

#[tokio::test]
async fn a_request_that_cannot_wait_for_reach_is_a_502() {
    let gate = TestGate::start_with(|settings| settings.hold.count = 0).await;
    gate.open(&[nobody(1).await]).await;
    let answer = gate.client().await.post("/").await;
    assert_eq!((answer.status, answer.header("handover-gate")), (502, "connect"));
}

#[tokio::test]
async fn a_broken_answer_to_http_1_0_does_not_look_whole() {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    gate.open(&[a.upstream(1, 1)]).await;
    let mut stream = TcpStream::connect(gate.address).await.expect("connected");
    stream.write_all(b"GET /break HTTP/1.0\r\nHost: a\r\n\r\n").await.expect("written");
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("first,") {
        assert!(stream.read_buf(&mut answer).await.expect("bytes") > 0, "closed");
    }
    assert!(!String::from_utf8_lossy(&answer).to_ascii_lowercase().contains("content-length"), "the close is its end");
    a.release(1);
    let rest = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it ends");
    rest.expect_err("a close would be the end of a whole answer");
}
