//! `request_time`: the time for a whole request ends it, whoever is the slow one.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use handover_agent::gate::control::{Admission, Upstream};
use http_body_util::BodyExt;
use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::bench::{PATIENCE, Service, TestGate};
use crate::http2::Client2;
use crate::visitor::get;

/// A service whose answers have no end, and are always ahead of their client.
async fn endless() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n";
                let _ = stream.write_all(head).await;
                while stream.write_all(&[b'x'; 64 << 10]).await.is_ok() {}
            });
        }
    });
    address
}

async fn gate_before_an_endless_service(a: &Service) -> TestGate {
    let gate = TestGate::start_with(|settings| settings.limits.request_time = Some(Duration::from_millis(500))).await;
    gate.open(&[Upstream { address: endless().await, ..a.upstream(1, 1) }]).await;
    gate
}

#[tokio::test]
async fn the_time_for_a_request_is_also_over_for_one_that_is_held() {
    let gate = TestGate::start_with(|settings| {
        settings.hold.time = Duration::from_secs(600);
        settings.limits.request_time = Some(Duration::from_millis(200));
    })
    .await;
    gate.put(Admission::Hold, &[]).await;
    let answer = get(gate.address, "/").await.expect("no panic");
    assert_eq!((answer.status, answer.header("handover-gate")), (504, "request-timeout"));
    gate.report_when("its place is free", |report| report.held == 0).await;
}

#[tokio::test]
async fn the_time_for_a_request_is_over_for_a_client_that_reads_nothing_of_its_answer() {
    let a = Service::start(1).await;
    let gate = gate_before_an_endless_service(&a).await;
    let mut stream = TcpStream::connect(gate.address).await.expect("connected");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("written");
    gate.upstream_when(&a, "the answer has begun", |one| one.reads.answered_2xx == 1).await;
    gate.upstream_when(&a, "it is over", |one| one.in_flight == 0).await;
    drop(stream);
}

#[tokio::test]
async fn the_time_for_a_request_is_over_although_the_service_is_always_ahead_of_the_client() {
    let a = Service::start(1).await;
    let gate = gate_before_an_endless_service(&a).await;
    let (mut client, _connection) = Client2::connect(&gate).await;
    let mut body = client.begin(Method::GET, "/", &[], "").await.expect("the head").into_body();
    let broken = async {
        loop {
            match body.frame().await {
                Some(Ok(frame)) => drop(frame.into_data().unwrap_or_else(|_| Bytes::new())),
                Some(Err(_)) => return true,
                None => return false,
            }
            // The subject of the test: a client slower than the service.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, broken).await.expect("broken off in time"), "and not as if it were whole");
    gate.upstream_when(&a, "it is over", |one| one.in_flight == 0).await;
}

#[tokio::test]
async fn the_time_for_a_request_is_over_for_a_stream_that_is_not_read_and_its_connection_goes_on() {
    let (a, b) = (Service::start(1).await, Service::start(2).await);
    let gate = gate_before_an_endless_service(&a).await;
    let (mut client, _connection) = Client2::connect(&gate).await;
    let unread = client.begin(Method::GET, "/", &[], "").await.expect("the head");
    gate.upstream_when(&a, "it is over", |one| one.in_flight == 0 && one.reads.client_cut == 1).await;
    gate.open(&[b.upstream(1, 1)]).await;
    assert_eq!(client.get("/").await.body, b.name());
    let rest = tokio::time::timeout(PATIENCE, unread.into_body().collect()).await.expect("broken off in time");
    assert!(rest.is_err(), "what comes in the end does not look whole");
}
