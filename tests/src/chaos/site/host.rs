//! A host with a gate, an agent and the demo service.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::launch;
use super::net::Spot;
use crate::chaos::nemesis::clock;
use crate::chaos::wire::{self, Shape};
use crate::clock::BootNs;
use crate::fleet::{Binaries, Process};

/// Ports are the same on every host: each has a network of its own.
const GATE: u16 = 8080;
const AGENT: u16 = 7101;
const OPERATIONS: u16 = 7102;
/// The first of as many as there are members.
const WIRE: usize = 12_379;
/// An answer takes milliseconds, unless somebody is stopped.
const LIMIT: Duration = Duration::from_millis(500);

/// What all hosts share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Where everything of the site lies.
    pub dir: PathBuf,
    /// The programs.
    pub binaries: Binaries,
    /// The agent's program.
    pub agent: PathBuf,
    /// The ledger, as billing takes it.
    pub ledger: String,
    /// Variables for agents and what they start.
    pub env: Vec<(String, String)>,
    /// Wall clocks of hosts can be moved.
    pub clocks: bool,
    /// How every service behaves, whatever else is wrong with it.
    pub behaviour: String,
    /// More of every agent's `[lease]`.
    pub lease: String,
}

/// One host.
#[derive(Debug)]
pub struct Host {
    /// Where it runs.
    pub spot: Spot,
    /// Its agent's state.
    pub state_dir: PathBuf,
    /// The agent's runtime directory.
    pub runtime_dir: PathBuf,
    /// Where clients connect.
    pub gate_listen: SocketAddr,
    /// The agent's operations port.
    pub operations: SocketAddr,
    /// The gate, while it runs.
    pub gate: Option<Process>,
    /// The agent, while it runs.
    pub agent: Option<Process>,
    /// The relay that its way to etcd goes through, if there is one.
    pub wire: Option<Process>,
    config: PathBuf,
}

impl Host {
    /// Writes the config of a host that finds its store at `store`. With TLS its agent is reached from other hosts; without, by
    /// itself alone.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn new(shared: &Shared, spot: Spot, store: &[String], tls: Option<&str>) -> Result<Self> {
        let dir = shared.dir.join(&spot.name);
        let host = Self {
            config: dir.join("agent.toml"),
            state_dir: dir.join("state"),
            runtime_dir: dir.join("run"),
            gate_listen: (spot.ip, GATE).into(),
            operations: (spot.ip, OPERATIONS).into(),
            gate: None,
            agent: None,
            wire: None,
            spot,
        };
        std::fs::create_dir_all(&host.runtime_dir)?;
        std::fs::write(&host.config, host.text(shared, store, tls))?;
        host.behave(shared, "")?;
        std::fs::write(host.clock_file(), "+0\n")?;
        Ok(host)
    }

    /// By how much the host's wall clock is wrong; libfaketime reads it.
    pub fn clock_file(&self) -> PathBuf {
        self.state_dir.with_file_name("clock")
    }

    fn shape_file(&self) -> PathBuf {
        self.state_dir.with_file_name("wire.json")
    }

    /// Shapes the way to etcd from now on.
    ///
    /// # Errors
    /// If there is none that can be shaped.
    pub fn shape_wires(&self, shape: &Shape) -> Result<()> {
        self.wire.as_ref().with_context(|| format!("{} has no wires that can be bent", self.spot.name))?;
        let (new, file) = (self.shape_file().with_extension("new"), self.shape_file());
        std::fs::write(&new, serde_json::to_string(shape)?)?;
        std::fs::rename(&new, &file).with_context(|| format!("cannot write {}", file.display()))
    }

    /// When its wire to this member was last dialled, if ever.
    pub fn last_dial(&self, member: usize) -> Option<BootNs> {
        let noted = std::fs::read_to_string(wire::dials(&self.shape_file())).ok()?;
        let dials = noted.lines().rev().filter_map(|line| line.split_once(' '));
        let mut of_member = dials.filter(|(number, _)| *number == member.to_string());
        of_member.find_map(|(_, at)| at.parse().ok().map(BootNs))
    }

    /// Puts a relay before each member of the store.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_wire(&mut self, shared: &Shared, members: &[String]) -> Result<()> {
        let mut args = vec!["wire".to_owned(), "--shape".into(), self.shape_file().display().to_string()];
        for (near, far) in wires(members.len()).into_iter().zip(members) {
            args.push(format!("{near}={}", far.trim_start_matches("http://")));
        }
        let (name, program) = (format!("{}-wire", self.spot.name), std::env::current_exe()?);
        self.wire = Some(launch(&self.spot, &name, &program, args, &shared.dir, &[])?);
        Ok(())
    }

    /// Makes its service behave as the text says, from now on (`billing/faults.rs`).
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn behave(&self, shared: &Shared, text: &str) -> Result<()> {
        let (new, file) = (self.runtime_dir.join("behaviour.new"), self.behaviour());
        std::fs::write(&new, format!("{}\n{text}", shared.behaviour))?;
        std::fs::rename(&new, &file).with_context(|| format!("cannot write {}", file.display()))
    }

    fn behaviour(&self) -> PathBuf {
        self.runtime_dir.join("behaviour.toml")
    }

    /// Starts its gate.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_gate(&mut self, shared: &Shared) -> Result<()> {
        self.gate = Some(self.start(shared, "gate", "gate", &[])?);
        Ok(())
    }

    /// Starts its agent, with these variables more.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_agent(&mut self, shared: &Shared, env: &[(String, String)]) -> Result<()> {
        self.agent = Some(self.start(shared, "agent", "run", env)?);
        Ok(())
    }

    fn start(&self, shared: &Shared, what: &str, word: &str, env: &[(String, String)]) -> Result<Process> {
        let args = vec![word.to_owned(), "--config".into(), self.config.display().to_string()];
        let clock = if shared.clocks { clock::env(&self.clock_file()) } else { Vec::new() };
        let env: Vec<_> =
            shared.env.iter().chain(&clock).chain(env).map(|(name, value)| (name.as_str(), value.clone())).collect();
        launch(&self.spot, &format!("{}-{what}", self.spot.name), &shared.agent, args, &shared.dir, &env)
    }

    /// The process of the service's instance, by the agent's state file.
    pub fn app(&self) -> Option<i32> {
        app_of(&self.state_dir.join("agent.json"))
    }

    fn text(&self, shared: &Shared, store: &[String], tls: Option<&str>) -> String {
        let run = self.runtime_dir.display();
        let ip = if tls.is_some() { self.spot.ip } else { Ipv4Addr::LOCALHOST };
        format!(
            r#"agent = "{name}"
service = "billing"
env = "demo"
listen = "{listen}"
operations = "{operations}"
host = "{name}"
state_dir = "{state}"
runtime_dir = "{run}"
store = {store:?}
{tls}

[gate]
mode = "proxy"
listen = "{gate}"
tag_responses = true

[driver]
kind = "process"
builds = "{builds}"
command = [
  "{{builds}}/{{version}}/billing", "--version-name", "{{version}}", "--port", "{{port}}",
  "--ledger", "{ledger}", "--activity", "{activity}", "--lease-socket", "{run}/lease.sock",
  "--behaviour", "{behaviour}",
]
grace = "2s"

[[probe]]
name = "health"
http = {{ path = "/health" }}
affects = "live"
interval = "1s"
timeout = "500ms"

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
{lease}

[[slot]]
name = "a"
port = 9001

[[slot]]
name = "b"
port = 9002
"#,
            name = self.spot.name,
            listen = SocketAddr::from((ip, AGENT)),
            tls = tls.unwrap_or_default(),
            operations = self.operations,
            state = self.state_dir.display(),
            gate = self.gate_listen,
            builds = shared.dir.join("builds").display(),
            ledger = shared.ledger,
            lease = shared.lease,
            activity = shared.dir.join("activity.jsonl").display(),
            behaviour = self.behaviour().display(),
        )
    }
}

/// An agent's own report, from its operations port.
///
/// # Errors
/// If it does not answer at once.
pub fn ask(operations: SocketAddr) -> Result<Value> {
    let answer = get(operations, "/status")?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no end of the head")?;
    Ok(serde_json::from_str(body)?)
}

fn get(from: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&from, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Where an agent finds its store if there are wires: addresses on its own loopback.
pub fn wires(members: usize) -> Vec<String> {
    (0..members).map(|member| format!("127.0.0.1:{}", WIRE + member)).collect()
}

fn app_of(state: &Path) -> Option<i32> {
    let text = std::fs::read_to_string(state).ok()?;
    // Its first line is a check sum.
    let (_, state) = text.split_once('\n')?;
    pid_in(&serde_json::from_str(state).ok()?)
}

/// The state file's form is the agent's own; the pid is the only one in it.
fn pid_in(value: &Value) -> Option<i32> {
    match value {
        Value::Object(fields) => {
            let own = fields.get("pid").and_then(Value::as_i64).and_then(|pid| i32::try_from(pid).ok());
            own.or_else(|| fields.values().find_map(pid_in))
        }
        Value::Array(items) => items.iter().find_map(pid_in),
        _ => None,
    }
}
