//! Billing's command line.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use handover_proto::ids::{InstanceId, Version};

use crate::billing::ledger::LedgerAt;
use crate::span;

/// The demo service: reads, writes, and a scheduler under Handover's lease.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "billing")]
pub struct Settings {
    /// The version that this process plays.
    #[arg(long = "version-name", value_name = "V")]
    pub version: Version,
    /// Where to listen; only a balancer on another host needs more than this one.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub address: IpAddr,
    /// Port on that address; 0 takes a free one. The first line on standard output names it.
    #[arg(long)]
    pub port: u16,
    /// The ledger that all instances share: a SQLite file, or postgres://USER@HOST:PORT/DATABASE.
    #[arg(long)]
    pub ledger: LedgerAt,
    /// The Unix socket of the agent beside us.
    #[arg(long)]
    pub lease_socket: PathBuf,
    /// Who we are to the agent, which sets it; without an agent a new id.
    #[arg(long, env = "HANDOVER_INSTANCE", default_value_t = InstanceId::random())]
    pub instance: InstanceId,
    /// Append intervals of activity and units here, as JSON lines.
    #[arg(long)]
    pub activity: Option<PathBuf>,
    /// From tick to tick.
    #[arg(long, default_value = "100ms", value_parser = span::parse)]
    pub tick: Duration,
    /// The longest unit, as declared to the agent. A unit waits at most 60 % of it for the write lock.
    #[arg(long, default_value = "500ms", value_parser = span::parse)]
    pub c_unit: Duration,
    /// How often progress is reported within a unit, as declared to the agent; without it, half of the longest unit.
    #[arg(long, value_parser = span::parse)]
    pub progress: Option<Duration>,
    /// How long jobs may go on after SIGTERM; what is left then is lost.
    #[arg(long, default_value = "0s", value_parser = span::parse)]
    pub finish_jobs: Duration,
    /// A fault, as never-ready, bad-after=2s or bad-after-requests=100; may be repeated.
    #[arg(long = "fault", value_name = "KIND[=VALUE]")]
    pub faults: Vec<String>,
    /// A file with faults, read again whenever it changes.
    #[arg(long, value_name = "FILE")]
    pub behaviour: Option<PathBuf>,
}
