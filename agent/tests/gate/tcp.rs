//! Mode `tcp`: connections instead of requests.

use std::net::SocketAddr;
use std::time::Duration;

use handover_agent::gate::control::{Admission, Reason, Upstream};
use handover_agent::gate::settings::Mode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::bench::{PATIENCE, TestGate, until};
use crate::program::{Site, report_when, route};

/// A service that is handed each connection by the test.
struct Plain {
    listener: TcpListener,
    address: SocketAddr,
    number: u16,
}

impl Plain {
    async fn start(number: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        Self { listener, address, number }
    }

    fn upstream(&self, writes: u32) -> Upstream {
        Upstream {
            instance: format!("{:016x}", self.number).parse().expect("an id"),
            version: "1.0.0".parse().expect("a version"),
            address: self.address,
            reads: 0,
            writes,
            ready: true,
        }
    }

    async fn next(&self) -> TcpStream {
        tokio::time::timeout(PATIENCE, self.listener.accept()).await.expect("in time").expect("accepted").0
    }
}

async fn gate() -> TestGate {
    gate_with(Duration::from_secs(60)).await
}

async fn gate_with(idle: Duration) -> TestGate {
    TestGate::start_with(|settings| {
        settings.mode = Mode::Tcp;
        settings.limits.tcp_idle_time = idle;
        settings.hold.time = Duration::from_secs(5);
        settings.limits.connect_time = Duration::from_millis(300);
    })
    .await
}

async fn gate_of_one_per_peer() -> TestGate {
    TestGate::start_with(|settings| {
        settings.mode = Mode::Tcp;
        settings.limits.connections_per_peer = Some(1);
    })
    .await
}

async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("in time").expect("no reset");
    bytes
}

#[tokio::test]
async fn either_side_may_speak_first_and_each_half_close_is_passed_on_by_itself() {
    let (gate, service) = (gate().await, Plain::start(1).await);
    gate.open(&[service.upstream(1)]).await;
    let mut client = TcpStream::connect(gate.address).await.expect("connected");
    let mut at_service = service.next().await;
    at_service.write_all(b"hello").await.expect("written");
    let mut greeting = [0; 5];
    client.read_exact(&mut greeting).await.expect("the service speaks first");
    client.write_all(b"question").await.expect("written");
    client.shutdown().await.expect("half closed");
    assert_eq!(read_to_end(&mut at_service).await, b"question", "the service sees the end of the question");
    at_service.write_all(b"answer").await.expect("the other half is open");
    let report = gate.report_when("in flight", |report| report.in_flight == 1).await;
    assert_eq!(report.upstreams[0].writes.requests, 1);
    drop(at_service);
    assert_eq!(read_to_end(&mut client).await, b"answer");
    let report = gate.report_when("ended", |report| report.in_flight == 0).await;
    assert_eq!((report.upstreams[0].writes.answered_2xx, report.upstreams[0].writes.errors()), (1, 0));
}

#[tokio::test]
async fn an_address_with_its_share_of_connections_in_hand_is_refused_more() {
    let gate = TestGate::start_with(|settings| {
        settings.mode = Mode::Tcp;
        settings.limits.in_flight_per_peer = Some(1);
    })
    .await;
    let service = Plain::start(1).await;
    gate.open(&[service.upstream(1)]).await;
    let first = TcpStream::connect(gate.address).await.expect("connected");
    let _at_service = service.next().await;
    let mut second = TcpStream::connect(gate.address).await.expect("connected");
    assert_eq!(read_to_end(&mut second).await, b"");
    gate.report_when("counted", |report| report.own_answers.get(&Reason::PeerLimit) == Some(&1)).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 2], 0).into()).expect("bound");
    let _elsewhere = socket.connect(gate.address).await.expect("connected");
    service.next().await;
    drop(first);
}

#[tokio::test]
async fn the_last_words_of_a_service_reach_a_client_that_is_still_sending() {
    let (gate, service) = (gate().await, Plain::start(1).await);
    gate.open(&[service.upstream(1)]).await;
    for _ in 0..20 {
        let (mut read, mut write) = TcpStream::connect(gate.address).await.expect("connected").into_split();
        let sending = tokio::spawn(async move { while write.write_all(&[b'x'; 32 << 10]).await.is_ok() {} });
        let mut at_service = service.next().await;
        at_service.read_u8().await.expect("it begins");
        at_service.write_all(b"FATAL: too many").await.expect("written");
        // With bytes unread, so that the kernel resets.
        drop(at_service);
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
    gate.report_when("ended", |report| report.in_flight == 0).await;
}

#[tokio::test]
async fn connections_are_split_by_weight() {
    let (gate, a, b) = (gate().await, Plain::start(1).await, Plain::start(2).await);
    gate.open(&[a.upstream(3), b.upstream(1)]).await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(TcpStream::connect(gate.address).await.expect("connected"));
    }
    let report = gate.report_when("all", |report| report.in_flight == 40).await;
    let of = |plain: &Plain| {
        let instance = plain.upstream(0).instance;
        report.upstreams.iter().find(|one| one.instance == instance).expect("reported").in_flight
    };
    assert_eq!((of(&a), of(&b)), (30, 10));
}

#[tokio::test]
async fn while_the_gate_holds_a_connection_waits_unread_and_while_it_is_shut_it_is_closed() {
    let (gate, service) = (gate().await, Plain::start(1).await);
    gate.put(Admission::Hold, &[service.upstream(1)]).await;
    let mut client = TcpStream::connect(gate.address).await.expect("connected");
    client.write_all(b"early").await.expect("written");
    gate.report_when("it waits", |report| report.held == 1).await;
    gate.open(&[service.upstream(1)]).await;
    let mut at_service = service.next().await;
    let mut early = [0; 5];
    at_service.read_exact(&mut early).await.expect("what was said meanwhile");
    assert_eq!(&early, b"early");
    gate.put(Admission::Shut, &[service.upstream(1)]).await;
    let mut refused = TcpStream::connect(gate.address).await.expect("connected");
    assert_eq!(read_to_end(&mut refused).await, b"");
    at_service.write_all(b"late").await.expect("what is in flight goes on");
    client.read_exact(&mut [0; 4]).await.expect("passed on");
}

#[tokio::test]
async fn a_connection_that_nobody_takes_is_tried_elsewhere_and_waits_if_there_is_nobody() {
    let (gate, gone, service) = (gate().await, Plain::start(1).await, Plain::start(2).await);
    let upstream = gone.upstream(1);
    drop(gone);
    let gone = upstream;
    gate.open(&[gone.clone(), service.upstream(1)]).await;
    for _ in 0..4 {
        let client = TcpStream::connect(gate.address).await.expect("connected");
        drop((service.next().await, client));
    }
    let report = gate.report_when("counted", |report| report.upstreams[0].writes.connect_errors > 0).await;
    assert_eq!(report.upstreams[1].writes.errors(), 0);
    gate.open(&[gone]).await;
    let mut waits = TcpStream::connect(gate.address).await.expect("connected");
    gate.report_when("it waits", |report| report.held == 1 && report.in_flight == 0).await;
    gate.open(&[service.upstream(1)]).await;
    service.next().await.write_all(b"x").await.expect("written");
    waits.read_exact(&mut [0; 1]).await.expect("taken after all");
}

#[tokio::test]
async fn large_amounts_pass_both_ways_at_once_unchanged_though_each_side_reads_slowly_at_first() {
    let (gate, service) = (gate().await, Plain::start(1).await);
    gate.open(&[service.upstream(1)]).await;
    let client = TcpStream::connect(gate.address).await.expect("connected");
    let at_service = service.next().await;
    let amount: Vec<u8> = (0..8_000_000_u32).map(|n| (n % 251) as u8).collect();
    let side = |stream: TcpStream, amount: Vec<u8>| {
        tokio::spawn(async move {
            let (mut read, mut write) = stream.into_split();
            let writer = tokio::spawn(async move {
                write.write_all(&amount).await.expect("written");
                drop(write);
                amount
            });
            // So that buffers fill up.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let mut got = Vec::new();
            read.read_to_end(&mut got).await.expect("read");
            assert!(got == writer.await.expect("no panic"), "{} bytes", got.len());
        })
    };
    let (one, other) = (side(client, amount.clone()), side(at_service, amount));
    tokio::time::timeout(PATIENCE, async { (one.await, other.await) }).await.expect("in time").0.expect("unchanged");
    gate.report_when("ended", |report| report.in_flight == 0).await;
}

#[tokio::test]
async fn a_connection_that_stands_still_is_cut_and_one_on_which_something_moves_is_not() {
    let (gate, service) = (gate_with(Duration::from_millis(400)).await, Plain::start(1).await);
    gate.open(&[service.upstream(1)]).await;
    let mut still = TcpStream::connect(gate.address).await.expect("connected");
    let mut at_service = service.next().await;
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        at_service.write_all(b"x").await.expect("open");
        still.read_exact(&mut [0; 1]).await.expect("open");
    }
    assert_eq!(read_to_end(&mut still).await, b"", "cut");
    gate.report_when("ended", |report| report.in_flight == 0).await;
}

#[tokio::test]
async fn a_service_that_breaks_off_is_counted_as_lost_and_a_client_that_does_is_not() {
    let (gate, service) = (gate().await, Plain::start(1).await);
    gate.open(&[service.upstream(1)]).await;
    let reset = |stream: TcpStream| {
        stream.set_zero_linger().expect("set");
        drop(stream);
    };
    let mut client = TcpStream::connect(gate.address).await.expect("connected");
    let mut at_service = service.next().await;
    // One that is reset before the gate knows of it was not taken, and is tried again.
    client.write_all(b"x").await.expect("written");
    at_service.read_exact(&mut [0; 1]).await.expect("passed on");
    reset(at_service);
    gate.report_when("lost", |report| report.upstreams[0].writes.lost == 1).await;
    drop(client);
    let mut client = TcpStream::connect(gate.address).await.expect("connected");
    let mut at_service = service.next().await;
    client.write_all(b"x").await.expect("written");
    at_service.read_exact(&mut [0; 1]).await.expect("passed on");
    reset(client);
    let report = gate.report_when("cut", |report| report.upstreams[0].writes.client_cut == 1).await;
    assert_eq!(report.upstreams[0].writes.lost, 1);
    drop(at_service);
}

#[tokio::test]
async fn one_address_has_as_many_connections_as_it_may_and_one_more_when_one_ends() {
    let (gate, service) = (gate_of_one_per_peer().await, Plain::start(1).await);
    gate.open(&[service.upstream(1)]).await;
    let first = TcpStream::connect(gate.address).await.expect("connected");
    let at_service = service.next().await;
    let mut refused = TcpStream::connect(gate.address).await.expect("connected");
    assert_eq!(read_to_end(&mut refused).await, b"");
    gate.report_when("counted", |report| report.refused_connections == 1 && report.in_flight == 1).await;
    drop((first, at_service));
    gate.report_when("ended", |report| report.in_flight == 0 && report.connections == 0).await;
    let _another = TcpStream::connect(gate.address).await.expect("connected");
    service.next().await;
}

#[tokio::test]
async fn a_planned_restart_leaves_connections_alone_and_counts_them_until_they_end() {
    let (site, service) = (Site::new("mode = 'tcp'"), Plain::start(1).await);
    let mut first = site.start(&[]);
    let link = site.link();
    first.in_charge(&link).await;
    route(&link, 1, &[service.upstream(1)]).await;
    let mut client = TcpStream::connect(site.listen).await.expect("connected");
    let mut at_service = service.next().await;
    let mut second = site.start(&["--replace"]);
    second.in_charge(&link).await;
    let mut newer = TcpStream::connect(site.listen).await.expect("connected");
    let mut newer_at_service = service.next().await;
    let report = report_when(&link, "both", |report| report.in_flight == 2).await;
    assert_eq!(report.forerunners.iter().map(|older| older.in_flight).sum::<u64>(), 1, "{report:?}");
    for (one, other) in [(&mut client, &mut at_service), (&mut newer, &mut newer_at_service)] {
        one.write_all(b"x").await.expect("open");
        other.read_exact(&mut [0; 1]).await.expect("open");
    }
    assert!(first.runs());
    drop((client, at_service));
    assert_eq!(first.ended().await.code(), Some(0));
    report_when(&link, "one", |report| report.in_flight == 1 && report.forerunners.is_empty()).await;
    until("the newer one goes on", async || second.runs()).await;
}
