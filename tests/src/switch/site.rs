//! One host with two slots, without a coordinator: assignments are written into the store as a coordinator would.

mod config;
mod watch;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use handover_proto::assignment::{
    Assignment, AtDeadline, Cause, DrainPolicy, LeaseRules, LeaseWish, Route, SlotWish, Upstream,
};
use handover_proto::ids::SlotId;
use handover_proto::keys::EnvKeys;
use handover_proto::lifecycle::Lifecycle;
use handover_proto::numbers::{Era, Term};
use handover_proto::stored::encode;
use handover_proto::txn::{Op, Txn};
use handover_store::client::Store;
use nix::sys::signal::Signal;
use serde::Serialize;

use crate::fleet::{Binaries, Process, free_ports, processes_of};

/// The versions in the two slots.
const VERSIONS: [&str; 2] = ["1.0.0", "1.1.0"];
const SLOTS: [&str; 2] = ["a", "b"];
/// Anything is done in this time.
const DONE: Duration = Duration::from_secs(45);
/// Work that never ends by itself, streams of events for example, is ended by the instance when it is told to stop after this.
const DRAIN: DrainPolicy = DrainPolicy { deadline_ms: 2000, at_deadline: AtDeadline::Cut };

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
    agent: Process,
}

impl Site {
    /// Starts everything, with all traffic at the first instance and the second one ready. `gate`: further lines of the
    /// gate's table.
    ///
    /// # Errors
    /// If something does not come up.
    pub fn start(gate: &str) -> Result<Self> {
        let temporary = tempfile::Builder::new().prefix("handover-switch-").tempdir()?;
        let (dir, binaries, ports) = (temporary.path().to_owned(), Binaries::find()?, free_ports(6)?);
        let at = |index: usize| SocketAddr::from(([127, 0, 0, 1], ports[index]));
        for version in VERSIONS {
            config::install(&binaries, &dir, version)?;
        }
        let path = config::write(&dir, gate, &ports)?;
        let store_args = ["store", "--data", &dir.join("store").display().to_string(), "--listen", &at(5).to_string()];
        let store = Process::spawn("store", &binaries.path("handover"), &store_args.map(str::to_owned), &dir, &[])?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let program = binaries.path("handover-agent");
        let processes =
            Processes { _store: store, gate: gate_of(&program, &path, &dir)?, agent: agent_of(&program, &path, &dir)? };
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

    /// From now on drains have this policy.
    pub fn set_drain(&mut self, drain: DrainPolicy) {
        self.drain = drain;
    }

    /// All traffic goes to the other instance.
    ///
    /// # Errors
    /// If the store does not take it.
    pub fn switch(&mut self) -> Result<()> {
        self.serving = 1 - self.serving;
        self.assign()
    }

    /// The instance without traffic is drained and stopped.
    ///
    /// # Errors
    /// If the store does not take it.
    pub fn stop_idle(&mut self) -> Result<()> {
        self.both = false;
        self.assign()
    }

    /// It is started again.
    ///
    /// # Errors
    /// If the store does not take it.
    pub fn start_idle(&mut self) -> Result<()> {
        self.both = true;
        self.assign()
    }

    fn assign(&mut self) -> Result<()> {
        let wish = |index: usize| {
            let lifecycle = if index == self.serving { Lifecycle::Serving } else { Lifecycle::Ready };
            Ok::<_, anyhow::Error>((
                SLOTS[index].parse::<SlotId>()?,
                SlotWish { version: VERSIONS[index].parse()?, lifecycle, lease: LeaseWish::Never },
            ))
        };
        let slots = (0..2).filter(|index| self.both || *index == self.serving).map(wish).collect::<Result<_>>()?;
        let to = Upstream::Slot(SLOTS[self.serving].parse()?);
        let assignment = Assignment {
            v: 1,
            term: Term::new(Era(0), 1)?,
            cause: Cause { rollout: None, step: 0, plan_hash: String::new() },
            slots,
            routes: vec![Route { to, reads: 100, writes: 100 }],
            drain: self.drain,
            leaving: false,
            lease: LeaseRules::default(),
            hooks: Vec::new(),
            fallback: None,
        };
        let key = EnvKeys::new(&config::ENV.parse()?).service(&"billing".parse()?).assigned(&config::AGENT.parse()?);
        let txn = Txn { then: vec![Op::put(key, encode(&assignment)?)], ..Txn::default() };
        let end = Instant::now() + DONE;
        loop {
            match self.runtime.block_on(self.store.txn(&txn)) {
                Ok(reply) => self.serial = reply.revision,
                Err(_) if Instant::now() < end => {
                    // The store is just starting.
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            return Ok(());
        }
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

    /// Starts a second gate, which takes the listener over, and waits for the first one's end.
    ///
    /// # Errors
    /// If the second one does not come up, or the first one does not go.
    pub fn take_the_gate_over(&mut self) -> Result<()> {
        let mut fresh = gate_of(&self.program, &self.config, &self.dir)?;
        let end = Instant::now() + DONE;
        while !self.processes.gate.has_ended() {
            if fresh.has_ended() {
                bail!("the second gate ended, and did not take over:\n{}", tail(&fresh));
            }
            if Instant::now() >= end {
                drop(fresh.kill());
                bail!("the first gate does not end:\n{}", tail(&self.processes.gate));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.processes.gate = fresh;
        Ok(())
    }

    /// Kills the gate, and starts it again: what was in flight is lost.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn kill_gate(&mut self) -> Result<()> {
        self.processes.gate.kill()?;
        self.processes.gate = gate_of(&self.program, &self.config, &self.dir)?;
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
            for process in [&mut self.processes._store, &mut self.processes.gate, &mut self.processes.agent] {
                process.reap();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn agent_of(program: &Path, config: &Path, dir: &Path) -> Result<Process> {
    let args = ["run", "--config", &config.display().to_string()].map(str::to_owned);
    Process::spawn("agent", program, &args, dir, &[("HANDOVER_LOG", "info".to_owned())])
}

fn gate_of(program: &Path, config: &Path, dir: &Path) -> Result<Process> {
    let args = ["gate", "--config", &config.display().to_string()].map(str::to_owned);
    let env = [("HANDOVER_LOG", std::env::var("SWITCH_GATE_LOG").unwrap_or_else(|_| "info".to_owned()))];
    Process::spawn("gate", program, &args, dir, &env).context("starting the gate")
}

fn tail(process: &Process) -> String {
    let output = process.output();
    let lines: Vec<_> = output.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
