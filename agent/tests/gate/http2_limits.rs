//! Every limit of HTTP/2 is reached, and what could be smuggled through it is refused.

use std::time::Duration;

use handover_agent::gate::control::Admission;

use crate::bench::{Service, TestGate};
use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, Raw, SETTINGS, WINDOW_UPDATE,
    block, frame,
};

const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;
const INITIAL_WINDOW_SIZE: u16 = 4;

async fn with(change: impl FnOnce(&mut handover_agent::gate::settings::GateSettings)) -> (TestGate, Service) {
    let (gate, a) = (TestGate::start_with(change).await, Service::start(1).await);
    gate.open(&[a.upstream(1, 1)]).await;
    (gate, a)
}

#[tokio::test]
async fn a_stream_above_the_limit_is_refused_in_a_way_that_says_it_may_be_sent_again() {
    let (gate, a) = with(|settings| settings.http2.streams = 2).await;
    let mut raw = Raw::connect(gate.address, &[]).await;
    for stream in [1, 3, 5] {
        raw.get(stream, "/wait", &[]).await;
    }
    let refused = raw.next_of(RST_STREAM).await.expect("a refusal");
    assert_eq!((refused.stream, refused.code()), (5, REFUSED_STREAM));
    a.release(2);
    for _ in 0..2 {
        assert_ne!(raw.next_of(HEADERS).await.expect("an answer").stream, 5);
    }
    assert_eq!(a.requests(), 2);
}

#[tokio::test]
async fn a_header_list_above_the_size_limit_reaches_no_service() {
    let (gate, a) = with(|settings| settings.limits.header_bytes = 4096).await;
    let mut raw = Raw::connect(gate.address, &[]).await;
    raw.get(1, "/", &[("x", &"y".repeat(3000))]).await;
    assert_eq!(raw.next_of(HEADERS).await.expect("an answer").stream, 1);
    raw.get(3, "/", &[("x", &"y".repeat(5000))]).await;
    loop {
        let frame = raw.next().await.expect("an answer or a reset");
        if frame.stream == 3 && (frame.kind == HEADERS || frame.kind == RST_STREAM) {
            break;
        }
    }
    assert_eq!(a.requests(), 1);
}

#[tokio::test]
async fn continuations_without_end_are_cut_off() {
    let (gate, a) = with(|settings| settings.limits.header_bytes = 4096).await;
    let mut raw = Raw::connect(gate.address, &[]).await;
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", "/")];
    raw.send(HEADERS, END_STREAM, 1, &block(&fields)).await;
    let more = frame(CONTINUATION, 0, 1, &block(&[("x", &"y".repeat(1000))]));
    let mut sent = 0;
    while sent < 10_000 && raw.send_bytes(&more).await {
        sent += 1;
    }
    assert!(sent < 10_000, "ten megabytes of one head were taken");
    assert_eq!(a.requests(), 0);
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_at_once_end_the_connection_and_few_reach_the_service() {
    let (gate, a) = with(|_| {}).await;
    let mut raw = Raw::connect(gate.address, &[]).await;
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", "/wait")];
    let flood: Vec<u8> = (0..20_000_u32)
        .flat_map(|n| {
            let stream = 2 * n + 1;
            let head = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&fields));
            [head, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
        })
        .collect();
    raw.send_bytes(&flood).await;
    let goaway = raw.rest().await.into_iter().find(|frame| frame.kind == GOAWAY);
    assert!(goaway.is_none_or(|frame| frame.code() == ENHANCE_YOUR_CALM));
    gate.upstream_when(&a, "nothing is left", |one| one.in_flight == 0).await;
    assert!(a.requests() < 200, "{} of 20,000 reached the service", a.requests());
}

#[tokio::test]
async fn streams_that_are_reset_one_after_the_other_are_counted_too() {
    let (gate, a) = with(|settings| settings.http2.resets = 30).await;
    let mut raw = Raw::connect(gate.address, &[]).await;
    let mut reset = 0;
    for n in 0..100_u32 {
        raw.get(2 * n + 1, "/wait", &[]).await;
        // Only when it has arrived does the gate know of it before the reset.
        let arrived = async {
            while a.requests() <= u64::from(n) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(1), arrived).await.is_err() {
            break;
        }
        raw.send(RST_STREAM, 0, 2 * n + 1, &8_u32.to_be_bytes()).await;
        reset += 1;
    }
    assert!((30..40).contains(&reset), "cut after {reset} resets");
}

#[tokio::test]
async fn pings_and_settings_without_end_are_cut_off_and_a_few_are_answered() {
    let (gate, _a) = with(|settings| settings.http2.stray_bytes = 64 << 10).await;
    let kinds = [(PING, &[7; 8][..]), (SETTINGS, &[]), (WINDOW_UPDATE, &[0, 0, 0, 1])];
    for ((kind, payload), beside_a_stream) in kinds.into_iter().flat_map(|kind| [(kind, false), (kind, true)]) {
        let mut raw = Raw::connect(gate.address, &[]).await;
        if beside_a_stream {
            raw.get(1, "/wait", &[]).await;
        }
        raw.send(PING, 0, 0, &[1; 8]).await;
        assert_eq!(raw.next_of(PING).await.expect("an answer").payload, [1; 8]);
        let flood = frame(kind, 0, 0, payload).repeat(1000);
        let mut sent = 0;
        while sent < 5000 && raw.send_bytes(&flood).await {
            sent += 1;
        }
        assert!(sent < 5000, "five million frames of kind {kind} were taken, beside a stream: {beside_a_stream}");
    }
}

#[tokio::test]
async fn a_client_that_gives_no_window_is_cut_off_and_its_request_ends() {
    let (gate, a) = with(|settings| settings.limits.stall_time = Duration::from_millis(300)).await;
    let mut raw = Raw::connect(gate.address, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    let fields = [(":method", "POST"), (":scheme", "http"), (":authority", "test"), (":path", "/echo")];
    raw.send(HEADERS, END_HEADERS, 1, &block(&fields)).await;
    for last in [0, 0, END_STREAM] {
        raw.send(DATA, last, 1, &[b'x'; 16_000]).await;
    }
    gate.upstream_when(&a, "in flight", |one| one.writes.requests == 1).await;
    let one = gate.upstream_when(&a, "ended", |one| one.in_flight == 0).await;
    assert_eq!(one.writes.errors(), 0, "not the service's fault: {one:?}");
    gate.put(Admission::Shut, &[a.upstream(1, 1)]).await;
    let mut raw = Raw::connect(gate.address, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    raw.get(1, "/", &[]).await;
    raw.rest().await;
}

#[tokio::test]
async fn an_idle_connection_is_told_and_closed_after_the_idle_time_although_it_pings() {
    let (gate, a) = with(|settings| {
        settings.limits.idle_time = Duration::from_millis(200);
        settings.limits.header_time = Duration::from_millis(100);
    })
    .await;
    let mut raw = Raw::connect(gate.address, &[]).await;
    raw.get(1, "/", &[]).await;
    raw.send(PING, 0, 0, &[1; 8]).await;
    let goaway = raw.next_of(GOAWAY).await.expect("notice");
    assert_eq!(goaway.code(), 0);
    raw.rest().await;
    assert_eq!(a.requests(), 1);
    gate.report_when("closed", |report| report.connections == 0).await;
}

#[tokio::test]
async fn half_a_preface_is_given_the_time_for_a_head() {
    let (gate, _a) = with(|settings| settings.limits.header_time = Duration::from_millis(60)).await;
    assert_eq!(crate::visitor::raw(gate.address, "PRI * HTTP/2.0\r\n\r\nSM").await, "");
}

#[tokio::test]
async fn what_could_become_another_request_over_http1_is_refused_and_reaches_no_service() {
    let (gate, a) = with(|_| {}).await;
    let smuggled = "x\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let get = |path| vec![(":method", "GET"), (":scheme", "http"), (":authority", "test"), (":path", path)];
    let with = |name, value| [get("/"), vec![(name, value)]].concat();
    let bad: Vec<Vec<(&str, &str)>> = vec![
        with("x", smuggled),
        with("x", "a\nb"),
        with("x", "a\0b"),
        with("x\r\ny", "z"),
        with("x:y", "z"),
        with("X-Capital", "z"),
        with("transfer-encoding", "chunked"),
        with("connection", "close"),
        with("upgrade", "websocket"),
        with("keep-alive", "5"),
        with("proxy-connection", "keep-alive"),
        with("te", "gzip"),
        with("host", "other"),
        with("content-length", "5"),
        with(":path", "/two"),
        with(":status", "200"),
        get("/ HTTP/1.1\r\nHost: a\r\n\r\nGET /smuggled"),
        get("/a b"),
        get(""),
        vec![
            (":method", "GET /smuggled HTTP/1.1\r\n\r\n"),
            (":scheme", "http"),
            (":authority", "test"),
            (":path", "/"),
        ],
        vec![(":method", "GET"), (":scheme", "http"), (":authority", "te\r\nst"), (":path", "/")],
        vec![(":method", "GET"), (":scheme", "http"), (":authority", "u@test"), (":path", "/")],
        vec![(":method", "GET"), (":scheme", "http"), (":path", "/")],
        vec![(":method", "CONNECT"), (":authority", "test:443")],
        [vec![("x", "before")], get("/")].concat(),
    ];
    for fields in bad {
        let mut raw = Raw::connect(gate.address, &[]).await;
        raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields)).await;
        let answer = loop {
            match raw.next().await {
                Some(frame) if frame.stream == 1 || frame.kind == GOAWAY => break Some(frame),
                Some(_) => {}
                None => break None,
            }
        };
        assert!(answer.is_some(), "{fields:?}: no refusal");
        assert_eq!(a.requests(), 0, "{fields:?} reached the service: {answer:?}");
    }
    // The gate goes on.
    let mut raw = Raw::connect(gate.address, &[]).await;
    raw.get(1, "/", &[]).await;
    raw.next_of(HEADERS).await.expect("an answer");
    assert_eq!((a.requests(), a.saw("GET /smuggled")), (1, 0));
}

#[tokio::test]
async fn a_body_that_belies_its_length_is_not_passed_on_as_if_it_were_whole() {
    let (gate, a) = with(|_| {}).await;
    for (length, body) in [("5", "sevenchars"), ("50", "short")] {
        let mut raw = Raw::connect(gate.address, &[]).await;
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "test"),
            (":path", "/count"),
            ("content-length", length),
        ];
        raw.send(HEADERS, END_HEADERS, 1, &block(&fields)).await;
        raw.send(DATA, END_STREAM, 1, body.as_bytes()).await;
        loop {
            let frame = raw.next().await.expect("a refusal");
            assert!(frame.kind != HEADERS || !frame.payload.starts_with(&[0x88]), "answered 200");
            if frame.stream == 1 || frame.kind == GOAWAY {
                break;
            }
        }
    }
    gate.upstream_when(&a, "nothing is left", |one| one.in_flight == 0).await;
}

#[tokio::test]
async fn a_held_stream_that_is_reset_gives_up_its_place() {
    let gate = TestGate::start().await;
    gate.put(Admission::Hold, &[]).await;
    let mut raw = Raw::connect(gate.address, &[]).await;
    raw.get(1, "/", &[]).await;
    gate.report_when("held", |report| report.held == 1).await;
    raw.send(RST_STREAM, 0, 1, &8_u32.to_be_bytes()).await;
    gate.report_when("free", |report| report.held == 0).await;
}
