//! A fleet of booted hosts: agent and gate of each are units, and so are the slots of the demo service. Store and
//! coordinator run beside us, on the same bridge.
#![allow(clippy::expect_used, reason = "for tests, which have nothing else to do then")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use handover_proto::ids::Env;
use handover_proto::peer::{PeerName, Role};
use serde_json::Value;

use super::{Booted, BootedHost};
use crate::fleet::{Binaries, Process, Spec, variables};
use crate::pki::{Pki, Subject};

/// How long anything may take on two busy cores.
const LIMIT: Duration = Duration::from_secs(40);

/// Waits for a condition of another system.
///
/// # Panics
/// If it does not come.
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The service's template unit; everything of an instance comes from its slot's variables.
const UNIT: &str = "[Service]
Type=notify
EnvironmentFile=/run/handover/billing/slots/%i.env
ExecStart=/builds/billing/current@%i/billing --version-name ${HANDOVER_VERSION} --port ${PORT} --ledger /srv/site/ledger.db \
  --activity /srv/site/activity-%H.jsonl --lease-socket /run/handover/billing/lease.sock \
  --behaviour /builds/billing/current@%i/behaviour.toml
Restart=no
TimeoutStartSec=4s
TimeoutStopSec=20s
";

/// The fleet. Dropping it ends store, coordinator and hosts.
pub struct Site {
    /// Its hosts.
    pub hosts: Booted,
    coordinator: Process,
    etcd: Process,
    tls: Vec<(&'static str, String)>,
}

impl Drop for Site {
    fn drop(&mut self) {
        for process in [&mut self.coordinator, &mut self.etcd] {
            let _ended_already = process.kill();
        }
    }
}

/// Where etcd is.
pub const STORE: &str = "10.88.0.254:2379";
const COORDINATOR: &str = "127.0.0.1:2791";

impl Site {
    /// So many hosts that serve 1.0.0; none if hosts cannot be booted here.
    pub fn serving(hosts: u8) -> Option<Self> {
        let site = Self::start(hosts)?;
        site.bring_up();
        Some(site)
    }

    /// Starts gates and agents, and rolls 1.0.0 out.
    pub fn bring_up(&self) {
        self.install("1.0.0", "");
        self.begin("billing");
        let (code, said) = self.roll(&self.spec("1.0.0"));
        assert_eq!(code, 0, "bring-up: {said}{}", self.logs());
    }

    /// Starts gates and agents of a service, and waits for them.
    pub fn begin(&self, service: &str) {
        for host in self.hosts.hosts() {
            let units = ["handover-gate", "handover-agent"].map(|unit| format!("{unit}@{service}"));
            host.must(&["systemctl", "start", &units[0], &units[1]]).expect("started");
        }
        until("every agent to be heard, with its gate", || {
            let rows = self.rows();
            rows.len() == self.hosts.hosts().len() && rows.iter().all(|row| row["alive"] == true && row["gate"] == true)
        });
    }

    /// Hosts, store and coordinator, and everything installed; nothing of ours runs on the hosts yet.
    pub fn start(hosts: u8) -> Option<Self> {
        let hosts = Booted::or_skip(hosts)?;
        let dir = hosts.shared().to_owned();
        let pki = Pki::new(&dir.join("pki")).expect("a pki");
        let env: Env = "demo".parse().expect("env");
        let issue = |file: &str, role| {
            pki.issue(file, &Subject::named(file).uri(PeerName::new(&env, role))).expect("a certificate")
        };
        let operator = issue("alice", Role::Operator("alice".parse().expect("a name")));
        let only_ours = |files: &_| variables(files).into_iter().filter(|(name, _)| name.starts_with("HANDOVER_TLS"));
        let etcd = std::env::var_os("HANDOVER_TEST_ETCD").map_or_else(|| PathBuf::from("etcd"), PathBuf::from);
        let url = format!("http://{STORE}");
        let args = ["--data-dir", &dir.join("etcd").display().to_string(), "--listen-client-urls", &url];
        let args =
            [&args[..], &["--advertise-client-urls", &url, "--listen-peer-urls", "http://127.0.0.1:2380"]].concat();
        let etcd = Process::spawn("etcd", &etcd, &args.map_strings(), &dir, &[]).expect("etcd");
        let data = dir.join("coordinator").display().to_string();
        let args = ["--env", "demo", "--store", STORE, "serve", "--listen", COORDINATOR, "--data", &data];
        let program = Binaries::find().expect("programs").path("handover");
        let tls: Vec<_> = only_ours(&issue("coordinator", Role::Coordinator)).collect();
        let coordinator =
            Process::spawn("coordinator", &program, &args.map_strings(), &dir, &tls).expect("a coordinator");
        let site = Self { hosts, coordinator, etcd, tls: only_ours(&operator).collect() };
        for host in site.hosts.hosts() {
            issue(&host.name(), Role::Agent(host.name().parse().expect("a name")));
            host.put("/etc/handover/billing.toml", &config(host, "")).expect("written");
            host.put("/etc/systemd/system/billing@.service", UNIT).expect("written");
            host.must(&["systemctl", "daemon-reload"]).expect("reloaded");
        }
        Some(site)
    }

    /// Installs a version on every host.
    pub fn install(&self, version: &str, behaviour: &str) {
        for host in self.hosts.hosts() {
            let dir = format!("/builds/billing/{version}");
            host.put(&format!("{dir}/behaviour.toml"), behaviour).expect("written");
            host.must(&["ln", "-sfn", "/usr/bin/billing", &format!("{dir}/billing")]).expect("linked");
        }
    }

    /// Where clients connect.
    pub fn gates(&self) -> Vec<SocketAddr> {
        self.hosts.hosts().iter().map(|host| SocketAddr::new(host.address(), 8080)).collect()
    }

    /// A quick rollout; one host may be without, if there are more.
    pub fn spec(&self, version: &str) -> Spec {
        let min_serving = (self.hosts.hosts().len() - 1).max(1);
        Spec { min_serving, shift: &["100%"], ..Spec::to(version) }
    }

    /// Runs the command line: its exit code, and all that it said.
    pub fn cli(&self, args: &[&str]) -> (i32, String) {
        let mut command = Command::new(Binaries::find().expect("programs").path("handover"));
        command.args(["--env", "demo", "--store", STORE, "--coordinator", COORDINATOR]).args(args).stdin(Stdio::null());
        let tls = self.tls.iter().map(|(name, value)| (*name, value.clone()));
        let done = command.env("NO_COLOR", "1").envs(tls).output().expect("a command");
        let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
        (done.status.code().unwrap_or(-1), said)
    }

    /// Rolls out, to the end.
    pub fn roll(&self, spec: &Spec) -> (i32, String) {
        self.roll_text(&spec.text())
    }

    /// The same with a spec as an operator writes it.
    pub fn roll_text(&self, spec: &str) -> (i32, String) {
        let file = self.hosts.shared().join("upgrade.toml");
        std::fs::write(&file, spec).expect("written");
        self.cli(&["--timeout", "90s", "rollout", "start", &file.display().to_string()])
    }

    /// The rollout and the fleet; null while nobody answers.
    pub fn status(&self) -> Value {
        let (_, said) = self.cli(&["--json", "rollout", "status"]);
        said.lines().find_map(|line| serde_json::from_str(line).ok()).unwrap_or_default()
    }

    /// One row per instance, or per empty host.
    pub fn rows(&self) -> Vec<Value> {
        self.status()["fleet"].as_array().cloned().unwrap_or_default()
    }

    /// How many hosts serve this version.
    pub fn serving_count(&self, version: &str) -> usize {
        let serves =
            |row: &&Value| row["version"] == version && row["reads"].as_u64() > Some(0) && row["alive"] == true;
        self.rows().iter().filter(serves).count()
    }

    /// The agents' last words, for a failure.
    pub fn logs(&self) -> String {
        let log = |host: &BootedHost| host.journal("handover-agent@billing").unwrap_or_default();
        self.hosts.hosts().iter().map(|host| format!("\n--- {}\n{}", host.name(), log(host))).collect()
    }
}

/// The agent's config; `more` stands at its end.
pub fn config(host: &BootedHost, more: &str) -> String {
    let (name, address) = (host.name(), host.address());
    let pki = "/srv/site/pki";
    format!(
        r#"agent = "{name}"
service = "billing"
env = "demo"
listen = "{address}:7301"
operations = "127.0.0.1:7302"
state_dir = "/var/lib/handover/billing"
runtime_dir = "/run/handover/billing"
store = ["{STORE}"]
tls = {{ ca = "{pki}/ca.pem", cert = "{pki}/{name}.pem", key = "{pki}/{name}.key" }}

[gate]
mode = "proxy"
listen = "{address}:8080"
tag_responses = true

[driver]
kind = "systemd"
unit = "billing@{{slot}}.service"
builds = "/builds/billing"
grace = "5s"
env = {{ PORT = "{{port}}" }}

[[probe]]
name = "ready"
http = {{ path = "/ready", field = "ok", equals = true }}
affects = "ready"
interval = "200ms"
timeout = "150ms"
rise = 1
fall = 3

[lease]
c_unit = "500ms"
c_kill = "2s"

[[slot]]
name = "a"
port = 8081

[[slot]]
name = "b"
port = 8082
{more}"#
    )
}

trait MapStrings {
    fn map_strings(&self) -> Vec<String>;
}

impl MapStrings for [&str] {
    fn map_strings(&self) -> Vec<String> {
        self.iter().map(|word| (*word).to_owned()).collect()
    }
}
