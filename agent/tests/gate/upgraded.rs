//! WebSockets and other upgraded connections, byte by byte.

use std::time::Duration;

use handover_agent::gate::control::Admission;
use handover_agent::gate::upgraded::AtDrain;
use handover_agent::gate::websocket::CLOSE_RESTART;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bench::{PATIENCE, Service, TestGate, until};

/// A gate with this policy, and a service behind it.
async fn with(at_drain: AtDrain) -> (TestGate, Service) {
    let gate = TestGate::start_with(|settings| {
        settings.upgraded.at_drain = at_drain;
        settings.upgraded.deadline = Duration::from_millis(300);
        settings.upgraded.close_grace = Duration::from_millis(300);
    })
    .await;
    let a = Service::start(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    (gate, a)
}

/// Switches to `protocol`.
async fn switched(gate: &TestGate, protocol: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gate.address).await.expect("connected");
    let head = format!("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.expect("a head"));
    }
    let answer = String::from_utf8(answer).expect("text").to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 101"), "{answer}");
    assert!(
        answer.contains("connection: upgrade") && answer.contains(&format!("upgrade: {}", protocol.to_lowercase())),
        "{answer}"
    );
    stream
}

async fn exchange(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).await.expect("written");
    let mut back = vec![0; bytes.len()];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut back)).await.expect("in time").expect("read");
    assert!(back == bytes, "what came back is something else");
}

async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it is closed");
    // Cut off is closed, too.
    let _ = read;
    rest
}

/// A short frame of a WebSocket.
fn frame(text: &[u8]) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("short");
    [&[0x81, length], text].concat()
}

async fn drain(gate: &TestGate, service: &Service) {
    gate.open(&[service.upstream(0, 0)]).await;
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways_and_is_counted_apart_from_requests() {
    let (gate, a) = with(AtDrain::Finish).await;
    let mut stream = switched(&gate, "websocket").await;
    let one = gate.upstream_when(&a, "counted", |one| one.upgraded == 1).await;
    assert_eq!((one.in_flight, one.reads.answered(), one.upgraded_total), (0, 1, 1));
    for size in [1, 1000, 100_000] {
        // Larger than the buffers on the way, so written and read at once.
        let bytes: Vec<u8> = (0..size).map(|n: u32| (n % 251) as u8).collect();
        exchange(&mut stream, &bytes).await;
    }
    drop(stream);
    gate.upstream_when(&a, "over", |one| one.upgraded == 0).await;
}

#[tokio::test]
async fn a_side_that_has_said_all_still_hears_the_rest() {
    let (gate, a) = with(AtDrain::Finish).await;
    let mut stream = switched(&gate, "chat/1").await;
    exchange(&mut stream, b"hello").await;
    stream.shutdown().await.expect("half closed");
    assert_eq!(rest(&mut stream).await, b"bye", "what the service says after its client ended");
    gate.upstream_when(&a, "over", |one| one.upgraded == 0 && one.upgraded_closed == 0).await;
}

#[tokio::test]
async fn the_last_words_of_a_service_reach_a_client_that_is_still_sending() {
    let (gate, a) = with(AtDrain::Finish).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    gate.open(&[handover_agent::gate::control::Upstream { address, ..a.upstream(1, 1) }]).await;
    for _ in 0..20 {
        let service = async {
            let (mut stream, _) = listener.accept().await.expect("accepted");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.expect("a head"));
            }
            let answer = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: talk\r\n\r\n";
            stream.write_all(answer).await.expect("written");
            stream
        };
        let (client, mut service) = tokio::join!(switched(&gate, "talk"), service);
        let (mut read, mut write) = client.into_split();
        let sending = tokio::spawn(async move { while write.write_all(&[b'x'; 32 << 10]).await.is_ok() {} });
        service.read_u8().await.expect("it begins");
        service.write_all(b"FATAL: too many").await.expect("written");
        // With bytes unread, so that the kernel resets.
        drop(service);
        let mut words = Vec::new();
        let heard = async {
            while words.len() < 15 {
                assert!(read.read_buf(&mut words).await.expect("no reset before the words") > 0, "no words");
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.expect("in time");
        assert_eq!(words, b"FATAL: too many");
        sending.abort();
    }
}

#[tokio::test]
async fn bytes_that_come_with_the_offer_are_not_lost() {
    let (gate, _a) = with(AtDrain::Finish).await;
    let mut stream = TcpStream::connect(gate.address).await.expect("connected");
    let head = "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\nearly";
    stream.write_all(head.as_bytes()).await.expect("written");
    stream.shutdown().await.expect("half closed");
    let all = String::from_utf8(rest(&mut stream).await).expect("text");
    assert!(all.ends_with("\r\n\r\nearlybye"), "{all}");
}

#[tokio::test]
async fn who_does_not_read_is_not_read_for() {
    let (gate, _a) = with(AtDrain::Finish).await;
    let mut stream = switched(&gate, "chat").await;
    let chunk = vec![7; 64 << 10];
    let mut sent = 0_usize;
    // The echo comes back to a client that does not read, so that at last nobody takes anything more.
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(500), stream.write(&chunk)).await {
        sent += written.expect("written");
        assert!(sent < 60 << 20, "the gate takes bytes without end");
    }
    let mut back = vec![0; sent];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut back)).await.expect("in time").expect("all of it");
    assert!(back.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn with_close_a_websocket_is_told_at_the_beginning_of_the_drain_by_a_close_frame() {
    let (gate, a) = with(AtDrain::Close).await;
    let mut stream = switched(&gate, "WebSocket").await;
    exchange(&mut stream, &frame(b"hello")).await;
    drain(&gate, &a).await;
    let mut close = [0; 4];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut close)).await.expect("in time").expect("a frame");
    assert_eq!(close, CLOSE_RESTART);
    // The client answers and closes, and what the service still says is not said after a Close.
    stream.write_all(&frame(b"late")).await.expect("written");
    stream.shutdown().await.expect("closed");
    assert_eq!(rest(&mut stream).await, b"");
    gate.upstream_when(&a, "counted", |one| one.upgraded == 0 && one.upgraded_closed == 1).await;
}

#[tokio::test]
async fn the_close_frame_comes_between_two_frames_and_never_within_one() {
    let (gate, a) = with(AtDrain::Close).await;
    let mut stream = switched(&gate, "websocket").await;
    let (whole, next) = (frame(b"one frame in two parts"), frame(b"next"));
    exchange(&mut stream, &whole[..5]).await;
    drain(&gate, &a).await;
    gate.upstream_when(&a, "it is being closed", |one| one.upgraded_closed == 1).await;
    stream.write_all(&[&whole[5..], &next].concat()).await.expect("written");
    let mut seen = vec![0; whole.len() - 5 + 4];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut seen)).await.expect("in time").expect("read");
    assert_eq!(seen, [&whole[5..], &CLOSE_RESTART].concat(), "the frame's end, then Close instead of the next frame");
}

#[tokio::test]
async fn with_close_another_protocol_is_half_closed_and_then_cut_off() {
    let (gate, a) = with(AtDrain::Close).await;
    let mut stream = switched(&gate, "chat").await;
    exchange(&mut stream, b"hello").await;
    drain(&gate, &a).await;
    assert_eq!(rest(&mut stream).await, b"");
    let one = gate.upstream_when(&a, "cut off after the grace", |one| one.upgraded == 0).await;
    assert_eq!(one.upgraded_closed, 1);
}

#[tokio::test]
async fn with_move_at_deadline_it_goes_on_until_the_deadline_and_is_told_then() {
    let (gate, a) = with(AtDrain::MoveAtDeadline).await;
    let mut stream = switched(&gate, "websocket").await;
    drain(&gate, &a).await;
    exchange(&mut stream, &frame(b"still here")).await;
    assert_eq!(rest(&mut stream).await, CLOSE_RESTART);
    gate.upstream_when(&a, "counted", |one| one.upgraded == 0 && one.upgraded_closed == 1).await;
}

#[tokio::test]
async fn with_finish_a_drain_waits_and_a_drain_taken_back_closes_nothing() {
    for policy in [AtDrain::Finish, AtDrain::MoveAtDeadline] {
        let (gate, a) = with(policy).await;
        let mut stream = switched(&gate, "websocket").await;
        drain(&gate, &a).await;
        if policy == AtDrain::MoveAtDeadline {
            gate.open(&[a.upstream(1, 1)]).await;
        }
        gate.upstream_when(&a, "past the deadline", |one| one.oldest_upgraded_ms > 700).await;
        exchange(&mut stream, &frame(b"still here")).await;
        drop(stream);
        gate.upstream_when(&a, "over", |one| one.upgraded == 0 && one.upgraded_closed == 0).await;
    }
}

#[tokio::test]
async fn a_stopping_gate_tells_every_websocket_before_it_ends_whatever_the_policy() {
    let gate = TestGate::start_with(|settings| {
        settings.upgraded.at_drain = AtDrain::Finish;
        settings.upgraded.close_grace = Duration::from_millis(1200);
        settings.limits.leave_grace = Duration::from_millis(100);
        settings.limits.stop_time = Duration::from_millis(1500);
    })
    .await;
    let a = Service::start(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    let mut stream = switched(&gate, "websocket").await;
    let stopping = gate.begin_to_stop();
    let mut close = [0; 4];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut close)).await.expect("in time").expect("a frame");
    assert_eq!(close, CLOSE_RESTART);
    stream.shutdown().await.expect("closed");
    assert_eq!(rest(&mut stream).await, b"");
    tokio::time::timeout(PATIENCE, stopping).await.expect("in time").expect("no panic").expect("in good order");
}

#[tokio::test]
async fn one_whose_service_has_ended_and_whose_client_says_nothing_is_cut_off_sooner() {
    let gate = TestGate::start_with(|settings| settings.upgraded.half_closed_time = Duration::from_millis(100)).await;
    let a = Service::start(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    let mut stream = switched(&gate, "websocket").await;
    a.kill();
    assert_eq!(rest(&mut stream).await, b"");
    gate.upstream_when(&a, "over although its client is still there", |one| one.upgraded == 0).await;
}

#[tokio::test]
async fn one_through_which_nothing_passes_is_cut_off_after_the_idle_time() {
    let gate = TestGate::start_with(|settings| settings.upgraded.idle_time = Duration::from_millis(200)).await;
    let a = Service::start(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    let mut stream = switched(&gate, "websocket").await;
    exchange(&mut stream, b"hello").await;
    assert_eq!(rest(&mut stream).await, b"");
    gate.upstream_when(&a, "over", |one| one.upgraded == 0 && one.upgraded_closed == 0).await;
}

#[tokio::test]
async fn a_service_that_dies_ends_its_tunnels_and_a_shut_gate_opens_none() {
    let (gate, a) = with(AtDrain::Finish).await;
    let mut stream = switched(&gate, "websocket").await;
    a.kill();
    assert_eq!(rest(&mut stream).await, b"");
    drop(stream);
    until("the books are even", async || gate.link.reports().borrow().as_ref().is_some_and(|r| r.connections == 0))
        .await;
    gate.put(Admission::Shut, &[]).await;
    let head = "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert!(crate::visitor::raw(gate.address, head).await.starts_with("HTTP/1.1 503"));
}
