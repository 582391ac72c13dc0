//! Connections to services by HTTP/2, each shared by many requests.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use handover_agent::gate::control::Upstream;
use handover_agent::gate::settings::UpstreamProtocol;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::bench::{Service, TestGate};
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
        assert_eq!(one.await.expect("no panic").header("handover-gate"), "connect");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
