//! Over the Runtime API.

use std::path::Path;
use std::time::Instant;

use handover_agent::core::front::Wish;
use handover_proto::blocker::BlockerKind;

use crate::proxy::{ALL, Agent, Proxy};
use crate::relay::Relay;

fn settings(proxy: &Proxy) -> String {
    settings_at(&proxy.socket())
}

fn settings_at(socket: &Path) -> String {
    format!("[[haproxy]]\nsocket = '{}'\nbackend = 'billing'\nserver = 'app-01'\n", socket.display())
}

fn site() -> (Proxy, Agent) {
    let mut proxy = Proxy::new("");
    proxy.start();
    let agent = Agent::start(&settings(&proxy), proxy.dir.path());
    (proxy, agent)
}

#[test]
fn a_drain_is_confirmed_only_when_haproxy_itself_says_so_and_is_undone() {
    let (proxy, agent) = site();
    agent.confirmed(ALL);
    assert!(!proxy.server().is_out());
    let began = Instant::now();
    agent.confirmed(Wish::Drain);
    eprintln!("drain told, read back and confirmed in {} us", began.elapsed().as_micros());
    assert!(proxy.server().drains());
    agent.confirmed(ALL);
    assert_eq!(proxy.server().admin, 0);
}

#[test]
fn a_drain_ordered_anew_is_not_confirmed_by_the_word_for_an_earlier_one() {
    let mut proxy = Proxy::new("");
    proxy.start();
    let relay = Relay::start(proxy.dir.path(), proxy.socket());
    let agent = Agent::start(&settings_at(&relay.path), proxy.dir.path());
    agent.confirmed(Wish::Drain);
    // It is told to serve, does so, and its answer does not come.
    relay.slow_once_ready();
    agent.tell(ALL);
    proxy.until("the server to be back", |proxy| !proxy.server().is_out());
    agent.tell(Wish::Drain);
    assert!(agent.pending(Wish::Drain).is_some(), "HAProxy sends, and the word is that of the drain before");
    agent.waits(Wish::Drain, "does not answer");
    assert!(!proxy.server().is_out(), "it still sends");
    relay.quick();
    agent.confirmed(Wish::Drain);
    assert!(proxy.server().drains());
}

#[test]
fn an_operators_drain_survives_ours_and_is_reported() {
    let (proxy, agent) = site();
    for (state, says) in [("drain", "drained by an operator"), ("maint", "maintenance")] {
        proxy.say(&format!("set server billing/app-01 state {state}"));
        assert!(proxy.server().is_out());
        agent.confirmed(Wish::Drain);
        let waiting = agent.waits(ALL, says);
        assert_eq!(waiting.kind, BlockerKind::BalancerNotConfirmed);
        assert!(proxy.server().is_out(), "{state} is still there");
        proxy.say("set server billing/app-01 state ready");
        agent.confirmed(ALL);
    }
}

#[test]
fn the_drain_of_a_dead_agent_is_lifted_by_the_next_one() {
    let (proxy, agent) = site();
    agent.confirmed(Wish::Drain);
    drop(agent);
    assert!(proxy.server().drains(), "nobody is there to lift it");
    let next = Agent::start(&settings(&proxy), proxy.dir.path());
    next.confirmed(ALL);
    assert_eq!(proxy.server().admin, 0);
    // One that has lost its record does not take an operator's drain for its own.
    next.confirmed(Wish::Drain);
    drop(next);
    std::fs::remove_file(proxy.dir.path().join("balancers.json")).expect("a record");
    let forgetful = Agent::start(&settings(&proxy), proxy.dir.path());
    forgetful.waits(ALL, "drained by an operator");
}

#[test]
fn a_haproxy_that_forgot_a_drain_is_told_again() {
    let (mut proxy, agent) = site();
    agent.confirmed(Wish::Drain);
    proxy.stop();
    let waiting = agent.waits(Wish::Drain, "does not answer");
    assert_eq!(waiting.kind, BlockerKind::BalancerUnreachable);
    proxy.start();
    let began = Instant::now();
    proxy.until("the drain to be set again", |proxy| proxy.server().drains());
    eprintln!("after a restart without a state file the drain is back after {} ms", began.elapsed().as_millis());
    agent.confirmed(Wish::Drain);
}

#[test]
fn with_haproxy_away_nothing_is_confirmed_and_the_reason_names_its_socket() {
    let proxy = Proxy::new("");
    let agent = Agent::start(&settings(&proxy), proxy.dir.path());
    let waiting = agent.waits(Wish::Drain, "does not answer");
    assert!(waiting.sentence.contains("admin.sock"), "{}", waiting.sentence);
    assert_eq!(waiting.kind, BlockerKind::BalancerUnreachable);
    let drained = std::fs::read_to_string(proxy.dir.path().join("balancers.json")).unwrap_or_default();
    assert!(!drained.contains("app-01"), "nothing was said, and so nothing is ours: {drained}");
}

#[test]
fn a_server_that_is_down_or_unknown_is_not_back() {
    let mut proxy = Proxy::new("check inter 50ms fall 1 rise 1 port 1");
    proxy.start();
    let agent = Agent::start(&settings(&proxy), proxy.dir.path());
    agent.waits(ALL, "DOWN");
    agent.confirmed(Wish::Drain);
    let unknown = settings(&proxy).replace("app-01", "app-99");
    let other = tempfile::tempdir().expect("a directory");
    let waiting = Agent::start(&unknown, other.path()).waits(ALL, "app-99");
    assert_eq!(waiting.kind, BlockerKind::BalancerNotConfirmed);
}

#[test]
fn a_weight_is_pushed_read_back_and_given_back() {
    let mut proxy = Proxy::new("");
    proxy.start();
    let relay = Relay::start(proxy.dir.path(), proxy.socket());
    let agent = Agent::start(&settings_at(&relay.path), proxy.dir.path());
    agent.confirmed(Wish::Serve { percent: 30 });
    assert_eq!(proxy.server().weight, 30);
    agent.confirmed(ALL);
    assert_eq!(proxy.server().weight, 100);
    proxy.say("set server billing/app-01 weight 55");
    // The first look after this may have been under way before; what follows from one is done before the next.
    let looks = relay.looks();
    proxy.until("three looks", |_| relay.looks() >= looks + 3);
    assert_eq!(proxy.server().weight, 55, "an operator's weight stands");
}
