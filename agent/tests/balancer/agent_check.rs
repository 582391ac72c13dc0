//! Over the port that HAProxy's agent-check asks.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use handover_agent::core::front::Wish;
use handover_proto::blocker::BlockerKind;

use crate::proxy::{ALL, Agent, Proxy, free};

fn settings(port: SocketAddr) -> String {
    format!("[agent_check]\nlisten = '{port}'\nsettle = '300ms'\n")
}

/// What the port answers, as HAProxy would ask.
fn ask(port: SocketAddr, send: &str) -> String {
    let mut stream = TcpStream::connect(port).expect("the port");
    stream.write_all(send.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("a whole answer, and no reset");
    answer
}

fn site() -> (Proxy, SocketAddr) {
    let port = free();
    let mut proxy = Proxy::new(&format!("agent-check agent-port {} agent-inter 20ms", port.port()));
    proxy.start();
    (proxy, port)
}

#[test]
fn haproxy_drains_and_returns_as_it_is_answered() {
    let (proxy, port) = site();
    let agent = Agent::start(&settings(port), proxy.dir.path());
    agent.confirmed(ALL);
    let began = Instant::now();
    agent.tell(Wish::Drain);
    proxy.until("the drain", |proxy| proxy.server().drains());
    eprintln!("agent-check at 20 ms: drained after {} ms", began.elapsed().as_millis());
    agent.confirmed(Wish::Drain);
    agent.tell(ALL);
    proxy.until("the server to be back", |proxy| !proxy.server().is_out());
    agent.confirmed(ALL);
}

#[test]
fn an_operators_drain_is_not_cancelled_by_our_answers() {
    let (proxy, port) = site();
    let agent = Agent::start(&settings(port), proxy.dir.path());
    agent.confirmed(Wish::Drain);
    agent.confirmed(ALL);
    // The undo has been said for its time; from then on there is no `ready` in any answer.
    proxy.until("the undo to be over", |_| ask(port, "") == "up 100%\n");
    proxy.say("set server billing/app-01 state drain");
    for _ in 0..50 {
        assert_eq!(ask(port, ""), "up 100%\n");
    }
    // Each weight that HAProxy takes is an answer that it has got since.
    for percent in [50, 100, 30, 100] {
        agent.tell(Wish::Serve { percent });
        proxy.until("the answer to arrive", |proxy| proxy.server().weight == u32::from(percent));
        assert!(proxy.server().drains(), "the operator's drain stands");
    }
}

#[test]
fn the_drain_of_a_dead_agent_stays_while_nobody_answers_and_is_lifted_by_the_next_one() {
    let (proxy, port) = site();
    let agent = Agent::start(&settings(port), proxy.dir.path());
    agent.confirmed(Wish::Drain);
    drop(agent);
    proxy.until("nobody to answer HAProxy", |proxy| proxy.agent_status().contains("L4CON"));
    assert!(proxy.server().drains(), "HAProxy keeps the last state");
    let next = Agent::start(&settings(port), proxy.dir.path());
    assert_eq!(ask(port, ""), "", "before the first decision nothing is claimed");
    assert!(proxy.server().drains());
    next.tell(ALL);
    proxy.until("the drain to be lifted", |proxy| !proxy.server().is_out());
    next.confirmed(ALL);
}

#[test]
fn a_restarted_haproxy_learns_of_the_drain_with_its_first_question() {
    let (mut proxy, port) = site();
    let agent = Agent::start(&settings(port), proxy.dir.path());
    agent.confirmed(Wish::Drain);
    proxy.stop();
    proxy.start();
    proxy.until("the drain", |proxy| proxy.server().drains());
}

#[test]
fn without_any_haproxy_that_asks_no_drain_begins() {
    let dir = tempfile::tempdir().expect("a directory");
    let agent = Agent::start(&settings(free()), dir.path());
    let waiting = agent.waits(Wish::Drain, "no HAProxy asks");
    assert_eq!(waiting.kind, BlockerKind::BalancerUnreachable);
}

#[test]
fn whatever_is_sent_is_bounded_and_the_answer_arrives_whole() {
    let (dir, port) = (tempfile::tempdir().expect("a directory"), free());
    let agent = Agent::start(&settings(port), dir.path());
    agent.tell(ALL);
    for send in ["", "app-01\n", "\u{0}\u{1}", "GET / HTTP/1.0\r\n\r\n"] {
        assert_eq!(ask(port, send), "up 100%\n", "{send:?}");
    }
    // One that never stops sending is cut off within the exchange's time.
    let (mut stream, began) = (TcpStream::connect(port).expect("the port"), Instant::now());
    while stream.write_all(&[b'x'; 4096]).is_ok() {
        assert!(began.elapsed() < Duration::from_secs(10), "it is read without end");
    }
    assert_eq!(ask(port, ""), "up 100%\n", "and others are answered");
}

#[test]
fn who_is_not_among_those_that_may_ask_is_not_answered_and_not_waited_for() {
    let port = free();
    let mut proxy = Proxy::new(&format!("agent-check agent-port {} agent-inter 20ms", port.port()));
    let others = format!("{}from = ['192.0.2.1']\n", settings(port));
    let agent = Agent::start(&others, proxy.dir.path());
    agent.tell(ALL);
    agent.waits(Wish::Drain, "no HAProxy asks");
    for _ in 0..20 {
        assert_eq!(ask(port, ""), "");
    }
    drop(agent);
    proxy.start();
    let agent = Agent::start(&format!("{}from = ['127.0.0.1']\n", settings(port)), proxy.dir.path());
    agent.confirmed(ALL);
}

/// Asks from another address of the loopback network.
fn ask_from(source: [u8; 4], port: SocketAddr) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let stream = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind((source, 0).into()).expect("bound");
        socket.connect(port).await.expect("the port").into_std().expect("a stream")
    });
    stream.set_nonblocking(false).expect("set");
    stream.shutdown(std::net::Shutdown::Write).expect("all is said");
    let mut answer = String::new();
    (&stream).read_to_string(&mut answer).expect("a whole answer");
    answer
}

#[test]
fn strangers_cannot_fill_the_record_of_drains_and_whoever_was_not_told_is_waited_for() {
    let (dir, port) = (tempfile::tempdir().expect("a directory"), free());
    let agent = Agent::start(&settings(port), dir.path());
    agent.tell(Wish::Drain);
    let answers: Vec<String> = (1..=200).map(|n| ask_from([127, 0, 1, n], port)).collect();
    assert_eq!(answers.iter().filter(|answer| answer.contains("drain")).count(), 64);
    let record = std::fs::read_to_string(dir.path().join("balancers.json")).expect("the record");
    assert_eq!(record.matches("agent-check ").count(), 64, "{record}");
    // Any of the others may be an HAProxy, which sends on.
    let waiting = agent.waits(Wish::Drain, "balancer.agent_check.from");
    assert_eq!(waiting.kind, BlockerKind::BalancerNotConfirmed);
    assert!(waiting.sentence.contains("127.0.1."), "{}", waiting.sentence);
}
