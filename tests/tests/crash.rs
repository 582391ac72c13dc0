//! Whatever process dies, at whatever moment: the rollout ends as it would have, and nothing is lost.
#![allow(clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use handover_tests::fleet::{Fleet, Options, Spec};
use handover_tests::load::{Load, LoadSpec};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

mod support;
use support::{receipt, serving, table};

fn quick(version: &str) -> Spec {
    Spec { step_soak: "50ms", soak: "200ms", shift: &["50%", "100%"], ..Spec::to(version) }
}

fn state(fleet: &Fleet) -> anyhow::Result<(String, String)> {
    let status = fleet.cli().status()?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok((text(&status["rollout"]["rollout"]), text(&status["rollout"]["state"])))
}

fn wait_end(fleet: &Fleet, rollout: &str) -> String {
    let ended = |fleet: &Fleet| -> anyhow::Result<Option<String>> {
        let (id, state) = state(fleet)?;
        Ok((id == rollout && ["done", "rolled-back", "failed"].contains(&state.as_str())).then_some(state))
    };
    let limit = Duration::from_secs(45);
    fleet.wait_within(limit, "the rollout to end", |fleet| Ok(ended(fleet)?.is_some())).expect("an end");
    ended(fleet).expect("status").expect("ended")
}

fn records(fleet: &Fleet, rollout: &str) -> usize {
    let history = fleet.cli().run(&["--json", "rollout", "history", rollout]).expect("history");
    history.out.lines().filter(|line| line.contains("\"seq\"")).count()
}

/// By so many records two rollouts to the same end may differ.
const SPREAD: usize = 5;

fn has_ended(fleet: &Fleet, rollout: &str) -> bool {
    state(fleet).is_ok_and(|(id, state)| id == rollout && ["done", "rolled-back", "failed"].contains(&state.as_str()))
}

/// Rolls, and lets the coordinator die after every `every`-th record, before and after its assignments are delivered:
/// the same end each time. `specs` are taken in turn.
fn crash_loop(options: Options, specs: &[Spec], end: &str, every: usize) {
    let mut fleet = serving(options);
    fleet.install("1.4.0", "schema-gate-closed = true").expect("installed");
    let mut specs = specs.iter().cycle();
    let mut next = || specs.next().expect("endless").clone();
    let rollout = fleet.cli().start(&next()).expect("started");
    assert_eq!(wait_end(&fleet, &rollout), end);
    let count = records(&fleet, &rollout);
    assert!(count > 4, "{count} records are too few for this test to mean anything");
    // From the second on: the first two are written before `rollout start` has its answer, so that command fails with them.
    for record in (2..count).step_by(every) {
        for moment in ["before", "after"] {
            let spec = next();
            fleet.coordinators.pop().expect("a coordinator").kill().expect("killed");
            fleet.start_coordinator_with(&[("HANDOVER_CRASH_AFTER", format!("{record}:{moment}"))]).expect("started");
            let rollout = start_when_led(&fleet, &spec);
            let mut dying = fleet.coordinators.pop().expect("a coordinator");
            let limit = Instant::now() + Duration::from_secs(30);
            // A rollout that met fewer delays than the first writes fewer records; near its end it may not come so far.
            let may_end_before = record + SPREAD > count;
            while !dying.has_ended() {
                if may_end_before && has_ended(&fleet, &rollout) {
                    break;
                }
                assert!(Instant::now() < limit, "record {record}, {moment}: the coordinator did not die");
                std::thread::sleep(Duration::from_millis(20));
            }
            if !dying.has_ended() {
                dying.kill().expect("killed");
            }
            fleet.start_coordinator().expect("the next coordinator");
            assert_eq!(wait_end(&fleet, &rollout), end, "record {record}, {moment}");
            let serves = if end == "done" { spec.version.as_str() } else { "1.0.0" };
            let status = fleet.cli().status().expect("status");
            assert_eq!(status["current_version"], serves, "record {record}, {moment}");
            assert_eq!(status["lease"]["version"], serves, "record {record}, {moment}");
        }
    }
}

#[test]
fn a_coordinator_that_dies_in_a_rollout_is_followed_by_one_that_finishes_it() {
    crash_loop(Options::default(), &[quick("1.1.0"), quick("1.0.0")], "done", 5);
}

#[test]
fn a_coordinator_that_dies_in_a_rollback_is_followed_by_one_that_finishes_it() {
    let spec = Spec { start_deadline: "700ms", ..quick("1.4.0") };
    crash_loop(Options::default(), &[spec], "rolled-back", 2);
}

#[test]
fn the_same_on_real_etcd() {
    if let Some(store) = support::etcd() {
        crash_loop(Options { store, ..Options::default() }, &[quick("1.1.0"), quick("1.0.0")], "done", 9);
    }
}

/// A coordinator that has just started may not lead yet.
fn start_when_led(fleet: &Fleet, spec: &Spec) -> String {
    fleet
        .wait_for("a leader", |fleet| {
            let status = fleet.cli().status()?;
            Ok(status["term"].as_i64() > Some(0) && status["leader"].as_str().is_some_and(|leader| !leader.is_empty()))
        })
        .expect("a leader");
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        match fleet.cli().start(spec) {
            Ok(rollout) => return rollout,
            Err(error) if Instant::now() > end => panic!("{error:#}"),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

#[test]
fn agents_killed_in_the_middle_of_a_rollout_are_picked_up_and_nothing_is_lost() {
    let mut fleet = serving(Options::default());
    let mut spec = LoadSpec::new(fleet.gates(), 150.0);
    spec.timeout = Duration::from_secs(15);
    let load = Load::start(spec).expect("load");
    fleet.wait_for("answers", |_| Ok(load.answered_well() > 50)).expect("answers");
    let rollout = fleet.cli().start(&Spec::to("1.1.0")).expect("started");
    for index in 0..fleet.hosts.len() {
        let name = fleet.hosts[index].name.clone();
        fleet
            .wait_for("the candidate on the host to run", |fleet| {
                let status = fleet.cli().status()?;
                let rows = status["fleet"].as_array().cloned().unwrap_or_default();
                Ok(rows.iter().any(|row| row["agent"] == name.as_str() && row["version"] == "1.1.0"))
            })
            .expect("running");
        let before = instances(&fleet, &name);
        fleet.hosts[index].agent.as_mut().expect("an agent").kill().expect("killed");
        assert!(load.in_flight() < 150, "the gate goes on without its agent");
        fleet.start_agent(index).expect("restarted");
        fleet
            .wait_for("the agent to be back with what it ran", |fleet| {
                let now = instances(fleet, &name);
                Ok(!before.is_empty() && before.iter().all(|instance| now.contains(instance)))
            })
            .expect("the same instances");
    }
    assert_eq!(wait_end(&fleet, &rollout), "done");
    let receipt = receipt(&fleet, load);
    assert!(receipt.verdict.passed, "{}", table(&receipt));
}

fn instances(fleet: &Fleet, agent: &str) -> Vec<String> {
    let Ok(status) = fleet.cli().status() else { return Vec::new() };
    let rows = status["fleet"].as_array().cloned().unwrap_or_default();
    let mine = rows.iter().filter(|row| row["agent"] == agent && row["alive"] == true);
    mine.filter_map(|row| row["instance"].as_str().filter(|id| !id.is_empty()).map(str::to_owned)).collect()
}

#[test]
fn when_the_holder_of_the_lease_is_killed_another_instance_holds_it_at_once() {
    let fleet = serving(Options::default());
    let lease = |fleet: &Fleet| fleet.cli().status().map(|status| status["lease"].clone());
    let before = lease(&fleet).expect("status");
    let (agent, token) = (before["agent"].as_str().expect("a holder"), before["token"].as_str().expect("a token"));
    let host = fleet.hosts.iter().find(|host| host.name == agent).expect("the holder's host");
    let state = std::fs::read_to_string(host.state_dir.join("agent.json")).expect("the state file");
    let pid = state.split("\"pid\":").nth(1).expect("a pid");
    let pid: String = pid.trim_start().chars().take_while(char::is_ascii_digit).collect();
    let killed = Instant::now();
    kill(Pid::from_raw(pid.parse().expect("a number")), Signal::SIGKILL).expect("killed");
    fleet
        .wait_within(Duration::from_secs(5), "another holder", |fleet| {
            let now = lease(fleet)?;
            Ok(now["state"] == "held" && now["token"] != token)
        })
        .expect("held again long before the quarantine of 11 s");
    eprintln!("held again within {} ms, looking every 20 ms through the command line", killed.elapsed().as_millis());
}
