//! Calls on which one side says nothing for long, while the other may.

use std::time::Duration;

use bytes::Bytes;
use handover_agent::gate::settings::UpstreamProtocol;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::bench::{PATIENCE, Service, TestGate};

type Say = mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>;

async fn gate_and_service() -> (TestGate, Service) {
    let gate = TestGate::start_with(|settings| {
        settings.upstream = UpstreamProtocol::AsClient;
        settings.limits.stall_time = Duration::from_millis(300);
    })
    .await;
    let a = Service::start_http2(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    (gate, a)
}

/// Begins a call whose client has said one thing and can say more; the head of its answer is there.
async fn call(gate: &TestGate, path: &str, kind: &str) -> (Say, Response<Incoming>) {
    let stream = TcpStream::connect(gate.address).await.expect("connected");
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.expect("http/2");
    tokio::spawn(connection);
    let (say, said) = mpsc::channel(1);
    say.send(Ok(Frame::data(Bytes::from_static(b"one message")))).await.expect("taken");
    let request = Request::post(format!("http://test{path}")).header("content-type", kind);
    let request = request.body(StreamBody::new(ReceiverStream::new(said))).expect("a request");
    let answer = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.expect("in time");
    (say, answer.expect("a head"))
}

#[tokio::test]
async fn a_client_that_listens_may_keep_its_half_open_and_say_nothing_for_longer_than_the_stall_time() {
    let (gate, a) = gate_and_service().await;
    for (path, kind) in [("/tick", "text/plain"), ("/drip-grpc", "application/grpc")] {
        let (say, answer) = call(&gate, path, kind).await;
        gate.upstream_when(&a, "three times as long", |one| one.in_flight == 1 && one.oldest_ms > 900).await;
        a.release(1);
        let whole = answer.into_body().collect().await.expect("whole");
        assert!(whole.trailers().is_none(), "cut off: {path}");
        drop(say);
        gate.upstream_when(&a, "over", |one| one.in_flight == 0 && one.writes.client_cut == 0).await;
    }
}

#[tokio::test]
async fn a_call_that_is_none_of_grpc_ends_when_both_sides_have_been_silent_for_the_stall_time() {
    let (gate, a) = gate_and_service().await;
    let (_say, answer) = call(&gate, "/drip", "text/plain").await;
    answer.into_body().collect().await.expect_err("broken off");
    gate.upstream_when(&a, "over", |one| one.in_flight == 0 && one.writes.client_cut == 1).await;
}
