//! HTTP as it is on the wire.

use std::time::Duration;

use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use handover_agent::gate::control::Reason;

use crate::bench::{PATIENCE, Service, TestGate, until};
use crate::visitor::raw;

async fn gate_and_service() -> (TestGate, Service) {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    gate.open(&[a.upstream(1, 1)]).await;
    (gate, a)
}

#[tokio::test]
async fn a_rule_sees_what_a_path_means_and_the_service_gets_the_path_as_it_was_sent() {
    let (a, b) = (Service::start(1).await, Service::start(2).await);
    let gate = TestGate::start_with(|settings| {
        settings.rules = vec![toml::from_str("path_prefix = '/a/admin'\nclass = 'write'").expect("a rule")];
    })
    .await;
    // Reads go to the one, writes to the other.
    gate.open(&[a.upstream(1, 0), b.upstream(0, 1)]).await;
    for (path, writes) in [
        ("/a/%61dmin/%2Fx", true),
        ("/%61/%61%64min", true),
        ("/a//admin", false),
        ("/a/./admin", false),
        ("/a/%2561dmin", false),
    ] {
        raw(gate.address, &format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
        let seen = [&a, &b].map(|service| service.saw(&format!("GET {path}")));
        assert_eq!(seen, if writes { [0, 1] } else { [1, 0] }, "{path}");
    }
}

#[tokio::test]
async fn bodies_pass_whole_in_both_directions_with_a_length_and_without() {
    let (gate, _a) = gate_and_service().await;
    let body: String = (0..400_000).map(|n: u32| format!("{n},")).collect();
    let mut client = gate.client().await;
    assert!(client.send(Method::POST, "/echo", &body).await.expect("an answer").body == body, "2.7 MB with a length");
    let chunks = "5\r\nhello\r\n1;ext=1\r\n \r\n5\r\nworld\r\n0\r\n\r\n";
    for method in ["POST", "PUT", "GET"] {
        let head =
            format!("{method} /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
        let answer = raw(gate.address, &format!("{head}{chunks}")).await;
        assert!(answer.contains("hello") && answer.contains("world"), "{method}: {answer}");
    }
}

#[tokio::test]
async fn the_answer_to_a_head_request_keeps_its_length_and_has_no_body() {
    let (gate, a) = gate_and_service().await;
    let mut client = gate.client().await;
    for _ in 0..3 {
        let answer = client.send(Method::HEAD, "/", "").await.expect("an answer");
        assert_eq!((answer.status, answer.header("content-length"), answer.body.as_str()), (200, "9", ""));
    }
    assert_eq!(a.connections(), 1, "the connection to the service stays usable");
}

#[tokio::test]
async fn an_answer_without_a_body_keeps_both_connections() {
    let (gate, a) = gate_and_service().await;
    let mut client = gate.client().await;
    for status in [204, 304, 200] {
        assert_eq!(client.get(&format!("/status/{status}")).await.status, status);
    }
    assert_eq!(a.connections(), 1);
}

#[tokio::test]
async fn the_service_sees_the_clients_address_and_no_field_of_the_clients_connection() {
    let (gate, _a) = gate_and_service().await;
    let request = "GET /head HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-For: 10.9.9.9\r\nX-Secret: 1\r\nKeep-Alive: 5\r\n\
                   Connection: X-Secret, close\r\nX-Kept: 2\r\n\r\n";
    let seen = raw(gate.address, request).await;
    for kept in [
        "\"host\": \"shop.example\"",
        "\"x-forwarded-for\": \"127.0.0.1\"",
        "\"x-forwarded-proto\": \"http\"",
        "\"x-kept\"",
    ] {
        assert!(seen.contains(kept), "{kept} is missing in {seen}");
    }
    for gone in ["x-secret", "keep-alive", "10.9.9.9", "\"connection\""] {
        assert!(!seen.contains(gone), "{gone} in {seen}");
    }
}

#[tokio::test]
async fn lengths_that_could_smuggle_a_request_are_refused_before_any_service_sees_them() {
    let (gate, a) = gate_and_service().await;
    let bad = [
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 5x\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length:\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "X: y\n Transfer-Encoding: chunked\r\n",
    ];
    for fields in bad {
        let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        let answer = raw(gate.address, &format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{smuggled}")).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{fields:?} was answered {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{fields:?}: one answer, then closed");
    }
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert!(raw(gate.address, old).await.contains(" 400 "));
    assert_eq!(a.requests(), 0);
}

#[tokio::test]
async fn a_chunk_that_could_hide_a_request_ends_the_connection() {
    let (gate, a) = gate_and_service().await;
    for chunk in ["x\r\n", "5\nhello\r\n", "-1\r\n", "ffffffffffffffffff\r\n", "5\r\nhelloGET"] {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        raw(gate.address, &format!("{head}{chunk}{smuggled}")).await;
        assert_eq!(a.saw("GET /smuggled"), 0, "{chunk:?}");
    }
}

#[tokio::test]
async fn with_both_a_length_and_chunked_only_the_chunks_count_the_length_is_not_passed_and_the_connection_ends() {
    let (gate, a) = gate_and_service().await;
    let bodies = [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", 1),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", 2),
    ];
    for (fields, count) in bodies {
        let request = format!(
            "POST /head HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        let answer = raw(gate.address, &request).await;
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
        assert!(!answer.contains("content-length\": \"5\""), "the length was passed on: {answer}");
        assert_eq!((a.saw("POST /head"), a.saw("GET /smuggled")), (count, 0));
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (gate, a) = gate_and_service().await;
    let two =
        "GET /status/200 HTTP/1.1\r\nHost: a\r\n\r\nGET /status/404 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = raw(gate.address, two).await;
    let (first, second) = (answer.find("HTTP/1.1 200").expect("first"), answer.find("HTTP/1.1 404").expect("second"));
    assert!(first < second);
    assert_eq!(a.requests(), 2);
}

#[tokio::test]
async fn a_client_that_closed_its_sending_side_still_gets_its_answer() {
    let (gate, a) = gate_and_service().await;
    let mut stream = TcpStream::connect(gate.address).await.expect("connected");
    stream.write_all(b"GET /wait HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.expect("written");
    stream.shutdown().await.expect("half closed");
    until("at work", async || a.saw("GET /wait") == 1).await;
    a.release(1);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    assert!(answer.ends_with(&a.name()), "{answer}");
}

#[tokio::test]
async fn an_http_1_0_client_is_served_and_its_connection_closed() {
    let (gate, a) = gate_and_service().await;
    let answer = raw(gate.address, "GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with(&a.name()), "{answer}");
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_is_told_to_continue() {
    let (gate, _a) = gate_and_service().await;
    let mut stream = TcpStream::connect(gate.address).await.expect("connected");
    let head =
        "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).await.expect("an interim answer");
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").await.expect("written");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("read");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("body"), "{answer}");
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_is_not_asked_for_a_body_that_nobody_takes() {
    let gate = TestGate::start().await;
    gate.put(handover_agent::gate::control::Admission::Shut, &[]).await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let began = std::time::Instant::now();
    let answer = raw(gate.address, head).await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(began.elapsed() < Duration::from_secs(3), "closed at once, not after waiting for the body");
}

#[tokio::test]
async fn a_refused_upload_does_not_lose_the_answer_to_a_reset() {
    let gate = TestGate::start().await;
    gate.put(handover_agent::gate::control::Admission::Shut, &[]).await;
    for _ in 0..10 {
        let mut stream = TcpStream::connect(gate.address).await.expect("connected");
        let body = vec![b'x'; 200_000];
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.expect("written");
        stream.write_all(&body).await.expect("the whole body is taken");
        let mut answer = String::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("closed");
        read.expect("no reset");
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    }
}

#[tokio::test]
async fn what_the_gate_does_not_support_is_answered_501_and_an_offer_of_h2c_is_ignored() {
    let (gate, a) = gate_and_service().await;
    let tunnel = "CONNECT shop.example:443 HTTP/1.1\r\nHost: shop.example:443\r\nConnection: close\r\n\r\n";
    let answer = raw(gate.address, tunnel).await;
    assert!(answer.starts_with("HTTP/1.1 501") && answer.contains("CONNECT"), "{answer}");
    let h2c = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n";
    assert!(raw(gate.address, h2c).await.starts_with("HTTP/1.1 200"));
    assert_eq!(a.requests(), 1);
    let report = gate.report_when("counted", |report| !report.own_answers.is_empty()).await;
    assert_eq!(report.own_answers.get(&Reason::NotSupported), Some(&1));
}

#[tokio::test]
async fn an_absolute_target_reaches_the_service_as_a_path_with_its_host() {
    let (gate, a) = gate_and_service().await;
    let request = "GET http://real.example/head?q HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n";
    let seen = raw(gate.address, request).await;
    assert!(seen.contains("uri: /head?q") && seen.contains("\"host\": \"real.example\""), "{seen}");
    assert_eq!(a.requests(), 1);
}
