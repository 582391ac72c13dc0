//! Bad input: a clear error that names the file, the field and the fix, and whatever serves goes on serving.
#![allow(clippy::expect_used, clippy::panic)]

use std::process::Command;
use std::time::Duration;

use handover_proto::wire::agent_client::AgentClient;
use handover_proto::wire::{AssignRequest, kind, refusal_kind};
use handover_tests::fleet::{Fleet, Options, Spec, free_ports};
use handover_tests::load::{Load, LoadSpec};

mod support;
use support::{receipt, serving, table};

/// Runs an agent's program until it ends by itself, and gives what it complained of.
fn complaint(fleet: &Fleet, command: &str, config: &std::path::Path) -> String {
    let mut agent = Command::new(fleet.binaries().path("handover-agent"));
    agent.args([command, "--config"]).arg(config).env("FLEET_DIR", fleet.dir());
    let output = agent.output().expect("the agent's program");
    assert!(!output.status.success(), "{command} was accepted");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

/// Every mistake on one fleet, under load: nothing of it costs a request.
#[test]
fn mistakes_are_named_and_cost_no_request() {
    let mut fleet = serving(Options::default());
    let load = Load::start(LoadSpec::new(fleet.gates(), 300.0)).expect("load");
    specs_that_cannot_work(&fleet);
    a_version_that_is_not_there(&fleet);
    a_second_agent_with_the_name_of_a_live_one(&fleet);
    a_port_that_is_taken(&fleet);
    stores_and_coordinators_that_do_not_answer(&fleet);
    stale_and_conflicting_assignments(&fleet);
    a_truncated_state_file(&mut fleet);
    let receipt = receipt(&fleet, load);
    assert!(receipt.load.total.sent > 50, "{}", table(&receipt));
    assert!(receipt.verdict.passed, "{}", table(&receipt));
}

fn specs_that_cannot_work(fleet: &Fleet) {
    let plan = |name: &str, text: &str| {
        let file = fleet.dir().join(name);
        std::fs::write(&file, text).expect("written");
        let outcome = fleet.cli().run(&["plan", &file.display().to_string()]).expect("a command");
        (outcome.code, outcome.err)
    };
    let good = Spec::to("1.1.0").text();
    let cases = [
        ("soak = \"1s\"", "soak = 1", 1, &["bad.toml", "soak", "30s"][..]),
        ("soak = \"1s\"", "soak = \"1s\"\ncolour = \"blue\"", 1, &["bad.toml", "colour"]),
        ("min_serving = 2", "min_serving = 9", 5, &["9", "3"]),
        ("name = \"billing\"", "name = \"shipping\"", 5, &["shipping", "billing"]),
        ("max_error_rate = \"5%\"", "max_error_rate = 5", 1, &["bad.toml", "max_error_rate", "%"]),
    ];
    for (from, to, code, words) in cases {
        assert!(good.contains(from), "{from}");
        let (got, text) = plan("bad.toml", &good.replacen(from, to, 1));
        assert_eq!(got, code, "{to}: {text}");
        says(&text, words);
    }
    assert_eq!(plan("good.toml", &good).0, 2, "a sound plan has changes");
    assert_eq!(fleet.cli().status().expect("status")["current_version"], "1.0.0", "a plan changes nothing");
}

fn a_version_that_is_not_there(fleet: &Fleet) {
    let outcome = fleet.cli().roll(&Spec::to("9.9.9")).expect("a command");
    assert_eq!(outcome.code, 3, "{}{}", outcome.out, outcome.err);
    says(&format!("{}{}", outcome.out, outcome.err), &["builds/billing/9.9.9"]);
}

fn a_second_agent_with_the_name_of_a_live_one(fleet: &Fleet) {
    let host = &fleet.hosts[0];
    let ports = free_ports(5).expect("ports");
    let mut text = std::fs::read_to_string(&host.config).expect("config");
    text = text.replace(&host.state_dir.display().to_string(), &fleet.dir().join("other/state").display().to_string());
    text = text.replace(&host.runtime_dir.display().to_string(), &fleet.dir().join("other/run").display().to_string());
    for (old, new) in [host.agent_listen, host.operations, host.gate_listen].iter().zip(&ports) {
        text = text.replace(&old.to_string(), &format!("127.0.0.1:{new}"));
    }
    let config = fleet.dir().join("other.toml");
    std::fs::write(&config, text).expect("written");
    says(&complaint(fleet, "run", &config), &["app-01", "already running on host app-01.example", "another name"]);
}

fn a_port_that_is_taken(fleet: &Fleet) {
    let host = &fleet.hosts[1];
    let text = std::fs::read_to_string(&host.config).expect("config");
    let free = free_ports(1).expect("a port")[0];
    let swapped = text.replace(&host.state_dir.display().to_string(), &fleet.dir().join("third").display().to_string());
    let config = fleet.dir().join("taken.toml");
    std::fs::write(&config, &swapped).expect("written");
    says(&complaint(fleet, "run", &config), &["listen", &host.agent_listen.to_string(), "free the port"]);
    let control = fleet.dir().join("third-run");
    let gate = swapped.replace(&host.runtime_dir.display().to_string(), &control.display().to_string());
    let gate = gate.replace(&host.agent_listen.to_string(), &format!("127.0.0.1:{free}"));
    std::fs::write(&config, gate).expect("written");
    says(&complaint(fleet, "gate", &config), &[&host.gate_listen.to_string()]);
}

fn stores_and_coordinators_that_do_not_answer(fleet: &Fleet) {
    let handover = |args: &[&str]| {
        let output = Command::new(fleet.binaries().path("handover")).args(args).output().expect("handover");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let port = format!("127.0.0.1:{}", free_ports(1).expect("a port")[0]);
    let (code, text) = handover(&["--coordinator", &port, "--store", &port, "fleet"]);
    assert_eq!(code, Some(1), "{text}");
    says(&text, &[&port]);
    let store = fleet.stores().join(",");
    let (code, text) = handover(&["--env", "demo", "--coordinator", &port, "--store", &store, "fleet"]);
    assert_eq!(code, Some(0), "without a coordinator the store is read: {text}");
}

fn stale_and_conflicting_assignments(fleet: &Fleet) {
    let host = &fleet.hosts[0];
    let state = std::fs::read_to_string(host.state_dir.join("agent.json")).expect("the state file");
    let body = state.split_once('\n').expect("a checksum line").1;
    let state: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let (term, serial) = (state["accepted"]["term"].as_i64().expect("term"), state["accepted"]["serial"].as_i64());
    let (serial, text) = (serial.expect("serial"), state["accepted"]["text"].as_str().expect("text").to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let offer = |term: i64, serial: i64, text: &str| {
        let request = AssignRequest { term, serial, assignment: text.as_bytes().to_vec() };
        runtime.block_on(async {
            let mut client = AgentClient::connect(format!("http://{}", host.agent_listen)).await.expect("the agent");
            client.assign(request).await.map(|reply| reply.into_inner().accepted)
        })
    };
    let refused = |result: Result<i64, tonic::Status>| {
        let status = result.expect_err("refused");
        (refusal_kind(&status).unwrap_or_default().to_owned(), status.message().to_owned())
    };
    assert_eq!(offer(term, serial, &text).expect("the same again is accepted"), serial);
    assert_eq!(refused(offer(term, serial - 1, &text)).0, kind::STALE);
    assert_eq!(refused(offer(term - 1, serial + 1, &text)).0, kind::STALE);
    assert_eq!(refused(offer(term, serial, &text.replace("eligible", "never"))).0, kind::CONFLICT);
    assert_eq!(refused(offer(term + 1, serial + 1, &text)).0, kind::STALE, "a term that nobody leads under");
    assert_eq!(refused(offer(term, serial + 1, "{")).0, kind::INVALID);
    assert_eq!(host.status().expect("status")["accepted"], serial);
}

fn a_truncated_state_file(fleet: &mut Fleet) {
    fleet.hosts[2].agent.as_mut().expect("an agent").kill().expect("killed");
    let (config, file) = (fleet.hosts[2].config.clone(), fleet.hosts[2].state_dir.join("agent.json"));
    let whole = std::fs::read(&file).expect("the state file");
    std::fs::write(&file, &whole[..whole.len() / 2]).expect("truncated");
    says(&complaint(fleet, "run", &config), &["agent.json"]);
    std::fs::write(&file, whole).expect("restored");
    fleet.start_agent(2).expect("started");
    fleet
        .wait_within(Duration::from_secs(15), "the agent to be back", |fleet| {
            let status = fleet.hosts[2].status()?;
            Ok(status["accepted"] == status["reached"])
        })
        .expect("back");
}
