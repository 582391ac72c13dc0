//! The gate is replaced while a rollout runs: nothing is lost, and no instance stops under an older gate's requests.
#![allow(clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use handover_tests::fleet::{Fleet, Options, Spec};
use handover_tests::load::request::Mix;
use handover_tests::load::{Load, LoadSpec};

mod support;
use support::{receipt, serving, table};

fn load(fleet: &Fleet) -> Load {
    let mut spec = LoadSpec::new(fleet.gates(), 150.0);
    spec.mix = Mix { write_share: 0.2, slow_share: 0.02, slow: Duration::from_secs(2) };
    spec.timeout = Duration::from_secs(15);
    let load = Load::start(spec).expect("load");
    fleet.wait_for("the load to be answered", |_| Ok(load.answered_well() > 100)).expect("answers");
    load
}

fn ask_slowly(gate: SocketAddr, time: Duration) -> TcpStream {
    let mut stream = TcpStream::connect(gate).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    let request = format!("GET /slow?ms={} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", time.as_millis());
    stream.write_all(request.as_bytes()).expect("written");
    stream
}

/// A chunked body is whole when its last chunk came, any other by its length.
fn is_whole(answer: &str) -> bool {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let length = head.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    length.map_or(body.ends_with("0\r\n\r\n"), |length: usize| body.len() == length)
}

/// The gate process that an agent speaks to.
fn gate_pid(fleet: &Fleet, index: usize) -> anyhow::Result<u64> {
    Ok(fleet.hosts[index].status()?["gate"]["pid"].as_u64().unwrap_or_default())
}

fn replace(fleet: &mut Fleet, index: usize) -> handover_tests::fleet::Process {
    let older = fleet.replace_gate(index).expect("started").expect("one ran");
    let newer = u64::from(fleet.hosts[index].gate.as_ref().expect("a gate").pid());
    fleet.wait_for("the agent to speak to the newer gate", |fleet| Ok(gate_pid(fleet, index)? == newer)).expect("it");
    older
}

#[test]
fn a_rollout_waits_for_what_an_older_gate_has_in_flight_and_gates_replaced_on_the_way_lose_nothing() {
    let mut fleet = serving(Options::default());
    let load = load(&fleet);
    let began = Instant::now();
    let slow = Duration::from_secs(20);
    let mut asked = ask_slowly(fleet.gates()[0], slow);
    let in_flight = |fleet: &Fleet| {
        let slots = fleet.hosts[0].status()?["slots"].as_array().cloned().unwrap_or_default();
        let oldest = slots.iter().filter_map(|slot| slot["instance"]["drain"]["lines"][0]["oldest_ms"].as_u64()).max();
        Ok(oldest > Some(2500))
    };
    fleet.wait_for("the slow request to be counted", in_flight).expect("counted");
    let mut first = replace(&mut fleet, 0);
    let rollout = fleet.cli().start(&Spec::to("1.1.0")).expect("started");
    let mut older = Vec::new();
    let mut waited = false;
    fleet
        .wait_for("the drain to wait for the older gate", |fleet| {
            let status = fleet.cli().status()?;
            let rows = status["fleet"].as_array().cloned().unwrap_or_default();
            let drains = |row: &serde_json::Value| {
                row["agent"] == "app-01" && row["version"] == "1.0.0" && row["reads"] == 0 && row["in_flight"] == 1
            };
            Ok(rows.iter().any(drains))
        })
        .map(|()| waited = true)
        .expect("it drains");
    assert!(waited && began.elapsed() < slow && !first.has_ended(), "the slow request was over too soon for a test");
    for index in 0..fleet.hosts.len() {
        older.push(replace(&mut fleet, index));
    }
    let mut answer = String::new();
    asked.read_to_string(&mut answer).expect("a whole answer");
    assert!(answer.starts_with("HTTP/1.1 200") && is_whole(&answer), "stopped under an older gate's request: {answer}");
    assert!(began.elapsed() >= slow);
    let done = |fleet: &Fleet| {
        let status = fleet.cli().status()?;
        Ok(status["rollout"]["rollout"] == rollout.as_str() && status["rollout"]["state"] == "done")
    };
    fleet.wait_within(Duration::from_secs(60), "the rollout to end", done).expect("done");
    let receipt = receipt(&fleet, load);
    assert!(receipt.verdict.passed, "{}", table(&receipt));
    assert!(first.wait().expect("its end").success());
}
