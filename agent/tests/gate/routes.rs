//! Where requests go, and what is in flight.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use handover_agent::gate::class::ClassRule;
use handover_agent::gate::control::Upstream;
use handover_agent::gate::settings::GateSettings;
use http_body_util::BodyExt;
use hyper::Method;

use crate::bench::{Service, TestGate, until};
use crate::visitor::{Client, get, raw, read};

#[tokio::test]
async fn reads_split_75_to_25_over_ten_thousand_requests_and_writes_by_their_own_weights() {
    let (gate, a, b) = (TestGate::start().await, Service::start(1).await, Service::start(2).await);
    gate.open(&[a.upstream(75, 0), b.upstream(25, 1)]).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = gate.client().await;
        clients.push(tokio::spawn(async move {
            for _ in 0..2500 {
                assert_eq!(client.get("/").await.status, 200);
            }
        }));
    }
    for client in clients {
        client.await.expect("no failure");
    }
    let share = a.requests();
    assert!((7400..=7600).contains(&share), "{share} of 10000, wanted 7500 within 1 %");
    assert_eq!(share + b.requests(), 10_000);
    let mut client = gate.client().await;
    for _ in 0..20 {
        assert_eq!(client.post("/").await.body, b.name());
    }
}

#[tokio::test]
async fn a_rule_makes_a_post_a_read() {
    let search: ClassRule = toml::from_str("method = 'POST'\npath_prefix = '/search'\nclass = 'read'").expect("a rule");
    let gate = TestGate::start_with(|settings| settings.rules = vec![search]).await;
    let (old, new) = (Service::start(1).await, Service::start(2).await);
    gate.open(&[old.upstream(0, 1), new.upstream(1, 0)]).await;
    let mut client = gate.client().await;
    assert_eq!(client.post("/search").await.body, new.name());
    assert_eq!(client.post("/pay").await.body, old.name());
}

#[tokio::test]
async fn one_that_is_not_ready_gets_no_request_from_the_moment_the_state_is_applied() {
    let (gate, a, b) = (TestGate::start().await, Service::start(1).await, Service::start(2).await);
    gate.open(&[a.upstream(50, 50), b.upstream(50, 50)]).await;
    let mut client = gate.client().await;
    for _ in 0..10 {
        client.get("/").await;
    }
    assert_eq!((a.requests(), b.requests()), (5, 5), "both serve before");
    gate.open(&[Upstream { ready: false, ..a.upstream(50, 50) }, b.upstream(50, 50)]).await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.body, b.name());
    }
    assert_eq!(a.requests(), 5);
}

#[tokio::test]
async fn a_request_is_in_flight_until_its_answers_body_ends_even_after_its_upstream_lost_its_weight() {
    let (gate, a, b) = (TestGate::start().await, Service::start(1).await, Service::start(2).await);
    gate.open(&[a.upstream(1, 1)]).await;
    let mut client = gate.client().await;
    let mut answer = client.begin(Method::GET, "/drip", "").await.expect("the head");
    let first = answer.frame().await.expect("a frame").expect("data").into_data().expect("data");
    assert_eq!(first, "first,", "the head and a part of the body have arrived");
    gate.upstream_when(&a, "in flight after the head", |one| one.in_flight == 1).await;
    gate.open(&[a.upstream(0, 0), b.upstream(1, 1)]).await;
    let mut other = gate.client().await;
    assert_eq!(other.get("/").await.body, b.name(), "new requests go elsewhere");
    let still = gate.upstream_when(&a, "still in flight", |one| one.in_flight == 1).await;
    assert_eq!(still.reads.answered_2xx, 1);
    a.release(1);
    assert_eq!(read(answer).await.expect("the rest").body, a.name());
    let done = gate.upstream_when(&a, "drained", |one| one.in_flight == 0).await;
    assert_eq!((done.reads.lost, done.reads.client_cut), (0, 0));
}

#[tokio::test]
async fn a_request_is_in_flight_while_its_own_body_is_still_coming() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    gate.open(&[a.upstream(1, 1)]).await;
    let mut stream = tokio::net::TcpStream::connect(gate.address).await.expect("connected");
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\nConnection: close\r\n\r\nhalf";
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut answer = String::new();
    while !answer.contains("half") {
        let mut bytes = [0; 512];
        let count = stream.read(&mut bytes).await.expect("read");
        assert!(count > 0, "closed after {answer:?}");
        answer.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    gate.open(&[a.upstream(0, 0)]).await;
    gate.upstream_when(&a, "in flight", |one| one.in_flight == 1).await;
    stream.write_all(b"done").await.expect("written");
    stream.read_to_string(&mut answer).await.expect("the rest");
    assert!(answer.contains("done"), "{answer}");
    gate.upstream_when(&a, "drained", |one| one.in_flight == 0).await;
}

#[tokio::test]
async fn a_request_whose_answer_came_early_is_in_flight_until_its_own_body_has_been_passed_on() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    gate.open(&[a.upstream(1, 1)]).await;
    let mut stream = tokio::net::TcpStream::connect(gate.address).await.expect("connected");
    let head = "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\nhalf";
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut answer = String::new();
    while !answer.ends_with(&a.name()) {
        let mut bytes = [0; 512];
        let count = stream.read(&mut bytes).await.expect("read");
        assert!(count > 0, "closed after {answer:?}");
        answer.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    gate.open(&[a.upstream(0, 0)]).await;
    gate.upstream_when(&a, "in flight after the whole answer", |one| one.in_flight == 1).await;
    stream.write_all(b"done").await.expect("written");
    gate.upstream_when(&a, "drained", |one| one.in_flight == 0).await;
    until("the service has all of it", async || a.saw("8 bytes") == 1).await;
}

#[tokio::test]
async fn an_upload_that_goes_nowhere_after_its_answer_is_not_in_flight_for_ever() {
    use tokio::io::AsyncWriteExt;
    let gate = TestGate::start_with(|settings| settings.limits.stall_time = Duration::from_millis(100)).await;
    let a = Service::start(1).await;
    gate.open(&[a.upstream(1, 1)]).await;
    for (round, fields) in
        ["Content-Length: 8\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"].iter().enumerate()
    {
        let mut stream = tokio::net::TcpStream::connect(gate.address).await.expect("connected");
        stream.write_all(format!("POST /early HTTP/1.1\r\nHost: a\r\n{fields}").as_bytes()).await.expect("written");
        let done = round as u64 + 1;
        gate.upstream_when(&a, "ended", |one| one.writes.answered_2xx == done && one.in_flight == 0).await;
    }
    assert_eq!(gate.client().await.get("/").await.status, 200);
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_of_an_answer_ends_its_request() {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    gate.open(&[a.upstream(1, 1)]).await;
    let mut client = gate.client().await;
    let answer = client.begin(Method::GET, "/drip", "").await.expect("the head");
    gate.upstream_when(&a, "in flight", |one| one.in_flight == 1).await;
    drop((answer, client));
    // The gate notices when it has something to write: until then the service is at work, and that is in flight.
    a.release(1);
    gate.upstream_when(&a, "ended", |one| one.in_flight == 0).await;
}

#[tokio::test]
async fn clients_keep_their_connections_through_switches_under_load_and_no_request_fails() {
    let (gate, a, b) = (TestGate::start().await, Service::start(1).await, Service::start(2).await);
    gate.open(&[a.upstream(1, 1)]).await;
    let (running, mut clients) = (Arc::new(AtomicBool::new(true)), Vec::new());
    for number in 0..8 {
        let mut client = gate.client().await;
        let running = Arc::clone(&running);
        clients.push(tokio::spawn(async move {
            let mut by = BTreeMap::<String, u64>::new();
            while running.load(Ordering::Relaxed) {
                let method = if number % 2 == 0 { Method::GET } else { Method::POST };
                let answer = client.send(method, "/work", "payload").await.expect("never a broken connection");
                assert_eq!(answer.status, 200, "{answer:?}");
                *by.entry(answer.body).or_default() += 1;
            }
            by
        }));
    }
    let mut overlaps = 0;
    for round in 0..20 {
        let (from, to) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        // One request that is certainly at work on the old upstream while the switch happens.
        let waiting = get(gate.address, "/wait");
        until("it is at work there", async || from.saw("GET /wait") == round / 2 + 1).await;
        gate.open(&[from.upstream(0, 0), to.upstream(1, 1)]).await;
        overlaps += u64::from(gate.upstream_when(from, "counted", |_| true).await.in_flight > 0);
        let before = to.requests();
        until("the new one serves", async || to.requests() > before + 20).await;
        from.release(1);
        assert_eq!(waiting.await.expect("no panic").body, from.name(), "finished where it began");
        gate.upstream_when(from, "drained", |one| one.in_flight == 0).await;
        let at_rest = from.requests();
        until("the new one serves on", async || to.requests() > before + 60).await;
        assert_eq!(from.requests(), at_rest, "nothing reaches a drained upstream");
    }
    assert_eq!(overlaps, 20, "work was in flight at every switch");
    running.store(false, Ordering::Relaxed);
    for client in clients {
        let by = client.await.expect("no failure");
        assert!(by.len() == 2, "each connection was served by both: {by:?}");
    }
    let report = gate.report_when("the sums", |report| report.in_flight == 0).await;
    assert!(report.own_answers.is_empty(), "{report:?}");
}

#[tokio::test]
async fn answers_are_tagged_with_version_and_instance_when_asked_for() {
    let a = Service::start(1).await;
    for tag in [true, false] {
        let gate = TestGate::start_with(|settings| settings.tag_responses = tag).await;
        gate.open(&[a.upstream(1, 1)]).await;
        let answer = Client::connect(gate.address).await.get("/").await;
        let wanted = if tag { ("1.1.0", "0000000000000001") } else { ("", "") };
        assert_eq!((answer.header("handover-version"), answer.header("handover-instance")), wanted);
    }
}

#[tokio::test]
async fn an_upstream_that_left_the_state_is_reported_until_its_last_request_ended() {
    let (gate, a) = (TestGate::start().await, Service::start(1).await);
    gate.open(&[a.upstream(1, 1)]).await;
    let waiting = get(gate.address, "/wait");
    gate.upstream_when(&a, "in flight", |one| one.in_flight == 1).await;
    gate.open(&[]).await;
    let one = gate.upstream_when(&a, "kept", |one| !one.listed).await;
    assert_eq!((one.in_flight, one.reads.answered()), (1, 0));
    a.release(1);
    assert_eq!(waiting.await.expect("no panic").status, 200);
    let one = gate.upstream_when(&a, "its end is reported", |one| one.in_flight == 0).await;
    assert_eq!(one.reads.answered_2xx, 1);
}

#[tokio::test]
async fn a_sticky_client_stays_with_the_version_that_it_met_first_and_a_tester_chooses() {
    let pin = |settings: &mut GateSettings| {
        settings.pin.header = Some("x-version".to_owned());
        settings.pin.cookie = Some("billing-version".to_owned());
        settings.pin.sticky = true;
    };
    let gate = TestGate::start_with(pin).await;
    let (old, new) = (Service::start(1).await, Service::start(2).await);
    let candidate = new.upstream(1, 1);
    gate.open(&[old.upstream(99, 99), candidate.clone()]).await;
    let ask = |header: String| {
        let request = format!("GET / HTTP/1.1\r\nHost: gate\r\n{header}Connection: close\r\n\r\n");
        async move { raw(gate.address, &request).await }
    };
    let chosen = ask(format!("x-version: {}\r\n", candidate.version)).await;
    assert!(chosen.ends_with(&new.name()), "{chosen}");
    let cookie = chosen.lines().find_map(|line| line.strip_prefix("set-cookie: ")).map(|it| it.split(';').next());
    // It asked for this version by name, and has it: there is nothing to remember.
    assert_eq!(cookie, None);
    let first = ask(String::new()).await;
    let cookie = first.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
    let cookie = cookie.split(';').next().expect("its value").to_owned();
    for _ in 0..30 {
        let next = ask(format!("Cookie: a=b; {cookie}\r\n")).await;
        assert!(next.ends_with(&old.name()) && !next.contains("set-cookie"), "{next}");
    }
}
