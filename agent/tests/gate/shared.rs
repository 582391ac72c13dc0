//! Connections to services by HTTP/2, each shared by many requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use handover_agent::gate::control::Upstream;
use handover_agent::gate::settings::UpstreamProtocol;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::bench::{Service, TestGate, until};
use crate::visitor::get;

/// An address whose kernel answers no SYN, since nobody takes what waits there: as that of a host without power.
async fn answers_no_syn() -> (TcpListener, Vec<TcpStream>, SocketAddr) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("bound");
    let listener = socket.listen(1).expect("listens");
    let address = listener.local_addr().expect("an address");
    let mut waiting = Vec::new();
    while let Ok(connected) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        waiting.push(connected.expect("connected"));
        assert!(waiting.len() < 100, "it goes on taking connections");
    }
    (listener, waiting, address)
}

#[tokio::test]
async fn requests_that_wait_for_the_same_connection_give_up_together_and_not_one_after_the_other() {
    let gate = TestGate::start_with(|settings| {
        settings.upstream = UpstreamProtocol::Http2;
        settings.limits.connect_time = Duration::from_millis(500);
        settings.hold.time = Duration::from_millis(10);
    })
    .await;
    let a = Service::start(1).await;
    let (_listener, _waiting, address) = answers_no_syn().await;
    gate.open(&[Upstream { address, ..a.upstream(1, 1) }]).await;
    let began = Instant::now();
    // One after the other they would take 20 s and more.
    let all: Vec<_> = (0..40).map(|_| get(gate.address, "/")).collect();
    for one in all {
        assert_eq!(one.await.expect("no panic").header("handover-gate"), "hold-expired");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// A service of HTTP/2 that reads nothing of a request body and resets nothing: `/stuck` is answered with a head alone, `/whole`
/// wholly, `/never` not at all, and everything else when released.
struct Deaf {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
    release: Arc<Semaphore>,
}

async fn deaf() -> Deaf {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (connections, release) = (Arc::new(AtomicU64::new(0)), Arc::new(Semaphore::new(0)));
    let (count, free) = (Arc::clone(&connections), Arc::clone(&release));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            let free = Arc::clone(&free);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.expect("http/2");
                let mut kept = Vec::new();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let path = request.uri().path().to_owned();
                    match path.as_str() {
                        "/stuck" | "/whole" => {
                            let sending = respond.send_response(hyper::Response::new(()), path == "/whole");
                            kept.push((request, Some(sending.expect("sent")), None));
                        }
                        "/never" => kept.push((request, None, Some(respond))),
                        _ => {
                            let free = Arc::clone(&free);
                            tokio::spawn(async move {
                                free.acquire().await.expect("open").forget();
                                respond.send_response(hyper::Response::new(()), true).expect("sent");
                            });
                        }
                    }
                }
            });
        }
    });
    Deaf { address, connections, release }
}

async fn gate_before(deaf: &Deaf) -> (TestGate, Service) {
    let gate = TestGate::start_with(|settings| {
        settings.upstream = UpstreamProtocol::Http2;
        settings.limits.stall_time = Duration::from_millis(300);
    })
    .await;
    let a = Service::start(1).await;
    gate.open(&[Upstream { address: deaf.address, ..a.upstream(1, 1) }]).await;
    (gate, a)
}

/// Uploads more than anybody takes; the client goes on until it is dropped.
async fn upload(gate: &TestGate, path: &str) -> JoinHandle<()> {
    let mut stream = TcpStream::connect(gate.address).await.expect("connected");
    let body = vec![b'x'; 32 << 20];
    let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.expect("written");
    tokio::spawn(async move {
        let _ = stream.write_all(&body).await;
        std::future::pending::<()>().await;
    })
}

#[tokio::test]
async fn an_upload_that_a_service_does_not_take_is_over_and_nobody_else_on_its_connection_is_disturbed() {
    for path in ["/whole", "/stuck"] {
        let deaf = deaf().await;
        let (gate, a) = gate_before(&deaf).await;
        let other = get(gate.address, "/other");
        gate.upstream_when(&a, "the other waits", |one| one.in_flight == 1).await;
        let client = upload(&gate, path).await;
        gate.upstream_when(&a, "its head is there", |one| one.writes.answered_2xx == 1).await;
        // Or the service does not answer wholly, and the client leaves in the middle.
        if path == "/stuck" {
            client.abort();
        }
        until("its connection takes nobody new", async || {
            let later = get(gate.address, "/later");
            deaf.release.add_permits(1);
            // Which of the two was released is no matter: there is always one more.
            deaf.release.add_permits(1);
            later.await.expect("no panic").status == 200 && deaf.connections.load(Ordering::SeqCst) == 2
        })
        .await;
        assert_eq!(other.await.expect("no panic").status, 200);
        gate.upstream_when(&a, "all is over", |one| one.in_flight == 0).await;
        drop(client);
    }
}

#[tokio::test]
async fn a_connection_that_says_nothing_more_gets_no_new_requests_and_keeps_those_that_it_has() {
    let deaf = deaf().await;
    let (gate, a) = gate_before(&deaf).await;
    let never = get(gate.address, "/never");
    gate.upstream_when(&a, "silent for long", |one| one.oldest_ms > 5500).await;
    deaf.release.add_permits(1);
    assert_eq!(get(gate.address, "/").await.expect("no panic").status, 200);
    assert_eq!(deaf.connections.load(Ordering::SeqCst), 2);
    gate.upstream_when(&a, "still waited for", |one| one.in_flight == 1 && one.reads.errors() == 0).await;
    drop(never);
}
