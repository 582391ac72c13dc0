//! gRPC as it is on the wire: trailers, streams both ways, and the gate's own words.

use std::time::Duration;

use bytes::Bytes;
use handover_agent::gate::control::Admission;
use handover_agent::gate::settings::UpstreamProtocol;
use handover_agent::gate::upgraded::AtDrain;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::bench::{PATIENCE, Service, TestGate, until};
use crate::http2::Client2;

const GRPC: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];

async fn gate_and_service() -> (TestGate, Service) {
    let gate = TestGate::start_with(|settings| settings.upstream = UpstreamProtocol::AsClient).await;
    let a = Service::start_http2(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    (gate, a)
}

fn text<'a>(fields: &'a hyper::HeaderMap, name: &str) -> &'a str {
    fields.get(name).map_or("", |value| value.to_str().expect("text"))
}

#[tokio::test]
async fn trailers_pass_and_both_directions_stream_at_the_same_time() {
    let (gate, a) = gate_and_service().await;
    let stream = TcpStream::connect(gate.address).await.expect("connected");
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.expect("http/2");
    tokio::spawn(connection);
    let (say, said) = mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(1);
    let mut request = Request::post("http://test/trailers").body(StreamBody::new(ReceiverStream::new(said)));
    for (name, value) in GRPC {
        let fields = request.as_mut().expect("a request").headers_mut();
        fields.insert(name, value.parse().expect("a value"));
    }
    let answer = sender.send_request(request.expect("a request")).await.expect("a head before the body has ended");
    let mut body = answer.into_body();
    for n in 0..10 {
        say.send(Ok(Frame::data(Bytes::from(format!("message {n}"))))).await.expect("taken");
        let frame =
            tokio::time::timeout(PATIENCE, body.frame()).await.expect("in time").expect("a frame").expect("whole");
        assert_eq!(frame.into_data().expect("data"), format!("message {n}"));
    }
    assert_eq!(gate.upstream_when(&a, "in flight", |one| one.in_flight == 1).await.writes.requests, 1);
    drop(say);
    let trailers = body.frame().await.expect("trailers").expect("whole").into_trailers().expect("trailers");
    assert_eq!(text(&trailers, "grpc-status"), "0");
    gate.upstream_when(&a, "over", |one| one.in_flight == 0 && one.writes.errors() == 0).await;
}

#[tokio::test]
async fn a_grpc_client_is_answered_in_its_own_way_when_the_gate_answers_itself() {
    let (gate, a) = gate_and_service().await;
    let (mut client, _connection) = Client2::connect(&gate).await;
    a.kill();
    gate.put(Admission::Shut, &[a.upstream(1, 1)]).await;
    let answer = client.begin(Method::POST, "/svc/Method", &GRPC, "x").await.expect("an answer");
    assert_eq!((answer.status().as_u16(), text(answer.headers(), "grpc-status")), (200, "14"));
    assert_eq!(text(answer.headers(), "grpc-message"), "the gate is shut");
    assert_eq!(
        (text(answer.headers(), "handover-gate"), text(answer.headers(), "content-type")),
        ("shut", "application/grpc")
    );
    let (mut client, _connection) = Client2::connect(&gate).await;
    let plain = client.begin(Method::POST, "/", &[], "x").await.expect("an answer");
    assert_eq!(plain.status().as_u16(), 503, "others get what they know");
}

#[tokio::test]
async fn a_stream_that_has_to_be_cut_ends_with_unavailable_and_never_with_a_bare_reset() {
    let (gate, a) = gate_and_service().await;
    let (mut client, _connection) = Client2::connect(&gate).await;
    let answer = client.begin(Method::POST, "/drip-grpc", &GRPC, "").await.expect("a head");
    gate.upstream_when(&a, "in flight", |one| one.in_flight == 1).await;
    a.kill();
    let whole = answer.into_body().collect().await.expect("no reset");
    let trailers = whole.trailers().expect("trailers").clone();
    assert_eq!(text(&trailers, "grpc-status"), "14");
    assert_eq!(whole.to_bytes(), "first,");
    let one = gate.upstream_when(&a, "counted", |one| one.in_flight == 0).await;
    assert_eq!(one.writes.lost, 1);
}

#[tokio::test]
async fn a_stream_whose_time_is_over_ends_with_deadline_exceeded() {
    let gate = TestGate::start_with(|settings| {
        settings.upstream = UpstreamProtocol::AsClient;
        settings.limits.request_time = Some(Duration::from_millis(150));
    })
    .await;
    let a = Service::start_http2(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    let (mut client, _connection) = Client2::connect(&gate).await;
    let answer = client.begin(Method::POST, "/wait", &GRPC, "").await.expect("an answer");
    assert_eq!(text(answer.headers(), "grpc-status"), "4", "before it began");
    let answer = client.begin(Method::POST, "/drip-grpc", &GRPC, "").await.expect("a head");
    let whole = answer.into_body().collect().await.expect("no reset");
    assert_eq!(text(whole.trailers().expect("trailers"), "grpc-status"), "4", "in the middle");
}

#[tokio::test]
async fn a_connection_that_has_become_too_old_takes_no_new_call_and_its_stream_ends_with_unavailable() {
    let gate = TestGate::start_with(|settings| {
        settings.upstream = UpstreamProtocol::AsClient;
        settings.http2.max_age = Some(Duration::from_millis(300));
        settings.http2.max_age_grace = Duration::from_millis(700);
    })
    .await;
    let a = Service::start_http2(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    let (mut client, _connection) = Client2::connect(&gate).await;
    let endless = client.begin(Method::POST, "/drip-grpc", &GRPC, "").await.expect("a head");
    let plain = client.begin(Method::GET, "/drip-plain", &[], "").await.expect("a head");
    // Told to leave in good order: no call gets lost, the client knows that the next one needs another connection.
    until("the client is told", async || client.begin(Method::GET, "/", &[], "").await.is_err()).await;
    let whole = endless.into_body().collect().await.expect("no reset");
    assert_eq!(whole.trailers().map(|fields| text(fields, "grpc-status")), Some("14"));
    assert_eq!(whole.to_bytes(), "first,");
    // Two: the service itself has not noticed that nobody waits for the other.
    a.release(2);
    let whole = plain.into_body().collect().await.expect("what is not gRPC goes on until it ends");
    assert_eq!(whole.to_bytes(), format!("first,{}", a.name()));
    let one = gate.upstream_when(&a, "over", |one| one.in_flight == 0).await;
    assert_eq!(one.writes.errors(), 0, "its age is no fault of the service");
    let (mut next, _connection) = Client2::connect(&gate).await;
    assert_eq!(next.send(Method::GET, "/", "").await.expect("an answer").status, 200);
}

#[tokio::test]
async fn a_drain_ends_grpc_streams_by_its_policy_with_unavailable_and_a_stop_ends_them_in_any_case() {
    let gate = TestGate::start_with(|settings| {
        settings.upstream = UpstreamProtocol::AsClient;
        settings.upgraded.grpc = AtDrain::MoveAtDeadline;
        settings.upgraded.deadline = Duration::from_millis(200);
        settings.upgraded.close_grace = Duration::from_millis(1000);
        settings.limits.leave_grace = Duration::from_millis(100);
        settings.limits.stop_time = Duration::from_millis(1500);
    })
    .await;
    let (a, b) = (Service::start_http2(1).await, Service::start_http2(2).await);
    gate.open(&[a.upstream(1, 1)]).await;
    let (mut client, _connection) = Client2::connect(&gate).await;
    let drained = client.begin(Method::POST, "/drip-grpc", &GRPC, "").await.expect("a head");
    gate.open(&[a.upstream(0, 0), b.upstream(1, 1)]).await;
    let going = client.begin(Method::POST, "/drip-grpc", &GRPC, "").await.expect("a head");
    let whole = drained.into_body().collect().await.expect("no reset");
    assert_eq!(text(whole.trailers().expect("trailers"), "grpc-status"), "14");
    gate.upstream_when(&a, "drained", |one| one.in_flight == 0).await;
    gate.upstream_when(&b, "the other goes on", |one| one.in_flight == 1).await;
    let stopping = gate.begin_to_stop();
    let whole = going.into_body().collect().await.expect("no reset");
    assert_eq!(text(whole.trailers().expect("trailers"), "grpc-status"), "14");
    stopping.await.expect("no panic").expect("in good order");
}
