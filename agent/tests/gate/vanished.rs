//! Clients that are gone while nothing is being written to them: nobody must be waited for who is not there.

use std::net::SocketAddr;
use std::time::Duration;

use handover_agent::gate::control::Admission;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bench::{Service, TestGate, until};

/// Sends a GET; the connection stays as it is.
async fn asks(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await.expect("written");
    stream
}

/// Reads until the first part of the answer is there.
async fn heard_the_first_part(stream: &mut TcpStream) {
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("first,") {
        assert!(stream.read_buf(&mut answer).await.expect("bytes") > 0, "closed");
    }
}

/// Goes away as a client does that is killed with bytes unread.
fn reset(stream: TcpStream) {
    stream.set_zero_linger().expect("set");
    drop(stream);
}

#[tokio::test]
async fn a_client_that_resets_its_connection_in_the_silence_of_an_answer_is_in_flight_no_longer() {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    gate.open(&[a.upstream(1, 1)]).await;
    let mut client = asks(gate.address, "/drip").await;
    heard_the_first_part(&mut client).await;
    gate.upstream_when(&a, "in flight", |one| one.in_flight == 1).await;
    reset(client);
    let one = gate.upstream_when(&a, "given up", |one| one.in_flight == 0).await;
    assert_eq!(one.reads.client_cut, 1);
    // The same before the head of an answer.
    let client = asks(gate.address, "/wait").await;
    until("the service has it", async || a.saw("GET /wait") == 1).await;
    reset(client);
    gate.upstream_when(&a, "given up", |one| one.in_flight == 0 && one.reads.client_left == 1).await;
}

#[tokio::test]
async fn a_held_request_whose_client_resets_its_connection_is_never_sent() {
    let gate = TestGate::start_with(|settings| settings.hold.time = Duration::from_secs(600)).await;
    let a = Service::start(1).await;
    gate.put(Admission::Hold, &[]).await;
    let client = asks(gate.address, "/").await;
    gate.report_when("it waits", |report| report.held == 1).await;
    reset(client);
    gate.report_when("its place is free", |report| report.held == 0).await;
    gate.open(&[a.upstream(1, 1)]).await;
    assert_eq!(gate.client().await.get("/").await.status, 200);
    assert_eq!(a.requests(), 1, "the one that is wanted");
}

#[tokio::test]
async fn a_client_that_has_ended_its_side_is_not_waited_for_without_end_in_the_silence_of_an_answer() {
    let gate = TestGate::start_with(|settings| settings.limits.stall_time = Duration::from_millis(300)).await;
    let a = Service::start(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    let mut client = asks(gate.address, "/drip").await;
    heard_the_first_part(&mut client).await;
    drop(client);
    let one = gate.upstream_when(&a, "given up", |one| one.reads.answered_2xx == 1 && one.in_flight == 0).await;
    assert_eq!(one.reads.client_cut, 1);
    // One that stays is waited for.
    let mut client = asks(gate.address, "/drip").await;
    heard_the_first_part(&mut client).await;
    gate.upstream_when(&a, "longer than that", |one| one.oldest_ms > 1000).await;
    a.release(2);
    let mut rest = [0; 64];
    assert!(client.read(&mut rest).await.expect("the rest") > 0);
}

/// Whether the kernel asks on a connection of this process, now and then, if its peer is there (`/proc/net/tcp`: timer 2).
fn is_kept_alive(here: SocketAddr, there: Option<SocketAddr>) -> bool {
    let hex = |port: u16| format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").expect("a table");
    let mut rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.any(|row| match row.as_slice() {
        [_, local, remote, "01", _, timer, ..] => {
            local.ends_with(&hex(here.port()))
                && there.is_none_or(|there| remote.ends_with(&hex(there.port())))
                && timer.starts_with("02:")
        }
        _ => false,
    })
}

/// The same for a connection to there.
fn is_kept_alive_to(there: SocketAddr) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("a table");
    let port = format!(":{:04X}", there.port());
    let mut rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.any(|row| matches!(row.as_slice(), [_, _, remote, "01", _, timer, ..] if remote.ends_with(&port) && timer.starts_with("02:")))
}

#[tokio::test]
async fn the_kernel_asks_silent_peers_on_both_sides_whether_they_are_there() {
    let (gate, a, b) = (TestGate::start().await, Service::start(1).await, Service::start_http2(2).await);
    gate.open(&[a.upstream(1, 1)]).await;
    let mut client = asks(gate.address, "/drip").await;
    heard_the_first_part(&mut client).await;
    let local = client.local_addr().expect("an address");
    // The timer for what was just written goes first, until it is acknowledged.
    until("the client is asked", async || is_kept_alive(gate.address, Some(local))).await;
    until("the service is asked", async || is_kept_alive_to(a.address)).await;
    let second = TestGate::start_with(|settings| {
        settings.upstream = handover_agent::gate::settings::UpstreamProtocol::Http2;
    })
    .await;
    second.open(&[b.upstream(1, 1)]).await;
    let mut client = asks(second.address, "/drip").await;
    heard_the_first_part(&mut client).await;
    until("the service is asked by HTTP/2", async || is_kept_alive_to(b.address)).await;
    a.release(1);
    b.release(1);
}
