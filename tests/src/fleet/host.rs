//! One host of the fleet: its names, ports, config file and processes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Fleet, Process};

/// Ports that a host needs.
pub(super) const PORTS: usize = 6;

/// One host.
pub struct Host {
    /// Its agent's name.
    pub name: String,
    /// The agent's config file.
    pub config: PathBuf,
    /// The agent's state directory.
    pub state_dir: PathBuf,
    /// The agent's runtime directory.
    pub runtime_dir: PathBuf,
    /// Where clients connect.
    pub gate_listen: SocketAddr,
    /// The agent's gRPC surface.
    pub agent_listen: SocketAddr,
    /// The agent's operations port.
    pub operations: SocketAddr,
    /// Where the instances of slots a and b listen.
    pub slots: [SocketAddr; 2],
    /// A port for HAProxy's agent-check.
    pub check: SocketAddr,
    /// Its versions; all hosts share them, unless each stages its own.
    pub builds: PathBuf,
    /// The gate, while it runs.
    pub gate: Option<Process>,
    /// The agent, while it runs.
    pub agent: Option<Process>,
}

impl Host {
    /// Writes the config of host `number`.
    pub(super) fn new(fleet: &Fleet, number: usize, ports: &[u16]) -> Result<Self> {
        let name = format!("app-{:02}", number + 1);
        let dir = fleet.dir.join(&name);
        // Behind a balancer each host has an address of its own, and all have the same ports, as hosts have.
        let behind = !fleet.options.balancer.is_empty();
        let own = [127, 0, 1, u8::try_from(number + 1)?];
        let shared = fleet.hosts.first().filter(|_| behind);
        let ip = if behind { own } else { [127, 0, 0, 1] };
        let address = |index: usize| SocketAddr::from((ip, ports[index]));
        let slot = |index: usize| SocketAddr::from(([127, 0, 0, 1], ports[index]));
        let like = |index: usize, of: fn(&Self) -> SocketAddr| {
            shared.map_or_else(|| address(index), |first| SocketAddr::from((ip, of(first).port())))
        };
        let host = Self {
            config: dir.join("agent.toml"),
            state_dir: dir.join("state"),
            runtime_dir: dir.join("run"),
            gate_listen: like(0, |first| first.gate_listen),
            agent_listen: address(1),
            operations: like(2, |first| first.operations),
            slots: [slot(3), slot(4)],
            check: like(5, |first| first.check),
            builds: if fleet.options.artifact.is_empty() { fleet.builds() } else { dir.join("builds") },
            gate: None,
            agent: None,
            name,
        };
        std::fs::create_dir_all(&dir)?;
        let (store, tls) = match &fleet.secure {
            Some(secure) => secure.of_agent(&host.name)?,
            None => (format!("{:?}", fleet.stores()), String::new()),
        };
        std::fs::write(&host.config, host.text(fleet, &store, &tls))?;
        Ok(host)
    }

    /// The agent's own report, from its operations port.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn status(&self) -> Result<Value> {
        let answer = self.get("/status")?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no end of the head")?;
        Ok(serde_json::from_str(body)?)
    }

    /// Asks the operations port; the answer is whole, head and body.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.operations)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn gate_text(&self, fleet: &Fleet) -> String {
        match fleet.options.signal {
            true => "mode = \"signal\"".to_owned(),
            false => format!(
                "mode = \"proxy\"\nlisten = \"{}\"\ntag_responses = true\nhold.time = \"{}\"",
                self.gate_listen, fleet.options.hold
            ),
        }
    }

    fn driver_text(&self, fleet: &Fleet) -> String {
        if !fleet.options.driver.is_empty() {
            return fleet.options.driver.clone();
        }
        format!(
            r#"[driver]
kind = "process"
builds = "{builds}"
command = [
  "{{builds}}/{{version}}/billing", "--version-name", "{{version}}", "--port", "{{port}}",
  "--ledger", "{ledger}", "--activity", "{activity}", "--lease-socket", "{run}/lease.sock",
  "--behaviour", "{{builds}}/{{version}}/behaviour.toml",
]
grace = "{grace}"

[lease]
c_unit = "500ms"
# Test machines are busy, and a kill must take half of this at most.
c_kill = "2s"
"#,
            builds = self.builds.display(),
            ledger = fleet.ledger(),
            activity = fleet.activity().display(),
            run = self.runtime_dir.display(),
            grace = fleet.options.grace,
        )
    }

    fn text(&self, fleet: &Fleet, store: &str, tls: &str) -> String {
        let balancer = fleet.options.balancer.replace("{name}", &self.name);
        let artifact = fleet.options.artifact.replace("{name}", &self.name);
        let (state, run) = (self.state_dir.display(), self.runtime_dir.display());
        format!(
            r#"agent = "{name}"
service = "billing"
env = "demo"
listen = "{listen}"
operations = "{operations}"
host = "{name}.example"
state_dir = "{state}"
runtime_dir = "{run}"
store = {store}
{tls}

[gate]
{gate}

{balancer}

{driver}

{artifact}

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

[[probe]]
name = "lease"
http = {{ path = "/ready", field = "lease", equals = "single-holder" }}
affects = "report"
interval = "1s"
timeout = "500ms"

[[slot]]
name = "a"
port = {port_a}

[[slot]]
name = "b"
port = {port_b}
"#,
            name = self.name,
            listen = self.agent_listen,
            operations = self.operations,
            gate = self.gate_text(fleet),
            balancer = balancer.replace("{check}", &self.check.to_string()),
            port_a = self.slots[0].port(),
            port_b = self.slots[1].port(),
            driver = self.driver_text(fleet),
        )
    }
}
