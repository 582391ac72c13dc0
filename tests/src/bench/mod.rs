//! Benchmarks of the running system. Each result stands beside its floor or a peer that was measured in the same run,
//! because a number of this machine means little by itself. Nothing printed is a constant but the aims.
//!
//! [`row`], [`spread`] and [`table`] are plain values. A bench brings up a [`fleet`](crate::fleet) and measures it from
//! outside: by the services' activity files, by requests through the gates, by `/proc`.

mod asker;
mod exchange;
mod floor;
mod handover;
mod hosts;
mod idle;
mod lease;
mod lock;
mod losses;
mod patroni;
mod proxies;
mod rollback;
pub mod row;
mod service;
mod shift;
mod site;
pub mod spread;
pub mod table;
mod traffic;

use std::time::Duration;

use anyhow::Result;

use row::Row;
use table::Table;

pub use idle::wait as only_wait;
pub use lock::stamp as only_stamp;

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Name {
    /// The dark window of a planned hand-over of the lease.
    Handover,
    /// From an accepted assignment to the traffic's new route.
    Shift,
    /// From the decision to go back to traffic and lease at the current version.
    Rollback,
    /// Memory and CPU of an idle agent and an idle gate.
    Agent,
    /// The lease on three etcd members, beside `etcdctl lock` and Patroni; and each kind of loss.
    Lease,
    /// Only each kind of loss.
    Losses,
    /// Upgrades on hosts with systemd, behind HAProxy, beside Ansible.
    Hosts,
    /// The gate beside HAProxy, nginx and no proxy: CPU per request, latencies, memory, and the moment of a switch.
    Gate,
}

/// Measure a running fleet on this machine. Prints a table; the exit code does not depend on what was measured.
#[derive(Debug, clap::Parser)]
#[command(name = "bench")]
pub struct Settings {
    /// What to measure.
    #[arg(required_unless_present_any = ["only_wait", "only_stamp"], value_name = "NAME")]
    pub names: Vec<Name>,
    /// Print one JSON object a line, and nothing else, to standard output.
    #[arg(long)]
    pub json: bool,
    /// Only wait: the process that an idle agent is compared with.
    #[arg(long, hide = true)]
    pub only_wait: bool,
    /// Only say when it started, wait for a byte, and say when it ends: what `etcdctl lock` runs.
    #[arg(long, hide = true, value_name = "ADDR")]
    pub only_stamp: Option<std::net::SocketAddr>,
}

/// How much to measure.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Planned hand-overs, on each store.
    pub handovers: usize,
    /// Shifts of all traffic from one slot to the other.
    pub shifts: usize,
    /// Rollouts that are sent back.
    pub rollbacks: usize,
    /// How long agent and gate are left alone.
    pub idle: Duration,
    /// Losses of each kind.
    pub losses: usize,
    /// After a loss that must not show: long enough that it would have.
    pub quiet: Duration,
    /// How long etcd's leader, and then all of etcd, is frozen.
    pub frozen: (Duration, Duration),
    /// Rounds through each proxy, and how long each is.
    pub rounds: usize,
    /// Length of one round through one proxy.
    pub round: Duration,
    /// Switches of a proxy's upstream, of each proxy.
    pub switches: usize,
    /// Restarts of one instance under systemd, each way.
    pub restarts: usize,
    /// The fleet on booted hosts.
    pub fleet: FleetSizes,
}

/// Rolling upgrades on booted hosts.
#[derive(Debug, Clone, Copy)]
pub struct FleetSizes {
    /// Hosts.
    pub hosts: u8,
    /// Upgrades, each way.
    pub upgrades: usize,
    /// How long the service's start takes at least.
    pub start: Duration,
    /// Declared soak of each step.
    pub step_soak: &'static str,
    /// Declared soak at the end.
    pub soak: &'static str,
    /// Whether Ansible is measured beside, if there is one.
    pub beside_ansible: bool,
}

impl Sizes {
    /// Enough for the quantiles that are printed; each bench within two minutes.
    pub fn full() -> Self {
        Self {
            handovers: 200,
            shifts: 400,
            rollbacks: 7,
            idle: Duration::from_secs(60),
            losses: 5,
            quiet: Duration::from_secs(12),
            frozen: (Duration::from_secs(30), Duration::from_secs(40)),
            rounds: 3,
            round: Duration::from_secs(4),
            switches: 20,
            restarts: 10,
            fleet: FleetSizes {
                hosts: 3,
                upgrades: 3,
                start: Duration::from_secs(1),
                step_soak: "1s",
                soak: "2s",
                beside_ansible: true,
            },
        }
    }

    /// Enough to see that a bench works.
    pub fn tiny() -> Self {
        Self {
            handovers: 4,
            shifts: 4,
            rollbacks: 1,
            idle: Duration::from_millis(500),
            losses: 1,
            quiet: Duration::from_secs(2),
            frozen: (Duration::from_secs(3), Duration::from_secs(3)),
            rounds: 1,
            round: Duration::from_secs(1),
            switches: 2,
            restarts: 1,
            fleet: FleetSizes {
                hosts: 2,
                upgrades: 1,
                start: Duration::from_millis(100),
                step_soak: "100ms",
                soak: "100ms",
                beside_ansible: false,
            },
        }
    }
}

/// What a bench found.
#[derive(Debug)]
pub struct Found {
    /// What was measured, and how often.
    pub heading: String,
    /// The numbers.
    pub rows: Vec<Row>,
}

/// Measures.
///
/// # Errors
/// If something could not be started, or did not do what is to be measured.
pub fn measure(name: Name, sizes: &Sizes) -> Result<Found> {
    match name {
        Name::Handover => handover::measure(sizes),
        Name::Shift => shift::measure(sizes),
        Name::Rollback => rollback::measure(sizes),
        Name::Agent => idle::measure(sizes),
        Name::Lease => lease::measure(sizes),
        Name::Losses => lease::losses(sizes),
        Name::Hosts => hosts::measure(sizes),
        Name::Gate => proxies::measure(sizes),
    }
}

/// Measures what is asked for, and prints it.
///
/// # Errors
/// As [`measure`].
pub fn run(settings: &Settings) -> Result<()> {
    for name in &settings.names {
        let found = measure(*name, &Sizes::full())?;
        if settings.json {
            for row in &found.rows {
                println!("{}", serde_json::to_string(&row.line())?);
            }
        } else {
            println!("{}", Table { heading: &found.heading, rows: &found.rows });
        }
    }
    Ok(())
}
