//! The examples of docs/service.md, each run by real agents over the embedded store: each works only while it holds, stops
//! at QUIESCE before the successor begins, and never past its soft deadline when its agent is frozen.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use handover_proto::ids::OpId;
use handover_proto::keys::EnvKeys;
use handover_proto::txn::{Op, Txn};
use handover_store::client::Store;
use handover_tests::clock::BootNs;
use handover_tests::fleet::{Fleet, Options, Spec};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// For anything that should happen soon, on a machine that runs other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// One unit of an example, as it wrote it down at its start.
#[derive(Debug, Clone)]
struct Unit {
    instance: String,
    at: u64,
    token: u64,
    /// What the example took for its soft deadline; 0: it does not know one.
    soft: u64,
}

/// An example: what is copied into the version's directory, and the command.
struct Example {
    files: Vec<PathBuf>,
    command: String,
    /// How late the start of a unit may be: a command that is told by a signal hears it a little later.
    slack: Duration,
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent/examples").join(name)
}

/// Two hosts whose instances are the example; one of them holds.
struct Site {
    fleet: Fleet,
    log: PathBuf,
}

impl Site {
    fn start(example: &Example) -> Self {
        let mut fleet = Fleet::start(Options { hosts: 2, ..Options::default() }).expect("a fleet");
        let log = fleet.dir().join("work.log");
        for index in 0..fleet.hosts.len() {
            let host = &mut fleet.hosts[index];
            host.agent.as_mut().expect("an agent").kill().expect("killed");
            let text = std::fs::read_to_string(&host.config).expect("a config");
            std::fs::write(&host.config, rewritten(&text, &example.command, &log)).expect("written");
            fleet.start_agent(index).expect("an agent");
        }
        fleet.install("1.0.0", "").expect("a version's directory");
        for file in &example.files {
            let name = file.file_name().expect("a name");
            std::fs::copy(file, fleet.builds().join("1.0.0").join(name)).expect("copied");
        }
        let heard = |fleet: &Fleet| {
            let status = fleet.cli().status()?;
            let rows = status["fleet"].as_array().cloned().unwrap_or_default();
            Ok(rows.iter().filter(|row| row["alive"] == true && row["gate"] == true).count() == fleet.hosts.len())
        };
        fleet.wait_within(PATIENCE, "the agents to be back", heard).expect("heard");
        let spec = Spec { start_deadline: "60s", ..Spec::to("1.0.0") };
        let outcome = fleet.cli().roll(&spec).expect("a command");
        assert_eq!(outcome.code, 0, "bring-up: {}{}", outcome.out, outcome.err);
        Self { fleet, log }
    }

    fn units(&self) -> Vec<Unit> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().filter_map(unit).collect()
    }

    fn count(&self, instance: &str) -> usize {
        self.units().iter().filter(|unit| unit.instance == instance).count()
    }

    fn wait_for(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        self.fleet.wait_within(PATIENCE, what, |_| Ok(condition(self))).expect(what);
    }

    /// What the instance of this host is told, as its `lease.json` has it.
    fn record(&self, host: usize) -> Option<Value> {
        let file = |slot: &str| self.fleet.hosts[host].runtime_dir.join(slot).join("lease.json");
        let text = ["a", "b"].iter().find_map(|slot| std::fs::read_to_string(file(slot)).ok())?;
        serde_json::from_str(&text).ok()
    }

    fn instance(&self, host: usize) -> String {
        let record = self.record(host).expect("a record");
        record["instance"].as_str().expect("an id").to_owned()
    }

    /// Asks for a hand-over, as the coordinator does.
    fn hand_over(&self, from: usize, to: usize) {
        let intent = json!({
            "v": 1, "op": OpId::random(), "kind": "handoff", "from": self.instance(from), "to": self.instance(to),
            "quiesce_timeout_ms": 5000, "term": 1, "cause": { "rollout": null, "step": 0, "plan_hash": "" },
        });
        let keys = EnvKeys::new(&"demo".parse().expect("env")).service(&"billing".parse().expect("service")).lease();
        let txn = Txn { then: vec![Op::put(keys.intent(), intent.to_string().into_bytes())], ..Txn::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let written =
            runtime.block_on(async { Store::connect(&self.fleet.stores()).expect("an endpoint").txn(&txn).await });
        assert!(written.expect("a write").succeeded);
    }
}

fn unit(line: &str) -> Option<Unit> {
    let mut words = line.split(' ');
    let instance = words.next()?.to_owned();
    let mut number = || words.next()?.parse().ok();
    Some(Unit { instance, at: number()?, token: number()?, soft: number()? })
}

/// The host's config with the example in the place of billing: it answers no probe, and it is not called. `c_kill` is
/// generous, since an agent refuses to hold where trial kills take long, as they do on a machine full of tests.
fn rewritten(config: &str, command: &str, log: &Path) -> String {
    let part = |from: &str, to: &str| {
        let start = config.find(from).expect("as the fleet writes it");
        (start, start + config[start..].find(to).expect("as the fleet writes it"))
    };
    let (command_at, grace_at) = part("command = [", "grace = ");
    let (lease_at, probes_at) = part("[lease]", "[[probe]]");
    let (_, slots_at) = part("[[probe]]", "[[slot]]");
    let grace = &config[grace_at..lease_at];
    let log = log.display();
    format!(
        "{}command = {command}\n{grace}[driver.env]\nWORK_LOG = \"{log}\"\n{PROBE}[lease]\nservice = \"pull\"\nc_unit = \"500ms\"\nttl = \"15s\"\nc_kill = \"6s\"\n{}{}",
        &config[..command_at],
        &config[lease_at + "[lease]\n".len()..probes_at]
            .replace("c_unit = \"500ms\"\n", "")
            .replace("c_kill = \"2s\"\n", ""),
        &config[slots_at..],
    )
}

/// Each instance is to have one that says when it is ready; these are, as soon as they run.
const PROBE: &str = "[[probe]]\nname = \"up\"\nexec = { command = [\"true\"] }\naffects = \"ready\"\n";

fn keeps_the_contract(example: &Example) {
    let site = Site::start(example);
    site.wait_for("a holder at work", |site| site.units().len() >= 5);
    let first = site.units()[0].instance.clone();
    let from = (0..2).find(|host| site.record(*host).is_some_and(|record| record["instance"] == first.as_str()));
    let from = from.expect("the holder's host");
    let to = 1 - from;
    let second = site.instance(to);
    let told = site.record(from).expect("a record");
    assert_eq!(told["state"], "ACTIVE");
    assert_eq!(site.count(&second), 0, "who does not hold does not work");

    site.hand_over(from, to);
    site.wait_for("the successor at work", |site| site.count(&second) >= 5);
    let units = site.units();
    let begin = units.iter().position(|unit| unit.instance == second).expect("its first unit");
    assert!(units[begin..].iter().all(|unit| unit.instance == second), "the first one stopped before: {units:?}");
    assert!(units[begin].token > units[begin - 1].token, "under a token of its own");

    let agent = site.fleet.hosts[to].agent.as_ref().expect("an agent");
    agent.signal(Signal::SIGSTOP).expect("frozen");
    let record = site.record(to).expect("a record");
    let soft = BootNs(record["soft_deadline_boot_ns"].as_u64().expect("a deadline"));
    let frozen = site.count(&second);
    site.wait_for("work goes on while its agent is frozen", |site| site.count(&second) > frozen);
    // A renewal may have been told just before the freeze and not have reached the file.
    let late = soft.after(Duration::from_secs(2));
    site.wait_for("its deadline to be long over", |_| BootNs::now() > late);
    let units = site.units();
    let mine: Vec<&Unit> = units.iter().filter(|unit| unit.instance == second).collect();
    let last = mine.last().expect("units");
    assert!(last.at <= soft.after(example.slack + Duration::from_millis(1100)).0, "{last:?} after {soft:?}");
    let own = |unit: &&&Unit| unit.soft > 0;
    for unit in mine.iter().filter(own) {
        assert!(unit.at < unit.soft, "started past the deadline that it knew: {unit:?}");
    }
    agent.signal(Signal::SIGCONT).expect("thawed");
}

#[test]
fn the_python_example_keeps_the_contract() {
    let command = r#"["python3", "service.py"]"#.to_owned();
    keeps_the_contract(&Example { files: vec![source("service.py")], command, slack: Duration::ZERO });
}

#[test]
fn the_shell_example_with_lease_json_keeps_the_contract() {
    let command = r#"["sh", "lease-json.sh"]"#.to_owned();
    keeps_the_contract(&Example { files: vec![source("lease-json.sh")], command, slack: Duration::ZERO });
}

#[test]
fn the_shell_example_under_lease_exec_keeps_the_contract() {
    let agent = handover_tests::fleet::Binaries::find().expect("programs").path("handover-agent");
    let command = format!(r#"["{}", "lease", "exec", "--restart", "--", "sh", "worker.sh"]"#, agent.display());
    // The signal's way, on a busy machine.
    keeps_the_contract(&Example { files: vec![source("worker.sh")], command, slack: Duration::from_millis(300) });
}

#[test]
fn the_rust_example_needs_nothing_but_the_standard_library_and_keeps_the_contract() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = dir.path().join("service");
    let compiled =
        Command::new("rustc").args(["--edition", "2024", "-o"]).arg(&program).arg(source("service.rs")).output();
    let compiled = compiled.expect("rustc");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let command = r#"["./service"]"#.to_owned();
    keeps_the_contract(&Example { files: vec![program], command, slack: Duration::ZERO });
}
