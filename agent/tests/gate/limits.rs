//! Every limit is reached.

use std::time::Duration;

use handover_agent::gate::control::Reason;
use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bench::{PATIENCE, Service, TestGate, until};
use crate::visitor::{get, raw};

const SHORT: Duration = Duration::from_millis(60);

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_until_another_closes_and_is_then_served() {
    let gate = TestGate::start_with(|settings| settings.limits.connections = 2).await;
    let a = Service::start(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    let (mut first, mut second) = (gate.client().await, gate.client().await);
    assert_eq!((first.get("/").await.status, second.get("/").await.status), (200, 200));
    let third = get(gate.address, "/third");
    for _ in 0..20 {
        assert_eq!(second.get("/").await.status, 200);
    }
    assert!(!third.is_finished() && a.saw("GET /third") == 0, "two are served, the third waits");
    drop(first);
    assert_eq!(third.await.expect("no panic").status, 200);
    gate.report_when("never more than two", |report| report.connections <= 2).await;
}

#[tokio::test]
async fn a_request_beyond_the_in_flight_limit_is_answered_503() {
    let gate = TestGate::start_with(|settings| settings.limits.in_flight = 2).await;
    let a = Service::start(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    let waiting = [get(gate.address, "/wait"), get(gate.address, "/wait")];
    gate.upstream_when(&a, "two in flight", |one| one.in_flight == 2).await;
    let answer = gate.client().await.get("/").await;
    assert_eq!((answer.status, answer.header("handover-gate")), (503, "in-flight-limit"));
    a.release(2);
    for one in waiting {
        assert_eq!(one.await.expect("no panic").status, 200);
    }
    assert_eq!(gate.client().await.get("/").await.status, 200);
    let report = gate.report_when("counted", |report| report.in_flight == 0).await;
    assert_eq!(report.own_answers.get(&Reason::InFlightLimit), Some(&1));
}

#[tokio::test]
async fn a_head_beyond_the_size_limit_is_answered_431_and_reaches_no_service() {
    let gate = TestGate::start_with(|settings| settings.limits.header_bytes = 4096).await;
    let a = Service::start(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    let request =
        |bytes: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: {}\r\n\r\n", "x".repeat(bytes));
    assert!(raw(gate.address, &request(3000)).await.starts_with("HTTP/1.1 200"));
    assert!(raw(gate.address, &request(5000)).await.starts_with("HTTP/1.1 431"));
    assert!(
        raw(gate.address, &format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(200_000))).await.starts_with("HTTP/1.1 431")
    );
    let many = "X: y\r\n".repeat(200);
    assert!(raw(gate.address, &format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")).await.starts_with("HTTP/1.1 431"));
    assert_eq!(a.requests(), 1);
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_request_in_time_is_cut_off() {
    let gate = TestGate::start_with(|settings| settings.limits.header_time = SHORT).await;
    gate.open(&[]).await;
    assert_eq!(raw(gate.address, "GET / HTTP/1.1\r\nHost:").await, "");
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_the_idle_time_but_not_one_with_a_request_running() {
    let gate = TestGate::start_with(|settings| {
        settings.limits.idle_time = SHORT;
        settings.limits.header_time = SHORT;
    })
    .await;
    let a = Service::start(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    assert_eq!(raw(gate.address, "").await, "", "a fresh one");
    let waiting = get(gate.address, "/wait");
    let mut used = gate.client().await;
    assert_eq!(used.get("/").await.status, 200);
    until("the idle one is closed", async || !used.is_open().await).await;
    gate.upstream_when(&a, "the busy one is not", |one| one.in_flight == 1 && one.oldest_ms > 60).await;
    a.release(1);
    assert_eq!(waiting.await.expect("no panic").status, 200, "longer than the idle time");
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_cut_off_and_its_request_ends() {
    let gate = TestGate::start_with(|settings| settings.limits.stall_time = Duration::from_millis(300)).await;
    let a = Service::start(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    let mut stream = TcpStream::connect(gate.address).await.expect("connected");
    let body = vec![b'x'; 32 << 20];
    let head = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.expect("written");
    // Writes until nobody takes more: the answer is in the way.
    let _ = tokio::time::timeout(PATIENCE, stream.write_all(&body)).await;
    let one = gate.upstream_when(&a, "ended", |one| one.writes.requests == 1 && one.in_flight == 0).await;
    assert_eq!(one.writes.errors(), 0, "not the service's fault: {one:?}");
}

#[tokio::test]
async fn an_idle_connection_to_a_service_is_used_again_within_its_time_and_closed_after_it() {
    let gate = TestGate::start_with(|settings| settings.limits.pool_idle_time = Duration::from_millis(300)).await;
    let a = Service::start(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    let mut client = gate.client().await;
    for _ in 0..10 {
        client.get("/").await;
    }
    assert_eq!(a.connections(), 1);
    tokio::time::sleep(Duration::from_millis(310)).await;
    client.get("/").await;
    assert_eq!(a.connections(), 2, "too old to be safe");
}

#[tokio::test]
async fn no_more_idle_connections_than_allowed_are_kept() {
    let gate = TestGate::start_with(|settings| settings.limits.pool_idle = 1).await;
    let a = Service::start(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    for round in 1..=2_u64 {
        let waiting = [get(gate.address, "/wait"), get(gate.address, "/wait"), get(gate.address, "/wait")];
        gate.upstream_when(&a, "three at once", |one| one.in_flight == 3).await;
        a.release(3);
        for one in waiting {
            assert_eq!(one.await.expect("no panic").status, 200);
        }
        gate.upstream_when(&a, "done", |one| one.in_flight == 0).await;
        assert_eq!(a.connections(), 1 + 2 * round, "one of three was kept");
    }
}

#[tokio::test]
async fn a_client_that_leaves_early_does_not_spoil_the_pooled_connection_for_the_next() {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    gate.open(&[a.upstream(1, 1)]).await;
    for _ in 0..20 {
        let mut leaver = gate.client().await;
        let half = leaver.begin(Method::GET, "/drip", "").await.expect("the head");
        drop((half, leaver));
        let answer = gate.client().await.get("/").await;
        assert_eq!((answer.status, answer.body), (200, a.name()), "never the rest of another's answer");
    }
    a.release(20);
    gate.upstream_when(&a, "all ended", |one| one.in_flight == 0).await;
}

#[tokio::test]
async fn a_service_is_read_no_faster_than_its_client_reads() {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counter = std::sync::Arc::clone(&sent);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let _ = stream.read(&mut [0; 1024]).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await.expect("written");
        let chunk = vec![b'x'; 64 << 10];
        while let Ok(count) = stream.write(&chunk).await {
            counter.fetch_add(count as u64, std::sync::atomic::Ordering::SeqCst);
        }
    });
    gate.open(&[handover_agent::gate::control::Upstream { address, ..a.upstream(1, 1) }]).await;
    let mut client = gate.client().await;
    let _unread = client.begin(Method::GET, "/", "").await.expect("the head");
    let mut last = 0;
    until("the service is stopped by back-pressure", async || {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = sent.load(std::sync::atomic::Ordering::SeqCst);
        std::mem::replace(&mut last, now) == now && now > 0
    })
    .await;
    // What the kernel's four socket buffers take, and little more.
    assert!(last < 40 << 20, "{last} bytes were taken for a client that reads nothing");
}

#[tokio::test]
async fn one_address_has_only_so_many_connections_and_those_above_are_closed_and_counted() {
    let gate = TestGate::start_with(|settings| settings.limits.connections_per_peer = Some(2)).await;
    let a = Service::start(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    let (mut first, second) = (gate.client().await, gate.client().await);
    gate.report_when("two are open", |report| report.connections == 2).await;
    assert_eq!(raw(gate.address, "").await, "", "closed at once");
    assert_eq!(first.get("/").await.status, 200, "the others are left alone");
    let report = gate.report_when("counted", |report| report.refused_connections == 1).await;
    assert_eq!(report.connections, 2);
    drop(second);
    gate.report_when("one is open", |report| report.connections == 1).await;
    assert_eq!(gate.client().await.get("/").await.status, 200, "a place given up can be taken");
}

#[tokio::test]
async fn two_hundred_slow_clients_of_every_kind_do_not_hold_up_a_fast_one() {
    // None of them is cut off for its slowness while this runs, however busy the machine is.
    let patient = TestGate::start_with(|settings| settings.limits.header_time = Duration::from_secs(120));
    let (gate, a) = (patient.await, Service::start(1).await);
    gate.open(&[a.upstream(1, 1)]).await;
    let slow = [
        "GET / HTTP/1.1\r\nHost:",
        "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nhalf",
        "POST /echo-large HTTP/1.1\r\nHost: a\r\nContent-Length: 24000000\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    let mut streams = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(gate.address).await.expect("connected");
        stream.write_all(slow[n % slow.len()].as_bytes()).await.expect("written");
        streams.push(stream);
    }
    // Those of the third kind send until nobody takes more, and read nothing: more than the kernel's buffers hold.
    let large = vec![b'x'; 4_000_000];
    for stream in streams.iter().skip(2).step_by(slow.len()) {
        while stream.try_write(&large).is_ok() {}
    }
    gate.upstream_when(&a, "the slow ones are there", |one| one.in_flight == 100).await;
    // Not one of them ends before the fast one has all its answers.
    let mut fast = gate.client().await;
    for _ in 0..200 {
        let answer = tokio::time::timeout(PATIENCE, fast.get("/")).await.expect("an answer beside slow clients");
        assert_eq!(answer.status, 200);
    }
    gate.report_when("the slow ones are still there", |report| report.connections == 201).await;
}
