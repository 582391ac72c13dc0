//! `handover store`: the embedded one, or the preparation of an etcd cluster.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Subcommand;
use handover_proto::ids::Service;

pub(super) const EXAMPLES: &str = "\
`handover serve` starts the embedded store by itself when no --store is given. It is a single node without
replication, and listens on loopback only; where one machine is not enough, use etcd.

Examples:
  handover store --data /var/lib/handover/coordinator
  handover store setup billing                the etcd roles that the service needs, as commands";

const SETUP_EXAMPLES: &str = "\
The roles let etcd itself refuse what the lease's safety forbids: the coordinator cannot write who holds the
scheduler lease. A user has the name of its role, and etcd takes it from the certificate's common name:
  handover.ENV.SERVICE.agent     the service's agents
  handover.ENV.coordinator       coordinators
  handover.ENV.operator          people at the command line who repair the lease
--apply and --check need a certificate with the common name root. Exit codes: 0 all is as it should be,
2 --check found changes to make, 5 somebody else may write the lease's keys.

Examples:
  handover store setup billing                print the commands
  handover --store https://10.0.0.1:2379 --store-ca ca.pem --store-cert root.pem --store-key root.key \\
    store setup billing --apply               do it; a second time there is nothing to do";

/// How the embedded store runs, or what to do with another one.
#[derive(Debug, Clone, clap::Args)]
pub struct Store {
    /// Where to keep the data
    #[arg(long, default_value = "handover-data", value_name = "DIR")]
    pub data: PathBuf,
    /// Where to listen: a loopback address
    #[arg(long, default_value = super::STORE, value_name = "ADDR")]
    pub listen: SocketAddr,
    /// Something else than running it.
    #[command(subcommand)]
    pub command: Option<StoreCommand>,
}

/// Something else than running the embedded store.
#[derive(Debug, Clone, Subcommand)]
pub enum StoreCommand {
    /// Print, apply or check the users and roles that an etcd cluster needs
    #[command(after_help = SETUP_EXAMPLES)]
    Setup(Setup),
}

/// Which roles, and what to do about them.
#[derive(Debug, Clone, clap::Args)]
pub struct Setup {
    /// The services; those that are set up already need not be named again
    #[arg(value_name = "SERVICE")]
    pub services: Vec<Service>,
    /// Make the changes, and write the guard key, by which agents know that nobody else can touch the lease
    #[arg(long, conflicts_with = "check")]
    pub apply: bool,
    /// Compare with what stands; change nothing
    #[arg(long)]
    pub check: bool,
}
