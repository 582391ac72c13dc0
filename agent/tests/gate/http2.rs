//! Clients that speak HTTP/2.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use handover_agent::gate::control::{Admission, Reason};
use handover_agent::gate::settings::UpstreamProtocol;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::bench::{Service, TestGate, until};
use crate::frames::{END_HEADERS, GOAWAY, HEADERS, PING, Raw, block};
use crate::visitor::{Answer, read};

/// A client whose requests share one connection.
#[derive(Clone)]
pub(crate) struct Client2 {
    sender: SendRequest<Full<Bytes>>,
}

impl Client2 {
    pub(crate) async fn connect(gate: &TestGate) -> (Self, JoinHandle<hyper::Result<()>>) {
        Self::at(gate.address).await
    }

    pub(crate) async fn at(address: SocketAddr) -> (Self, JoinHandle<hyper::Result<()>>) {
        let stream = TcpStream::connect(address).await.expect("connected");
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.expect("http/2");
        (Self { sender }, tokio::spawn(connection))
    }

    pub(crate) async fn begin(
        &mut self,
        method: Method,
        path: &str,
        fields: &[(&str, &str)],
        body: &str,
    ) -> hyper::Result<Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(format!("http://test{path}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("a request");
        self.sender.send_request(request).await
    }

    pub(crate) async fn send(&mut self, method: Method, path: &str, body: &str) -> hyper::Result<Answer> {
        read(self.begin(method, path, &[], body).await?).await
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, "").await.expect("an answer")
    }

    pub(crate) fn is_open(&self) -> bool {
        self.sender.is_ready()
    }
}

async fn gate_and_service() -> (TestGate, Service) {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    gate.open(&[a.upstream(1, 1)]).await;
    (gate, a)
}

#[tokio::test]
async fn many_requests_share_a_connection_and_each_is_in_flight_for_itself() {
    let (gate, a) = gate_and_service().await;
    let (client, _connection) = Client2::connect(&gate).await;
    let ask = |path: &'static str| {
        let mut client = client.clone();
        tokio::spawn(async move { client.get(path).await })
    };
    let waiting: Vec<_> = (0..50).map(|_| ask("/wait")).collect();
    gate.upstream_when(&a, "all in flight", |one| one.in_flight == 50).await;
    assert_eq!(ask("/").await.expect("no panic").body, a.name(), "others do not wait for them");
    a.release(50);
    for one in waiting {
        assert_eq!(one.await.expect("no panic").status, 200);
    }
    let report = gate.report_when("all ended", |report| report.in_flight == 0).await;
    assert_eq!(report.connections, 1);
}

#[tokio::test]
async fn bodies_pass_whole_both_ways_over_http2_and_the_service_sees_ordinary_requests() {
    let (gate, _a) = gate_and_service().await;
    let (mut client, _connection) = Client2::connect(&gate).await;
    let body: String = (0..400_000).map(|n: u32| format!("{n},")).collect();
    assert!(client.send(Method::POST, "/echo", &body).await.expect("an answer").body == body);
    let fields = [("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers"), ("expect", "100-continue")];
    let seen = read(client.begin(Method::GET, "/head", &fields, "").await.expect("a head")).await.expect("a body");
    for expected in
        ["version: HTTP/1.1", "\"host\": \"test\"", "\"cookie\": \"a=1; b=2\"", "\"te\": \"trailers\"", "uri: /head"]
    {
        assert!(seen.body.contains(expected), "{expected} is missing in {}", seen.body);
    }
    assert!(!seen.body.contains("expect\""), "{}", seen.body);
    assert_eq!(seen.headers.get("connection"), None);
    assert!(!seen.header("x-request-id").is_empty());
}

#[tokio::test]
async fn heads_and_statuses_without_bodies_are_what_they_are_over_http1() {
    let (gate, a) = gate_and_service().await;
    let (mut client, _connection) = Client2::connect(&gate).await;
    let head = client.send(Method::HEAD, "/", "").await.expect("an answer");
    assert_eq!((head.status, head.header("content-length"), head.body.as_str()), (200, "9", ""));
    for status in [204, 304, 404] {
        assert_eq!(client.get(&format!("/status/{status}")).await.status, status);
    }
    gate.put(Admission::Shut, &[a.upstream(1, 1)]).await;
    let mut raw = Raw::connect(gate.address, &[]).await;
    let fields = [(":method", "HEAD"), (":scheme", "http"), (":authority", "test"), (":path", "/")];
    raw.send(HEADERS, END_HEADERS | 1, 1, &block(&fields)).await;
    let answer = raw.next_of(HEADERS).await.expect("an answer");
    assert_eq!(answer.flags & 1, 1, "the gate's own answer to HEAD has no body either");
}

#[tokio::test]
async fn trailers_of_an_http1_service_reach_a_client_of_http2() {
    let (gate, _a) = gate_and_service().await;
    let (mut client, _connection) = Client2::connect(&gate).await;
    let answer = client.begin(Method::POST, "/trailers", &[("te", "trailers")], "body").await.expect("an answer");
    let whole = answer.into_body().collect().await.expect("whole");
    let trailers = whole.trailers().expect("trailers").clone();
    assert_eq!(trailers.get("grpc-status").map(|v| v.as_bytes()), Some(&b"0"[..]));
    assert_eq!(whole.to_bytes(), "body");
}

#[tokio::test]
async fn an_answer_before_the_upload_has_ended_is_whole_and_the_connection_goes_on() {
    let (gate, a) = gate_and_service().await;
    let (mut client, _connection) = Client2::connect(&gate).await;
    gate.put(Admission::Shut, &[a.upstream(1, 1)]).await;
    let large = "x".repeat(3 << 20);
    let refused = client.send(Method::POST, "/", &large).await.expect("an answer");
    assert_eq!((refused.status, refused.header("handover-gate"), refused.header("connection")), (503, "shut", ""));
    gate.put(Admission::Open, &[a.upstream(1, 1)]).await;
    let (mut client, _connection) = Client2::connect(&gate).await;
    assert_eq!(client.send(Method::POST, "/early", &large).await.expect("an answer").body, a.name());
    assert_eq!(client.get("/").await.status, 200, "on the same connection");
}

#[tokio::test]
async fn a_lame_duck_says_goaway_once_serves_what_is_in_flight_and_what_comes_on_new_connections() {
    let (gate, a) = gate_and_service().await;
    let mut old = Raw::connect(gate.address, &[]).await;
    old.get(1, "/wait", &[]).await;
    gate.upstream_when(&a, "in flight", |one| one.in_flight == 1).await;
    gate.put(Admission::LameDuck, &[a.upstream(1, 1)]).await;
    let first = old.next_of(GOAWAY).await.expect("notice");
    assert_eq!((first.code(), &first.payload[..4]), (0, &i32::MAX.to_be_bytes()[..]), "no stream is given up yet");
    // It was on its way when the notice came.
    old.get(3, "/", &[]).await;
    let (mut served, mut last) = (false, None);
    while !served || last.is_none() {
        let frame = old.next().await.expect("a frame");
        match frame.kind {
            HEADERS => served |= frame.stream == 3,
            GOAWAY => last = Some(frame),
            // The round trip, after which the last stream is named.
            PING if frame.flags == 0 => old.send(PING, 1, 0, &frame.payload).await,
            _ => {}
        }
    }
    assert_eq!(&last.expect("the last stream").payload[..4], &3_u32.to_be_bytes());
    a.release(1);
    let rest = old.rest().await;
    assert!(rest.iter().any(|frame| frame.kind == HEADERS && frame.stream == 1), "what was in flight is answered");
    assert!(!rest.iter().any(|frame| frame.kind == GOAWAY), "told once");
    let (mut new, _connection) = Client2::connect(&gate).await;
    assert_eq!(new.get("/").await.status, 200);
    until("it is told, too", async || !new.is_open()).await;
}

#[tokio::test]
async fn a_lame_duck_tells_an_idle_connection_that_was_used_and_leaves_a_fresh_one() {
    let (gate, a) = gate_and_service().await;
    let (mut used, ended) = Client2::connect(&gate).await;
    assert_eq!(used.get("/").await.status, 200);
    let (mut fresh, _connection) = Client2::connect(&gate).await;
    gate.report_when("both are connected", |report| report.connections == 2).await;
    gate.put(Admission::LameDuck, &[a.upstream(1, 1)]).await;
    ended.await.expect("no panic").expect("closed in good order");
    assert_eq!(fresh.get("/").await.status, 200);
}

#[tokio::test]
async fn a_stopping_gate_finishes_its_streams_and_ends_well() {
    let (gate, a) = gate_and_service().await;
    let (client, ended) = Client2::connect(&gate).await;
    let mut waiter = client.clone();
    let waiting = tokio::spawn(async move { waiter.send(Method::GET, "/wait", "").await });
    gate.upstream_when(&a, "in flight", |one| one.in_flight == 1).await;
    let address = gate.address;
    let stopping = gate.begin_to_stop();
    until("the listener is closed", async || TcpStream::connect(address).await.is_err()).await;
    assert!(!stopping.is_finished(), "it waits for the stream");
    a.release(1);
    assert_eq!(waiting.await.expect("no panic").expect("an answer").status, 200);
    ended.await.expect("no panic").expect("closed in good order");
    stopping.await.expect("no panic").expect("in good order");
}

#[tokio::test]
async fn a_client_that_resets_a_stream_ends_its_request_and_no_other() {
    let (gate, a) = gate_and_service().await;
    let (client, _connection) = Client2::connect(&gate).await;
    let ask = |path: &'static str| {
        let mut client = client.clone();
        tokio::spawn(async move { client.send(Method::GET, path, "").await })
    };
    let (given_up, other) = (ask("/wait-1"), ask("/wait-2"));
    gate.upstream_when(&a, "two in flight", |one| one.in_flight == 2).await;
    given_up.abort();
    let one = gate.upstream_when(&a, "one is over", |one| one.in_flight == 1).await;
    assert_eq!(one.reads.client_left, 1);
    a.release(2);
    assert_eq!(other.await.expect("no panic").expect("an answer").status, 200);
}

#[tokio::test]
async fn requests_go_on_by_http2_over_few_connections_and_by_http1_if_they_came_so() {
    for mode in [UpstreamProtocol::Http2, UpstreamProtocol::AsClient] {
        let gate = TestGate::start_with(|settings| settings.upstream = mode).await;
        let a = Service::start_http2(1).await;
        gate.open(&[a.upstream(1, 1)]).await;
        let (client, _connection) = Client2::connect(&gate).await;
        let asked = (0..100).map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.get("/wait").await })
        });
        let asked: Vec<_> = asked.collect();
        gate.upstream_when(&a, "all in flight", |one| one.in_flight == 100).await;
        assert_eq!(a.connections(), 1, "{mode:?}");
        a.release(100);
        for one in asked {
            assert_eq!(one.await.expect("no panic").status, 200);
        }
        let head =
            read(client.clone().begin(Method::GET, "/head", &[], "").await.expect("a head")).await.expect("whole");
        assert!(
            head.body.contains("version: HTTP/2.0") && head.body.contains("uri: http://test/head"),
            "{}",
            head.body
        );
        if mode == UpstreamProtocol::Http2 {
            let answer = gate.client().await.get("/").await;
            assert_eq!((answer.status, answer.body), (200, a.name()), "from a client of HTTP/1.1");
        }
    }
}

/// A service that refuses every request unseen; those for `/large` after it has taken 100 KB of their bodies.
async fn refuser() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.expect("http/2");
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        let mut left = if request.uri().path() == "/large" { 100_000 } else { 0 };
                        let mut body = request.into_body();
                        while left > 0 {
                            let Some(Ok(data)) = body.data().await else { break };
                            let _ = body.flow_control().release_capacity(data.len());
                            left = usize::saturating_sub(left, data.len());
                        }
                        respond.send_reset(h2::Reason::REFUSED_STREAM);
                    });
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_request_that_was_refused_unseen_is_sent_again_unless_too_much_of_its_body_has_passed() {
    let gate = TestGate::start_with(|settings| settings.upstream = UpstreamProtocol::Http2).await;
    let (a, b) = (Service::start_http2(1).await, Service::start_http2(2).await);
    let refusing = handover_agent::gate::control::Upstream { address: refuser().await, ..a.upstream(1, 1) };
    gate.open(&[refusing.clone(), b.upstream(1, 1)]).await;
    let (mut client, _connection) = Client2::connect(&gate).await;
    for n in 0..10 {
        assert_eq!(client.get("/").await.body, b.name());
        let body = format!("a body {n} ").repeat(1000);
        assert!(client.send(Method::POST, "/echo", &body).await.expect("an answer").body == body, "whole, and once");
    }
    assert_eq!((b.saw("GET /"), b.saw("POST /echo")), (10, 10));
    gate.open(&[refusing]).await;
    for _ in 0..10 {
        let answer = client.send(Method::POST, "/large", &"x".repeat(300_000)).await.expect("an answer");
        assert!(answer.status == 503 && answer.header("handover-gate") == "refused", "it was not executed: {answer:?}");
    }
    let report = gate.report_when("counted", |report| !report.own_answers.is_empty()).await;
    assert!(report.own_answers.contains_key(&Reason::Refused));
}

#[tokio::test]
async fn a_service_that_refuses_every_stream_is_asked_ever_more_seldom_and_the_client_is_told_that_it_refused() {
    let gate = TestGate::start_with(|settings| {
        settings.upstream = UpstreamProtocol::Http2;
        settings.hold.time = Duration::from_millis(1500);
    })
    .await;
    let a = Service::start(1).await;
    gate.open(&[handover_agent::gate::control::Upstream { address: refuser().await, ..a.upstream(1, 1) }]).await;
    let answer = gate.client().await.get("/").await;
    assert_eq!((answer.status, answer.header("handover-gate"), answer.header("retry-after")), (503, "refused", "1"));
    let one = gate.upstream_when(&a, "counted", |one| one.in_flight == 0 && one.reads.requests > 0).await;
    // Every 100 ms it would be fifteen.
    assert!(one.reads.connect_errors <= 7, "{one:?}");
}

#[tokio::test]
async fn a_service_that_closes_its_shared_connection_after_every_few_requests_loses_none() {
    let gate = TestGate::start_with(|settings| settings.upstream = UpstreamProtocol::Http2).await;
    let a = Service::start(1).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.expect("http/2");
                let mut count = 0;
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    count += 1;
                    if count == 5 {
                        connection.graceful_shutdown();
                    }
                    respond.send_response(Response::new(()), true).expect("answered");
                }
                // Closing with unread bytes would be a reset, which takes the GOAWAY away from who has not read it: then nobody
                // can tell what was processed, and 502 is the right answer. A service in good order lingers.
                tokio::time::sleep(Duration::from_secs(2)).await;
            });
        }
    });
    gate.open(&[handover_agent::gate::control::Upstream { address, ..a.upstream(1, 1) }]).await;
    let (client, _connection) = Client2::connect(&gate).await;
    let all = (0..20).map(|_| {
        let mut client = client.clone();
        tokio::spawn(async move {
            for _ in 0..25 {
                assert_eq!(client.send(Method::POST, "/", "a body").await.expect("an answer").status, 200);
            }
        })
    });
    for one in all.collect::<Vec<_>>() {
        one.await.expect("none lost");
    }
    assert_eq!(gate.upstream_when(&a, "counted", |one| one.in_flight == 0).await.writes.errors(), 0);
}

#[tokio::test]
async fn a_request_id_a_total_time_and_a_broken_answer_are_told_in_both_protocols() {
    let gate = TestGate::start_with(|settings| settings.limits.request_time = Some(Duration::from_millis(200))).await;
    let a = Service::start(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    let (mut second, _connection) = Client2::connect(&gate).await;
    for answer in [second.get("/wait").await, gate.client().await.get("/wait").await] {
        assert_eq!((answer.status, answer.header("handover-gate")), (504, "request-timeout"));
        assert!(answer.header("x-request-id").len() > 16, "{answer:?}");
    }
    second.send(Method::GET, "/drip", "").await.expect_err("broken off in the middle");
    gate.client().await.send(Method::GET, "/drip", "").await.expect_err("broken off in the middle");
    gate.upstream_when(&a, "nothing is left", |one| one.in_flight == 0 && one.reads.lost == 2).await;
    assert_eq!(second.get("/").await.status, 200, "only the stream is reset");
}
