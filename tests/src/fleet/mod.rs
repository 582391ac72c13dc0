//! A whole fleet on this machine: store, coordinator, and per host a gate, an agent and the demo service, each a process
//! of its own on loopback. Dropping it ends every process of it.

mod binaries;
mod cli;
mod end;
mod etcd;
mod host;
mod ports;
mod process;
mod secure;
mod spec;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::billing::ledger::LedgerAt;

pub use binaries::{Binaries, build};
pub use cli::{Cli, Outcome};
pub use host::Host;
pub use ports::free_ports;
pub use process::{Process, processes_of};
pub use secure::{Secure, variables};
pub use spec::Spec;

/// Which store the fleet uses.
#[derive(Debug, Clone)]
pub enum StoreKind {
    /// The one that the coordinator starts beside itself.
    Embedded,
    /// A real etcd member of this program, started by the fleet.
    Etcd(PathBuf),
    /// Three of them.
    Cluster(PathBuf),
    /// Three of them with roles, and mutual TLS everywhere, also between our own programs.
    Secure(PathBuf),
}

impl StoreKind {
    fn members(&self) -> usize {
        match self {
            Self::Embedded => 0,
            Self::Etcd(_) => 1,
            Self::Cluster(_) => 3,
            // Those choose their own ports.
            Self::Secure(_) => 0,
        }
    }
}

/// What a fleet is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many hosts.
    pub hosts: usize,
    /// The store.
    pub store: StoreKind,
    /// Filters of the programs' logs.
    pub log: String,
    /// Between SIGTERM and SIGKILL.
    pub grace: String,
    /// `gate.hold.time`.
    pub hold: String,
    /// No gates: balancers send straight to the instances.
    pub signal: bool,
    /// `[balancer]` of every host, with `{name}` for the host's and `{check}` for an address of its own.
    pub balancer: String,
    /// `[artifact]` of every host, with `{name}` for the host's; with it each host has builds of its own.
    pub artifact: String,
    /// `[driver]` and `[lease]` of every host; empty: the agents run the demo service themselves.
    pub driver: String,
    /// Where the demo service keeps its ledger; none: a SQLite file in the fleet's directory.
    pub ledger: Option<LedgerAt>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hosts: 3,
            store: StoreKind::Embedded,
            log: "info".into(),
            grace: "5s".into(),
            hold: "10s".into(),
            signal: false,
            balancer: String::new(),
            artifact: String::new(),
            driver: String::new(),
            ledger: None,
        }
    }
}

/// A running fleet.
pub struct Fleet {
    dir: PathBuf,
    _temporary: Option<tempfile::TempDir>,
    binaries: Binaries,
    options: Options,
    /// The hosts, in order of their names.
    pub hosts: Vec<Host>,
    /// The coordinators that were started; usually one.
    pub coordinators: Vec<Process>,
    /// The etcd members, if there are any.
    pub etcd: Vec<Process>,
    /// What only a fleet with TLS has.
    pub secure: Option<Secure>,
    coordinator: SocketAddr,
    stores: Vec<SocketAddr>,
    keep: bool,
    /// Something was waited for that did not come.
    failed: AtomicBool,
}

/// The environment of every fleet.
const ENV: &str = "demo";

/// How long anything may take to come up.
pub const START: Duration = Duration::from_secs(20);

impl Fleet {
    /// Starts a fleet in a directory of its own, without any version of the service running yet.
    ///
    /// # Errors
    /// If a program is missing or does not come up; its log is named.
    pub fn start(options: Options) -> Result<Self> {
        let temporary = tempfile::Builder::new().prefix("handover-").tempdir().context("cannot make a directory")?;
        let mut fleet = Self::start_in(temporary.path().to_owned(), options)?;
        fleet._temporary = Some(temporary);
        Ok(fleet)
    }

    /// Starts a fleet in this directory, which must be empty.
    ///
    /// # Errors
    /// As [`Fleet::start`].
    pub fn start_in(dir: PathBuf, options: Options) -> Result<Self> {
        let binaries = Binaries::find()?;
        let members = options.store.members().max(1);
        let ports = free_ports(1 + 2 * members + options.hosts * host::PORTS)?;
        let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let mut fleet = Self {
            dir,
            _temporary: None,
            binaries,
            hosts: Vec::new(),
            coordinators: Vec::new(),
            etcd: Vec::new(),
            secure: None,
            coordinator: address(ports[0]),
            stores: ports[1..=members].iter().copied().map(address).collect(),
            options,
            keep: false,
            failed: AtomicBool::new(false),
        };
        let peers = ports[1 + members..][..members].iter().copied().map(address);
        fleet.start_etcd(peers)?;
        if let StoreKind::Secure(program) = &fleet.options.store {
            let secure = Secure::start(&fleet.dir, program, ENV, &fleet.binaries)?;
            fleet.stores = secure.cluster.addresses().to_vec();
            fleet.secure = Some(secure);
        }
        fleet.start_coordinator()?;
        for number in 0..fleet.options.hosts {
            let ports = &ports[1 + 2 * members + number * host::PORTS..][..host::PORTS];
            let host = Host::new(&fleet, number, ports)?;
            fleet.hosts.push(host);
        }
        for index in 0..fleet.hosts.len() {
            if !fleet.options.signal {
                fleet.start_gate(index)?;
            }
            fleet.start_agent(index)?;
        }
        fleet.wait_for("every agent to be heard, with its gate", |fleet| {
            let status = fleet.cli().status()?;
            let rows = status["fleet"].as_array().cloned().unwrap_or_default();
            let up = rows.iter().filter(|row| row["alive"] == true && row["gate"] == true).count();
            Ok(rows.len() == up && up >= fleet.hosts.len())
        })?;
        Ok(fleet)
    }

    /// Where everything of the fleet lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The coordinator's address.
    pub fn coordinator(&self) -> SocketAddr {
        self.coordinator
    }

    /// The addresses of the store's members.
    pub fn stores(&self) -> Vec<String> {
        self.stores.iter().map(SocketAddr::to_string).collect()
    }

    /// The programs.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// Where clients connect: one gate per host.
    pub fn gates(&self) -> Vec<SocketAddr> {
        self.hosts.iter().map(|host| host.gate_listen).collect()
    }

    /// The billing ledger that all instances share.
    pub fn ledger(&self) -> LedgerAt {
        self.options.ledger.clone().unwrap_or_else(|| self.dir.join("ledger.db").into())
    }

    /// Where instances write what they did when.
    pub fn activity(&self) -> PathBuf {
        self.dir.join("activity.jsonl")
    }

    /// The command line, pointed at this fleet.
    pub fn cli(&self) -> Cli<'_> {
        Cli::new(self)
    }

    /// Leaves everything running when this value is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
        if let Some(temporary) = self._temporary.take() {
            drop(temporary.keep());
        }
    }

    /// Installs a version of the demo service: a directory with the program and its behaviour.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn install(&self, version: &str, behaviour: &str) -> Result<()> {
        let dir = self.builds().join(version);
        std::fs::create_dir_all(&dir)?;
        let program = dir.join("billing");
        if !program.exists() {
            std::fs::hard_link(self.binaries.path("billing"), &program)
                .or_else(|_| std::fs::copy(self.binaries.path("billing"), &program).map(drop))
                .with_context(|| format!("cannot install {}", program.display()))?;
        }
        std::fs::write(dir.join("behaviour.toml"), behaviour)?;
        Ok(())
    }

    /// The directory of all versions.
    pub fn builds(&self) -> PathBuf {
        self.dir.join("builds/billing")
    }

    /// Starts one more coordinator; the first one starts the embedded store.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start_coordinator(&mut self) -> Result<()> {
        self.start_coordinator_with(&[])
    }

    /// The same, with these variables set.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start_coordinator_with(&mut self, env: &[(&str, String)]) -> Result<()> {
        let mut args = vec!["--env".to_owned(), ENV.to_owned()];
        let embedded = matches!(self.options.store, StoreKind::Embedded);
        if !embedded {
            args.extend(["--store".to_owned(), self.stores().join(",")]);
        }
        args.extend(["serve", "--listen"].map(str::to_owned));
        args.extend([
            self.coordinator.to_string(),
            "--data".into(),
            self.dir.join("coordinator").display().to_string(),
        ]);
        if embedded {
            args.extend(["--store-listen".to_owned(), self.stores[0].to_string()]);
        }
        let tls = self.secure.as_ref().map(Secure::of_coordinator).unwrap_or_default();
        let process = self.spawn("coordinator", "handover", &args, &[env, &tls].concat())?;
        self.coordinators.push(process);
        let address = self.coordinator;
        self.wait_for("the coordinator to answer", |_| Ok(std::net::TcpStream::connect(address).is_ok()))
    }

    fn start_etcd(&mut self, peers: impl Iterator<Item = SocketAddr>) -> Result<()> {
        let (StoreKind::Etcd(program) | StoreKind::Cluster(program)) = self.options.store.clone() else {
            return Ok(());
        };
        let members: Vec<_> =
            self.stores.iter().zip(peers).map(|(client, peer)| etcd::Addresses { client: *client, peer }).collect();
        self.etcd = etcd::start(&program, &self.dir, &members)?;
        self.wait_for("etcd to answer", |fleet| {
            Ok(fleet.stores.iter().all(|address| std::net::TcpStream::connect(address).is_ok()))
        })
    }

    /// Starts the gate of a host.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start_gate(&mut self, index: usize) -> Result<()> {
        let (name, config) = (self.hosts[index].name.clone(), self.hosts[index].config.clone());
        let args = ["gate".to_owned(), "--config".into(), config.display().to_string()];
        self.hosts[index].gate = Some(self.spawn(&format!("{name}-gate"), "handover-agent", &args, &[])?);
        Ok(())
    }

    /// Starts a gate that takes over from the one that runs at a host, which is handed back: it ends when its last request has.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn replace_gate(&mut self, index: usize) -> Result<Option<Process>> {
        let (name, config) = (self.hosts[index].name.clone(), self.hosts[index].config.clone());
        let args = ["gate".to_owned(), "--replace".into(), "--config".into(), config.display().to_string()];
        let newer = self.spawn(&format!("{name}-gate"), "handover-agent", &args, &[])?;
        Ok(self.hosts[index].gate.replace(newer))
    }

    /// Starts the agent of a host.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start_agent(&mut self, index: usize) -> Result<()> {
        let (name, config) = (self.hosts[index].name.clone(), self.hosts[index].config.clone());
        let args = ["run".to_owned(), "--config".into(), config.display().to_string()];
        self.hosts[index].agent = Some(self.spawn(&format!("{name}-agent"), "handover-agent", &args, &[])?);
        Ok(())
    }

    fn spawn(&self, name: &str, program: &str, args: &[String], env: &[(&str, String)]) -> Result<Process> {
        let mut env = env.to_vec();
        env.push(("HANDOVER_LOG", self.options.log.clone()));
        Process::spawn(name, &self.binaries.path(program), args, &self.dir, &env)
    }

    /// Waits until the condition holds; an error of its is only reported if it never does.
    ///
    /// # Errors
    /// After [`START`], with what was waited for and where the logs are.
    pub fn wait_for(&self, what: &str, condition: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        self.wait_within(START, what, condition)
    }

    /// The same with another limit.
    ///
    /// # Errors
    /// After the limit.
    pub fn wait_within(&self, limit: Duration, what: &str, condition: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let end = Instant::now() + limit;
        loop {
            let last = match condition(self) {
                Ok(true) => return Ok(()),
                Ok(false) => None,
                Err(error) => Some(error),
            };
            if Instant::now() >= end {
                self.failed.store(true, Ordering::Relaxed);
                let why = last.map(|error| format!(" ({error:#})")).unwrap_or_default();
                bail!("waited {} s for {what}{why}; logs are in {}", limit.as_secs(), self.dir.display());
            }
            // The condition reads other processes; there is nothing to wait on but the clock.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
