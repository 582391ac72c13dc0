//! One host with two slots, without a coordinator: assignments are written into the store as a coordinator would.

mod config;
mod orders;
mod watch;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use handover_proto::assignment::{AtDeadline, DrainPolicy};
use handover_store::client::Store;
use nix::sys::signal::Signal;
use serde::Serialize;

pub use config::Jobs;

use crate::fleet::{Binaries, Process, free_ports, processes_of};

/// The versions in the two slots.
const VERSIONS: [&str; 2] = ["1.0.0", "1.1.0"];
const SLOTS: [&str; 2] = ["a", "b"];
/// A gate that was replaced says so.
const LEAVES: &str = "gate leaves";
/// Anything is done in this time.
const DONE: Duration = Duration::from_secs(45);
/// Work that never ends by itself, streams of events for example, is ended by the instance when it is told to stop after this.
const DRAIN: DrainPolicy = DrainPolicy { deadline_ms: 2000, at_deadline: AtDeadline::Cut, over_all: false };

/// How an agent is ended before it is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// By SIGTERM.
    Told,
    /// By SIGKILL.
    Killed,
    /// By SIGTERM; the next one is a program at another path.
    Upgraded,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Told => "told to stop and started again",
            Self::Killed => "killed and started again",
            Self::Upgraded => "replaced by another program",
        })
    }
}

/// The host.
pub struct Site {
    dir: PathBuf,
    _temporary: tempfile::TempDir,
    binaries: Binaries,
    runtime: tokio::runtime::Runtime,
    store: Store,
    /// Where clients connect.
    pub gate: SocketAddr,
    operations: SocketAddr,
    config: PathBuf,
    processes: Processes,
    /// The agent's program: an upgrade puts another one in its place.
    program: PathBuf,
    upgrades: usize,
    /// How often the gate was taken over.
    gates: usize,
    /// Which of the two has the traffic.
    serving: usize,
    /// Whether the other one runs.
    both: bool,
    serial: i64,
    drain: DrainPolicy,
}

struct Processes {
    _store: Process,
    gate: Process,
    older: Vec<Process>,
    agent: Process,
}

impl Site {
    /// Starts everything, with all traffic at the first instance and the second one ready. `gate`: further lines of the
    /// gate's table.
    ///
    /// # Errors
    /// If something does not come up.
    pub fn start(gate: &str, jobs: Jobs) -> Result<Self> {
        let temporary = tempfile::Builder::new().prefix("handover-switch-").tempdir()?;
        let (dir, binaries, ports) = (temporary.path().to_owned(), Binaries::find()?, free_ports(6)?);
        let at = |index: usize| SocketAddr::from(([127, 0, 0, 1], ports[index]));
        for version in VERSIONS {
            config::install(&binaries, &dir, version)?;
        }
        let path = config::write(&dir, gate, jobs, &ports)?;
        let store_args = ["store", "--data", &dir.join("store").display().to_string(), "--listen", &at(5).to_string()];
        let store = Process::spawn("store", &binaries.path("handover"), &store_args.map(str::to_owned), &dir, &[])?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let program = binaries.path("handover-agent");
        let gate_process = gate_of(&program, &path, &dir, 0, &[])?;
        let agent = agent_of(&program, &path, &dir)?;
        let processes = Processes { _store: store, gate: gate_process, older: Vec::new(), agent };
        let mut site = Self {
            dir,
            _temporary: temporary,
            binaries,
            store: Store::connect(&[at(5).to_string()])?,
            runtime,
            gate: at(0),
            operations: at(2),
            config: path,
            processes,
            program,
            upgrades: 0,
            gates: 0,
            serving: 0,
            both: true,
            serial: 0,
            drain: DRAIN,
        };
        site.assign()?;
        site.settled()?;
        Ok(site)
    }

    /// Where everything lies, the logs under `log`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ends the agent, and starts it again.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn restart_agent(&mut self, end: End) -> Result<()> {
        let agent = &mut self.processes.agent;
        match end {
            End::Killed => agent.kill()?,
            End::Told | End::Upgraded => {
                agent.signal(Signal::SIGTERM)?;
                agent.wait()?;
            }
        }
        if end == End::Upgraded {
            self.upgrades += 1;
            self.program = self.dir.join(format!("handover-agent-{}", self.upgrades));
            std::fs::copy(self.binaries.path("handover-agent"), &self.program)?;
        }
        self.processes.agent = agent_of(&self.program, &self.config, &self.dir)?;
        Ok(())
    }

    /// Starts a second gate, which takes the listener over. The first one goes on with what it has, and may outlive many more.
    ///
    /// # Errors
    /// If the second one does not come up, or the first one does not leave.
    pub fn take_the_gate_over(&mut self) -> Result<()> {
        self.gates += 1;
        let mut fresh = gate_of(&self.program, &self.config, &self.dir, self.gates, &["--replace"])?;
        let end = Instant::now() + DONE;
        while !(self.processes.gate.output().contains(LEAVES) || self.processes.gate.has_ended()) {
            if fresh.has_ended() {
                bail!("the second gate ended, and did not take over:\n{}", tail(&fresh));
            }
            if Instant::now() >= end {
                bail!("the first gate does not leave:\n{}", tail(&self.processes.gate));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.processes.older.push(std::mem::replace(&mut self.processes.gate, fresh));
        self.processes.older.retain_mut(|gate| !gate.has_ended());
        Ok(())
    }

    /// Gates that were replaced and still have something in hand.
    pub fn older_gates(&mut self) -> usize {
        self.processes.older.retain_mut(|gate| !gate.has_ended());
        self.processes.older.len()
    }

    /// Kills the gate, and starts it again: what was in flight is lost.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn kill_gate(&mut self) -> Result<()> {
        self.processes.gate.kill()?;
        self.processes.gate = gate_of(&self.program, &self.config, &self.dir, self.gates, &[])?;
        Ok(())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("FLEET_KEEP").is_some() {
            self._temporary.disable_cleanup(true);
            eprintln!("the logs are kept in {}", self.dir.display());
        }
        for _ in 0..200 {
            let left = processes_of(&self.dir);
            if left.is_empty() {
                return;
            }
            for pid in left {
                let _ended_already = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
            }
            let Processes { _store: store, gate, older, agent } = &mut self.processes;
            older.iter_mut().chain([store, gate, agent]).for_each(Process::reap);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn agent_of(program: &Path, config: &Path, dir: &Path) -> Result<Process> {
    let args = ["run", "--config", &config.display().to_string()].map(str::to_owned);
    Process::spawn("agent", program, &args, dir, &[("HANDOVER_LOG", "info".to_owned())])
}

fn gate_of(program: &Path, config: &Path, dir: &Path, number: usize, more: &[&str]) -> Result<Process> {
    let config = config.display().to_string();
    let args: Vec<_> = ["gate", "--config", &config].iter().chain(more).map(|arg| (*arg).to_owned()).collect();
    let env = [("HANDOVER_LOG", std::env::var("SWITCH_GATE_LOG").unwrap_or_else(|_| "info".to_owned()))];
    Process::spawn(&format!("gate-{number}"), program, &args, dir, &env).context("starting the gate")
}

fn tail(process: &Process) -> String {
    let output = process.output();
    let lines: Vec<_> = output.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
