//! Versions that take turns in one slot, on real processes under load: no request is lost, either way, whoever dies. No
//! balancer is in front here: clients come to every gate, and a host's gate holds them while its versions change. About 50
//! seconds.
#![allow(clippy::expect_used, clippy::panic)]

use std::time::Duration;

use handover_tests::fleet::{Fleet, Options, Spec};
use handover_tests::load::request::Mix;
use handover_tests::load::{Load, LoadSpec};
use serde_json::Value;

mod support;
use support::{receipt, serving, table};

fn load(fleet: &Fleet) -> Load {
    // Few enough to be held by one gate for as long as a version may take to start.
    let mut spec = LoadSpec::new(fleet.gates(), 40.0);
    spec.mix = Mix { write_share: 0.3, slow_share: 0.02, slow: Duration::from_secs(1) };
    spec.timeout = Duration::from_secs(25);
    let load = Load::start(spec).expect("load");
    fleet.wait_for("the load to be answered", |_| Ok(load.answered_well() > 50)).expect("answers");
    load
}

/// Nobody tells clients to go elsewhere, so gates hold for as long as a start and the way back may take.
fn patient() -> Options {
    Options { hold: "40s".into(), ..Options::default() }
}

fn rows(fleet: &Fleet) -> anyhow::Result<Vec<Value>> {
    Ok(fleet.cli().status()?["fleet"].as_array().cloned().unwrap_or_default())
}

fn all_serve(fleet: &Fleet, version: &str) {
    let rows = rows(fleet).expect("status");
    assert!(rows.iter().all(|row| row["version"] == version && row["reads"] == 100), "{rows:?}");
}

fn ended(fleet: &Fleet, rollout: &str, how: &str) {
    let end = |fleet: &Fleet| {
        let status = fleet.cli().status()?;
        Ok(status["rollout"]["rollout"] == rollout && status["rollout"]["state"] == how)
    };
    fleet.wait_within(Duration::from_secs(60), "the rollout to end", end).expect("an end");
}

#[test]
fn an_upgrade_in_place_under_load_loses_no_request_and_hands_the_lease_over_once() {
    let fleet = serving(patient());
    let load = load(&fleet);
    let outcome = fleet.cli().roll(&Spec::in_place("1.1.0")).expect("a command");
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    all_serve(&fleet, "1.1.0");
    let receipt = receipt(&fleet, load);
    assert!(receipt.verdict.passed, "{}", table(&receipt));
    let turns = &receipt.holders.turns;
    assert!(turns.len() == 1 && turns[0].planned, "the lease moved otherwise than once: {}", table(&receipt));
}

/// The host that has given its old version up, and whose new one does not serve yet. The lease's holder is not the first.
fn in_between(fleet: &Fleet) -> anyhow::Result<Option<usize>> {
    let status = fleet.cli().status()?;
    let rows = status["fleet"].as_array().cloned().unwrap_or_default();
    let agent = rows.iter().find(|row| row["reads"] == 0).map(|row| row["agent"].clone());
    let index = agent.and_then(|agent| fleet.hosts.iter().position(|host| agent == host.name));
    Ok(index.filter(|_| status["rollout"]["step"] == 2))
}

#[test]
fn an_agent_and_a_coordinator_that_die_between_stop_and_start_cost_nothing() {
    let mut fleet = serving(patient());
    let load = load(&fleet);
    // Until they are dead, so that the moment between stop and start cannot be missed.
    fleet.install("1.1.0", "never-ready = true").expect("installed");
    let rollout = fleet.cli().start(&Spec::in_place("1.1.0")).expect("started");
    fleet.wait_for("the first host to be in between", |fleet| Ok(in_between(fleet)?.is_some())).expect("in between");
    let first = in_between(&fleet).expect("status").expect("its version is never ready");
    fleet.hosts[first].agent.take().expect("an agent").kill().expect("killed");
    fleet.coordinators.pop().expect("a coordinator").kill().expect("killed");
    fleet.install("1.1.0", "").expect("installed");
    fleet.start_agent(first).expect("the next agent");
    fleet.start_coordinator().expect("the next coordinator");
    ended(&fleet, &rollout, "done");
    all_serve(&fleet, "1.1.0");
    let receipt = receipt(&fleet, load);
    assert!(receipt.verdict.passed, "{}", table(&receipt));
}

#[test]
fn an_abort_goes_back_in_place_host_by_host_and_loses_nothing() {
    let fleet = serving(patient());
    let load = load(&fleet);
    let rollout = fleet.cli().start(&Spec { soak: "60s", ..Spec::in_place("1.1.0") }).expect("started");
    let soaks = |fleet: &Fleet| {
        let status = fleet.cli().status()?;
        Ok(status["rollout"]["step_what"].as_str().is_some_and(|what| what.starts_with("watch for")))
    };
    fleet.wait_within(Duration::from_secs(60), "all hosts to be changed", soaks).expect("changed");
    all_serve(&fleet, "1.1.0");
    let outcome = fleet.cli().run(&["rollout", "abort", "--reason", "test"]).expect("a command");
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    ended(&fleet, &rollout, "rolled-back");
    all_serve(&fleet, "1.0.0");
    let receipt = receipt(&fleet, load);
    assert!(receipt.verdict.passed, "{}", table(&receipt));
    assert_eq!(receipt.holders.turns.len(), 2, "there and back: {}", table(&receipt));
}

/// Its gate holds for ten seconds.
#[test]
fn the_only_host_holds_its_requests_over_an_upgrade_and_over_one_that_fails() {
    let only = |version| Spec { min_serving: 0, start_deadline: "4s", ..Spec::in_place(version) };
    let fleet = Fleet::start(Options { hosts: 1, ..Options::default() }).expect("a fleet");
    for (version, behaviour) in [("1.0.0", ""), ("1.1.0", ""), ("1.3.0", "schema-gate-closed = true")] {
        fleet.install(version, behaviour).expect("installed");
    }
    assert_eq!(fleet.cli().roll(&only("1.0.0")).expect("a command").code, 0, "bring-up");
    let held = |fleet: &Fleet| Ok(fleet.cli().status()?["lease"]["state"] == "held");
    fleet.wait_for("the scheduler lease to be held", held).expect("held");
    let refused = fleet.cli().roll(&Spec { min_serving: 1, ..only("1.1.0") }).expect("a command");
    assert!(refused.code != 0 && refused.err.contains("leaves 0, and min_serving = 1"), "{}", refused.err);
    let refused = fleet.cli().roll(&Spec { start_deadline: "20s", ..only("1.1.0") }).expect("a command");
    assert!(refused.code != 0 && refused.err.contains("20s") && refused.err.contains("10s"), "{}", refused.err);
    let load = load(&fleet);
    let outcome = fleet.cli().roll(&only("1.1.0")).expect("a command");
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    let outcome = fleet.cli().roll(&only("1.3.0")).expect("a command");
    assert_eq!(outcome.code, 3, "{}{}", outcome.out, outcome.err);
    let said = format!("{}{}", outcome.out, outcome.err);
    assert!(said.contains("the candidate 1.3.0 is not READY after 4s"), "{said}");
    all_serve(&fleet, "1.1.0");
    let receipt = load.stop().expect("the load's numbers");
    assert_eq!(receipt.total.ours(), 0, "{:#?}", receipt.failures);
}
