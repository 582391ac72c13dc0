//! What an agent that restarts believes of what it finds running (`SAFETY.md` R9, R10).
#![allow(clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use handover_tests::fleet::{Fleet, Options};

mod support;
use support::serving;

fn instance(fleet: &Fleet, index: usize) -> Option<serde_json::Value> {
    let status = fleet.hosts[index].status().ok()?;
    let slots = status["slots"].as_array().cloned().unwrap_or_default();
    slots.iter().map(|slot| slot["instance"].clone()).find(|instance| !instance.is_null())
}

fn ready(fleet: &Fleet, index: usize) -> Option<bool> {
    instance(fleet, index)?["ready"].as_bool()
}

/// Watches the host for as long as an agent that trusts wrongly would: never ready in that time.
fn stays_not_ready(fleet: &Fleet, index: usize) {
    let began = Instant::now();
    let mut seen = 0;
    while began.elapsed() < Duration::from_millis(2500) || seen <= 20 {
        assert!(began.elapsed() < Duration::from_secs(20), "only {seen} looks");
        if let Some(ready) = ready(fleet, index) {
            assert!(!ready, "ready was reported after {seen} looks");
            seen += 1;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn an_instance_that_was_not_ready_gets_no_traffic_from_an_agent_that_restarts() {
    let mut fleet = serving(Options::default());
    fleet.install("1.0.0", "schema-gate-closed = true").expect("the fault");
    fleet
        .wait_for("the instance to lose its readiness", |fleet| Ok(ready(fleet, 0) == Some(false)))
        .expect("not ready");
    fleet.hosts[0].agent.as_mut().expect("an agent").kill().expect("killed");
    fleet.start_agent(0).expect("restarted");
    fleet.wait_for("the agent to be back", |fleet| Ok(instance(fleet, 0).is_some())).expect("back");
    stays_not_ready(&fleet, 0);
    fleet.install("1.0.0", "").expect("mended");
    let back = |fleet: &Fleet| Ok(ready(fleet, 0) == Some(true));
    fleet.wait_within(Duration::from_secs(15), "the instance to come back", back).expect("ready again");
}

#[test]
fn an_agent_that_lost_its_state_file_adopts_what_runs_and_keeps_its_name() {
    let mut fleet = serving(Options::default());
    let before = instance(&fleet, 1).expect("an instance")["instance"].clone();
    fleet.hosts[1].agent.as_mut().expect("an agent").kill().expect("killed");
    std::fs::remove_file(fleet.hosts[1].state_dir.join("agent.json")).expect("removed");
    fleet.start_agent(1).expect("restarted");
    fleet
        .wait_for("the same instance to serve", |fleet| {
            let now = instance(fleet, 1);
            Ok(now.is_some_and(|now| now["instance"] == before && now["ready"] == true && now["writes"] == 100))
        })
        .expect("adopted");
}
