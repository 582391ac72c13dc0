//! The site: three etcd members, three hosts with gate, agent and service, each in a network namespace of its own. The world
//! around it ([`super::sandbox`]) takes it down; here things are only started.

pub mod coordinators;
pub mod etcd;
pub mod host;
pub mod net;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::fleet::{Binaries, Process};
use crate::postgres::{Place, Postgres};
use coordinators::{Authority, Coordinators};
use etcd::Cluster;
use host::{Host, Shared};
use net::{Net, Spot};

/// How long anything may take to come up.
const START: Duration = Duration::from_secs(30);
/// The version that runs.
pub const VERSION: &str = "1.0.0";
/// The database's host.
pub const DATABASE: &str = "db";

/// What a site is made of.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Where its files go; exists.
    pub dir: PathBuf,
    /// The directory of etcd's programs.
    pub etcd: PathBuf,
    /// The directory of an agent other than the one beside this program.
    pub programs: Option<PathBuf>,
    /// Variables for agents and what they start.
    pub env: Vec<(String, String)>,
    /// How the service checks its fence: empty, or one of `billing/ledger/postgres.rs`'s mistakes, as `#key-share`.
    pub check: String,
    /// How every service behaves (`billing/faults.rs`).
    pub behaviour: String,
    /// More of every agent's `[lease]`.
    pub lease: String,
    /// Agents reach etcd through wires that can be bent (N4).
    pub wires: bool,
    /// Hosts have wall clocks that can be moved (N10).
    pub clocks: bool,
    /// There are two coordinators.
    pub coordinators: bool,
}

/// A running site.
#[derive(Debug)]
pub struct Site {
    /// What hosts share.
    pub shared: Shared,
    /// The network.
    pub net: Net,
    /// The store.
    pub etcd: Cluster,
    /// The database.
    pub database: Postgres,
    /// The hosts.
    pub hosts: Vec<Host>,
    /// The coordinators, if there are any.
    pub coordinators: Option<Coordinators>,
}

impl Site {
    /// Starts etcd and the database; the hosts are there, and nothing runs on them.
    ///
    /// # Errors
    /// If something does not come up.
    pub fn start(wanted: &Wanted) -> Result<Self> {
        let binaries = Binaries::find()?;
        let dir = wanted.dir.clone();
        install(&dir, &binaries)?;
        let net = Net::new()?;
        let spots = |prefix: &str, first: u8, count: u8| -> Result<Vec<Spot>> {
            (0..count).map(|n| net.host(&format!("{prefix}{}", n + 1), first + n)).collect()
        };
        let etcd = Cluster::start(&wanted.etcd, &dir, spots("e", 11, 3)?)?;
        let authority = wanted.coordinators.then(|| Authority::new(&dir)).transpose()?;
        let coordinators = authority
            .as_ref()
            .map(|authority| Coordinators::new(&dir, binaries.path("handover"), authority, spots("c", 31, 2)?, &etcd));
        let coordinators = coordinators.transpose()?;
        let places = spots("a", 21, 3)?;
        let spot = net.host(DATABASE, 41)?;
        let place = Place { ip: spot.ip, port: 5432, namespace: Some(spot.name) };
        let database = Postgres::start_at(&dir, place)?;
        let agent = wanted.programs.as_deref().map(|dir| dir.join("handover-agent"));
        let agent = agent.unwrap_or_else(|| binaries.path("handover-agent"));
        let ledger = format!("{}{}", database.url(), wanted.check);
        let shared = Shared {
            dir,
            binaries,
            agent,
            ledger,
            env: wanted.env.clone(),
            clocks: wanted.clocks,
            behaviour: wanted.behaviour.clone(),
            lease: wanted.lease.clone(),
        };
        let mut site = Self { hosts: Vec::new(), shared, etcd, database, net, coordinators };
        for spot in places {
            let members = site.etcd.endpoints();
            let store = if wanted.wires { host::wires(members.len()) } else { members.clone() };
            let tls = authority.as_ref().map(|authority| authority.of_agent(&spot.name)).transpose()?;
            let mut host = Host::new(&site.shared, spot, &store, tls.as_deref())?;
            if wanted.wires {
                host.start_wire(&site.shared, &members)?;
            }
            site.hosts.push(host);
        }
        Ok(site)
    }

    /// Starts coordinators, gates and agents.
    ///
    /// # Errors
    /// If one cannot be started.
    pub fn start_hosts(&mut self) -> Result<()> {
        if let Some(coordinators) = &mut self.coordinators {
            coordinators.start_all(&self.etcd)?;
        }
        for host in 0..self.hosts.len() {
            self.hosts[host].start_gate(&self.shared)?;
            self.start_agent(host)?;
        }
        Ok(())
    }

    /// Starts the agent of a host.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_agent(&mut self, host: usize) -> Result<()> {
        let log = [("HANDOVER_LOG".to_owned(), "info,handover_agent::lease=debug".to_owned())];
        self.hosts[host].start_agent(&self.shared, &log)
    }

    /// Index of the host with this agent.
    pub fn host_of(&self, agent: &str) -> Option<usize> {
        self.hosts.iter().position(|host| host.spot.name == agent)
    }
}

fn install(dir: &Path, binaries: &Binaries) -> Result<()> {
    let build = dir.join("builds").join(VERSION);
    std::fs::create_dir_all(&build)?;
    std::fs::copy(binaries.path("billing"), build.join("billing"))?;
    Ok(())
}

/// Starts a program on a host; its pid is the program's own.
///
/// # Errors
/// If it cannot be started.
pub fn launch(
    spot: &Spot,
    name: &str,
    program: &Path,
    args: Vec<String>,
    dir: &Path,
    env: &[(&str, String)],
) -> Result<Process> {
    let mut words = vec![format!("--net=/run/netns/{}", spot.name), program.display().to_string()];
    words.extend(args);
    Process::spawn(name, Path::new("/usr/bin/nsenter"), &words, dir, env)
}

/// Waits until the condition holds.
///
/// # Errors
/// If it does not in time; with the condition's own last error.
pub fn wait_for(what: &str, condition: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_within(START, what, condition)
}

/// The same with another limit.
///
/// # Errors
/// After the limit.
pub fn wait_within(limit: Duration, what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + limit;
    loop {
        let last = match condition() {
            Ok(true) => return Ok(()),
            Ok(false) => String::new(),
            Err(error) => format!(" ({error:#})"),
        };
        if Instant::now() >= end {
            bail!("waited {} s for {what}{last}", limit.as_secs());
        }
        // The condition reads other processes; there is nothing to wait on but the clock.
        std::thread::sleep(Duration::from_millis(20));
    }
}
