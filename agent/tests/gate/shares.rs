//! One client cannot have the whole gate.

use std::net::SocketAddr;

use handover_agent::gate::control::{Admission, Reason};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;

use crate::bench::{Service, TestGate};
use crate::visitor::{Answer, Client, get};

/// A GET from another address than all others.
fn get_from_elsewhere(gate: SocketAddr, path: &'static str) -> JoinHandle<Answer> {
    tokio::spawn(async move {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 2], 0).into()).expect("bound");
        let stream = socket.connect(gate).await.expect("connected");
        Client::over(stream).await.get(path).await
    })
}

#[tokio::test]
async fn an_address_with_its_share_of_requests_is_refused_more_and_another_is_served() {
    let gate = TestGate::start_with(|settings| settings.limits.in_flight_per_peer = Some(2)).await;
    let a = Service::start(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    let waiting = [get(gate.address, "/wait"), get(gate.address, "/wait")];
    gate.upstream_when(&a, "two in flight", |one| one.in_flight == 2).await;
    let answer = gate.client().await.get("/").await;
    assert_eq!((answer.status, answer.header("handover-gate")), (503, "peer-limit"));
    assert_eq!(get_from_elsewhere(gate.address, "/").await.expect("no panic").status, 200);
    a.release(2);
    for one in waiting {
        assert_eq!(one.await.expect("no panic").status, 200);
    }
    assert_eq!(gate.client().await.get("/").await.status, 200, "what has ended counts no more");
    let report = gate.report_when("counted", |report| report.in_flight == 0).await;
    assert_eq!(report.own_answers.get(&Reason::PeerLimit), Some(&1));
}

#[tokio::test]
async fn an_address_with_its_share_of_places_to_wait_is_refused_more_and_another_may_wait() {
    let gate = TestGate::start_with(|settings| settings.hold.count_per_peer = Some(2)).await;
    let a = Service::start(1).await;
    gate.put(Admission::Hold, &[]).await;
    let mut held = vec![get(gate.address, "/"), get(gate.address, "/")];
    gate.report_when("two wait", |report| report.held == 2).await;
    let third = gate.client().await.get("/").await;
    assert_eq!((third.status, third.header("handover-gate")), (503, "peer-limit"));
    held.push(get_from_elsewhere(gate.address, "/"));
    gate.report_when("three wait", |report| report.held == 3).await;
    gate.open(&[a.upstream(1, 1)]).await;
    for one in held {
        assert_eq!(one.await.expect("no panic").status, 200);
    }
    gate.put(Admission::Hold, &[]).await;
    let again = [get(gate.address, "/"), get(gate.address, "/")];
    gate.report_when("their places are free again", |report| report.held == 2).await;
    gate.open(&[a.upstream(1, 1)]).await;
    for one in again {
        assert_eq!(one.await.expect("no panic").status, 200);
    }
}
