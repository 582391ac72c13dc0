//! What an operator orders outside of a rollout, on real processes under load.
#![allow(clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use handover_tests::fleet::{Fleet, Options, Spec};
use serde_json::Value;

mod support;
use support::serving;

fn lease(fleet: &Fleet) -> Value {
    fleet.cli().json(&["lease", "show"]).expect("the lease")
}

fn holder(fleet: &Fleet) -> String {
    lease(fleet)["agent"].as_str().unwrap_or_default().to_owned()
}

/// A host that does not hold.
fn other(fleet: &Fleet) -> String {
    let holder = holder(fleet);
    fleet.hosts.iter().map(|host| host.name.clone()).find(|name| *name != holder).expect("another host")
}

fn turns(fleet: &Fleet) -> Vec<Value> {
    let outcome = fleet.cli().run(&["--json", "lease", "history"]).expect("a command");
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    outcome.out.lines().map(|line| serde_json::from_str(line).expect("json")).collect()
}

fn ready(fleet: &Fleet, candidates: usize) {
    let could = |fleet: &Fleet| {
        let lease = fleet.cli().json(&["lease", "show"])?;
        let all = lease["candidates"].as_array().cloned().unwrap_or_default();
        let not = all.iter().filter(|name| name.as_str().is_some_and(|name| name.contains("not ready"))).count();
        Ok(lease["dark_since_ms"] == 0 && all.len() - not >= candidates)
    };
    fleet.wait_for("ready candidates, and a holder that works", could).expect("ready");
}

#[test]
fn a_hand_over_by_order_moves_the_lease_to_the_named_host_and_stands_in_the_history() {
    let fleet = serving(Options::default());
    ready(&fleet, 2);
    let before = lease(&fleet);
    let to = other(&fleet);
    let began = Instant::now();
    let outcome = fleet.cli().run(&["lease", "handoff", "--to", &to, "--because", "a test"]).expect("a command");
    eprintln!("hand-over by order: the command took {} ms\n{}", began.elapsed().as_millis(), outcome.out);
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    let after = lease(&fleet);
    assert_eq!((after["agent"].as_str(), after["state"].as_str()), (Some(to.as_str()), Some("held")), "{after}");
    assert!(after["turn"].as_u64() == before["turn"].as_u64().map(|turn| turn + 1), "{before} {after}");
    assert!(!after["candidates"].to_string().contains(&to), "the holder is not listed among the candidates: {after}");
    let recorded = |fleet: &Fleet| Ok(turns(fleet).first().is_some_and(|turn| turn["dark_ms"].is_u64()));
    fleet.wait_for("the turn to be recorded with its dark time", recorded).expect("recorded");
    let turns = turns(&fleet);
    eprintln!("dark: {} ms", turns[0]["dark_ms"]);
    assert!(turns[0]["cause"].as_str().is_some_and(|cause| cause.contains("order 1") && cause.contains("a test")));
    assert!(turns[0]["dark_ms"].as_u64() < Some(5000), "{}", turns[0]);
    assert_eq!(turns[1]["ended"], format!("handed over to {to}"));
    let again = fleet.cli().run(&["lease", "handoff", "--to", &to]).expect("a command");
    assert_eq!(again.code, 0, "it holds already: {}{}", again.out, again.err);
    let nobody = fleet.cli().run(&["lease", "handoff", "--to", "app-99"]).expect("a command");
    assert!(nobody.code == 5 && nobody.err.contains("no agent app-99"), "{}", nobody.err);
}
