//! What an operator orders outside of a rollout, on real processes under load.
#![allow(clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use handover_tests::fleet::{Fleet, Options};
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

fn order(fleet: &Fleet, number: u64) -> Value {
    known_order(fleet, number).expect("the order")
}

/// None: whoever answers has just begun, and does not know of it yet.
fn known_order(fleet: &Fleet, number: u64) -> Option<Value> {
    let status = fleet.cli().status().ok()?;
    let orders = status["orders"].as_array().cloned().unwrap_or_default();
    orders.into_iter().find(|order| order["number"] == number)
}

fn has_become(fleet: &Fleet, number: u64, state: &str) -> bool {
    known_order(fleet, number).is_some_and(|order| order["state"] == state)
}

fn in_seconds(seconds: i64) -> String {
    (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds)).to_string()
}

fn stop_coordinator(fleet: &mut Fleet) {
    fleet.coordinators.pop().expect("a coordinator").kill().expect("killed");
}

fn no_coordinator(fleet: &Fleet) {
    let address = fleet.coordinator();
    fleet.wait_for("the coordinator to be gone", |_| Ok(std::net::TcpStream::connect(address).is_err())).expect("gone");
}

#[test]
fn a_hand_over_at_a_time_is_carried_out_by_the_coordinator_that_runs_then() {
    let mut fleet = serving(Options::default());
    ready(&fleet, 2);
    let to = other(&fleet);
    let outcome = fleet.cli().run(&["lease", "handoff", "--to", &to, "--at", &in_seconds(4)]).expect("a command");
    assert!(outcome.code == 0 && outcome.out.contains("is due at"), "{}{}", outcome.out, outcome.err);
    assert_eq!(order(&fleet, 1)["state"], "scheduled");
    assert_ne!(holder(&fleet), to, "it is not time yet");
    stop_coordinator(&mut fleet);
    no_coordinator(&fleet);
    let offline = fleet.cli().run(&["rollout", "status"]).expect("a command");
    assert!(offline.out.contains("hand the scheduler lease over"), "the store alone shows it: {}", offline.out);
    fleet.start_coordinator().expect("the next coordinator");
    fleet.wait_for("the lease to have moved", |fleet| Ok(holder(fleet) == to)).expect("moved");
    fleet.wait_for("the order to be over", |fleet| Ok(has_become(fleet, 1, "done"))).expect("over");
}

#[test]
fn a_hand_over_that_would_come_too_late_is_not_done_and_says_so() {
    let mut fleet = serving(Options::default());
    ready(&fleet, 2);
    let (before, to) = (holder(&fleet), other(&fleet));
    let at = in_seconds(2);
    let outcome = fleet.cli().run(&["lease", "handoff", "--to", &to, "--at", &at, "--late", "1s"]).expect("a command");
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    stop_coordinator(&mut fleet);
    let due = Instant::now() + Duration::from_secs(4);
    fleet.wait_for("the time to pass", |_| Ok(Instant::now() > due)).expect("passed");
    fleet.start_coordinator().expect("the next coordinator");
    fleet.wait_for("the order to be over", |fleet| Ok(has_become(fleet, 1, "undone"))).expect("over");
    let reason = order(&fleet, 1)["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.contains("late"), "{reason}");
    assert_eq!(holder(&fleet), before);
}

#[test]
fn what_waits_for_its_time_and_what_is_not_done_yet_can_be_cancelled() {
    let fleet = serving(Options::default());
    ready(&fleet, 2);
    let before = holder(&fleet);
    let outcome = fleet.cli().run(&["lease", "handoff", "--at", &in_seconds(3600)]).expect("a command");
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    let cancelled = fleet.cli().run(&["lease", "cancel", "--because", "not tonight"]).expect("a command");
    assert!(cancelled.code == 0 && cancelled.out.contains("cancelled"), "{}{}", cancelled.out, cancelled.err);
    assert_eq!(order(&fleet, 1)["state"], "undone");

    // A service that does not answer QUIESCE keeps the request open.
    fleet.install("1.0.0", "ignore-quiesce = true").expect("installed");
    let slow = fleet.cli().run(&["lease", "handoff", "--detach"]).expect("a command");
    assert_eq!(slow.code, 0, "{}", slow.err);
    let open = |fleet: &Fleet| Ok(!lease(fleet)["intent"].as_str().unwrap_or_default().is_empty());
    fleet.wait_for("the intent to be open", open).expect("open");
    let busy = fleet.cli().run(&["lease", "handoff"]).expect("a command");
    assert!(busy.code == 5 && busy.err.contains("order 2"), "{}{}", busy.out, busy.err);
    let cancelled = fleet.cli().run(&["lease", "cancel"]).expect("a command");
    assert_eq!(cancelled.code, 0, "{}{}", cancelled.out, cancelled.err);
    fleet.wait_for("the intent to be gone", |fleet| Ok(!open(fleet)?)).expect("gone");
    assert_eq!(holder(&fleet), before);

    fleet.install("1.0.0", "").expect("mended");
    ready(&fleet, 2);
    let outcome = fleet.cli().run(&["lease", "handoff"]).expect("a command");
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    let done = fleet.cli().run(&["lease", "cancel", "3"]).expect("a command");
    assert!(done.code == 5 && done.err.contains("over"), "what is done is done: {}{}", done.out, done.err);
}

#[test]
fn a_frozen_lease_is_not_handed_over_until_it_is_free_to_move() {
    let fleet = serving(Options::default());
    ready(&fleet, 2);
    let frozen = fleet.cli().run(&["lease", "freeze", "--because", "maintenance"]).expect("a command");
    assert_eq!(frozen.code, 0, "{}", frozen.err);
    let freeze = lease(&fleet)["freeze"].clone();
    assert_eq!(freeze["because"], "maintenance");
    let refused = fleet.cli().run(&["lease", "handoff"]).expect("a command");
    assert!(refused.code == 5 && refused.err.contains("maintenance"), "{}{}", refused.out, refused.err);
    assert_eq!(fleet.cli().run(&["lease", "freeze"]).expect("a command").code, 5, "twice");
    assert_eq!(fleet.cli().run(&["lease", "unfreeze"]).expect("a command").code, 0);
    let outcome = fleet.cli().run(&["lease", "handoff"]).expect("a command");
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
}

#[test]
fn a_released_lease_stays_free_while_it_is_frozen_and_is_taken_up_again() {
    let fleet = serving(Options::default());
    ready(&fleet, 2);
    let args = ["--timeout", "20s", "lease", "release", "--freeze", "--because", "no batch tonight"];
    let outcome = fleet.cli().run(&args).expect("a command");
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    let free = lease(&fleet);
    assert!(free["state"] == "free" && free["dark_since_ms"].as_u64() > Some(0), "{free}");
    let status = fleet.cli().run(&["status"]).expect("a command").out;
    assert!(status.contains("Dark      for") && status.contains("no batch tonight"), "{status}");
    let why = fleet.cli().run(&["why"]).expect("a command").out;
    assert!(why.contains("lease-dark") && why.contains("lease unfreeze"), "{why}");
    assert_eq!(fleet.cli().run(&["lease", "unfreeze"]).expect("a command").code, 0);
    fleet.wait_for("somebody to hold it again", |fleet| Ok(lease(fleet)["state"] == "held")).expect("held");
    ready(&fleet, 2);
    let audit = fleet.cli().run(&["audit"]).expect("a command").out;
    assert!(audit.contains("release the scheduler lease, and freeze it") && audit.contains("unfreeze"), "{audit}");
    let log = fleet.cli().run(&["audit", "1"]).expect("a command").out;
    assert!(log.contains("asked app-"), "{log}");
}
