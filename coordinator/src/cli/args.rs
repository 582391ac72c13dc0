//! What can be typed. Text becomes ids and durations here, and is trusted afterwards.

pub mod artifact;
pub mod lease;
mod stage;
mod store;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use handover_proto::ids::{Env, RolloutId, Service};
use handover_store::client::Access;
use handover_tls::{Parties, TlsError, TlsFiles};

pub use stage::Stage;
pub use store::{Setup, Store, StoreCommand};
pub use tls::{PeerTls, StoreTls};

use lease::DRAIN_EXAMPLES;
pub use lease::{Drain, Lease, Undrain};

/// Where a coordinator listens unless told otherwise.
pub const COORDINATOR: &str = "127.0.0.1:2791";
/// Where the embedded store listens unless told otherwise: not etcd's port, so that neither is taken for the other.
pub const STORE: &str = "127.0.0.1:2790";

const EXAMPLES: &str = "\
Examples:
  handover serve                              run the coordinator, with the embedded store beside it
  handover fleet                              what runs where
  handover plan upgrade.toml                  what an upgrade would do; changes nothing
  handover stage 1.5.0                        have the hosts fetch and verify a version, ahead of its window
  handover rollout start upgrade.toml         upgrade, and watch until it has ended
  handover rollout abort --reason 'error 500' go back to the version before
  handover lease handoff --to app-02          move the scheduler lease
  handover drain app-03                       take a host out
  handover why                                why nothing moves
  handover doctor                             what a human should look at

Exit codes: 0 done, 1 usage or internal error, 2 the plan has changes, 3 rolled back,
4 failed and a human is needed, 5 refused by policy, 6 timed out while still running.";

const SERVE_EXAMPLES: &str = "\
Examples:
  handover serve                              one machine: embedded store under ./handover-data
  handover serve --data /var/lib/handover/coordinator
                                              the same, where the package keeps it
  handover --store 10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379 serve --listen 127.0.0.1:2791
                                              on an etcd cluster; start as many as you like, one leads";

const PLAN_EXAMPLES: &str = "\
Exit code 0: the fleet is already as the spec wants it; 2: there are changes; 5: a policy forbids it.

Examples:
  handover plan upgrade.toml
  handover --json plan upgrade.toml | jq .steps";

const AUDIT_EXAMPLES: &str = "\
The last hundred orders that are over are kept. What rollouts did is in `handover rollout history`.

Examples:
  handover audit
  handover audit 12";

const DOCTOR_EXAMPLES: &str = "\
Exit code 0: nothing fails, though there may be warnings; 4: something fails and a human is needed.

Examples:
  handover doctor
  handover --json doctor | jq 'select(.verdict != \"ok\")'";

const START_EXAMPLES: &str = "\
A spec, with all that it needs and what is most often said:
  [[service]]
  name = \"billing\"
  version = \"1.1.0\"
  [rollout]
  way = \"start-first\"    # or \"stop-first\": one version at a time, in the same slot
  min_serving = 2        # left out: one less than the fleet has
  start_deadline = \"60s\"

Interrupting the command does not interrupt the rollout; `handover rollout watch` shows it again.
Exit code 0: done; 3: rolled back; 4: failed and a human is needed; 6: --timeout passed, it still runs.

Examples:
  handover rollout start upgrade.toml
  handover --timeout 30m rollout start upgrade.toml
  handover rollout start --detach upgrade.toml";

const ORDER_EXAMPLES: &str = "\
What runs goes on by itself: going back is decided without anybody if the new version is not well. pause stops before
the next step, resume goes on, and both leave every host as it is. abort and rollback go back to the version before;
after the rollout has ended rollback starts another one, to that version. At the last step of the way back abort gives
up instead: the rollout ends as failed, hosts serve with what they have, and what is left is yours.

Examples:
  handover rollout pause --reason 'look at the logs first'
  handover rollout resume
  handover rollout abort --reason 'error 500' --watch
  handover rollout rollback 7f3a2c";

const WHY_EXAMPLES: &str = "\
Each line has a kind (such as floor, drain, quiesce, balancer-not-confirmed), since when, and what is waited for.

Examples:
  handover why
  handover --json why | jq -r .waiting_for";

const FLEET_EXAMPLES: &str = "\
Where reported and assigned differ, `handover why` says what the host waits for.

Examples:
  handover fleet
  handover --service billing fleet
  handover --json fleet | jq 'select(.reads == 0) | .agent'";

/// Upgrades a running service without downtime on hosts that have no Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "handover", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Args {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Debug, Clone, clap::Args)]
pub struct Global {
    /// The coordinators to ask, the first that answers; a follower names the leader
    #[arg(long, global = true, env = "HANDOVER_COORDINATOR", default_value = COORDINATOR, value_name = "ADDR", value_delimiter = ',')]
    pub coordinator: Vec<String>,
    /// The etcd members; none: the embedded store at 127.0.0.1:2790
    #[arg(long, global = true, env = "HANDOVER_STORE", value_name = "ADDR,...", value_delimiter = ',')]
    pub store: Vec<String>,
    /// TLS to the store
    #[command(flatten)]
    pub store_tls: StoreTls,
    /// TLS to coordinators and agents
    #[command(flatten)]
    pub peer_tls: PeerTls,
    /// The environment: several may share an etcd cluster
    #[arg(long, global = true, env = "HANDOVER_ENV", default_value = "default", value_name = "NAME")]
    pub env: Env,
    /// The service; may be left out while there is only one
    #[arg(long, global = true, env = "HANDOVER_SERVICE", value_name = "NAME")]
    pub service: Option<Service>,
    /// One JSON object a line instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// How long to wait for an end or an answer, such as 30s or 1h30m; then exit code 6
    #[arg(long, global = true, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what a rollout with this spec would do, changing nothing
    #[command(after_help = PLAN_EXAMPLES)]
    Plan {
        /// The spec, a TOML file; `-` reads standard input
        spec: PathBuf,
    },
    /// Start a rollout, look at it, or give it an order
    #[command(subcommand)]
    Rollout(Rollout),
    /// Show where the service stands: rollout, lease, open orders and every instance
    Status,
    /// List what was ordered outside of rollouts, or one order's log
    #[command(after_help = AUDIT_EXAMPLES)]
    Audit {
        /// The order's number
        number: Option<u64>,
    },
    /// Show every instance: what is reported beside what is assigned
    #[command(after_help = FLEET_EXAMPLES)]
    Fleet,
    /// Look at the scheduler lease, or move it
    #[command(subcommand)]
    Lease(Lease),
    /// Take a host out: its lease first, then its traffic, then what it has in flight
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain(Drain),
    /// Give a drained host its traffic back
    #[command(after_help = DRAIN_EXAMPLES)]
    Undrain(Undrain),
    /// Have hosts fetch and verify a version ahead of its window; nothing is started or stopped
    #[command(after_help = stage::EXAMPLES)]
    Stage(Stage),
    /// Say why nothing moves, most important reason first
    #[command(after_help = WHY_EXAMPLES)]
    Why,
    /// Say what a human should look at: store, agents, versions, clocks, lease, rollout, hosts; each with a fix
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor,
    /// Run the coordinator; start several and one of them leads
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Serve),
    /// Run the embedded store (a single node that speaks the needed part of etcd's API), or set up an etcd cluster
    #[command(after_help = store::EXAMPLES, args_conflicts_with_subcommands = true)]
    Store(Store),
    /// Write, sign or check the manifest of a version's directory
    #[command(subcommand, after_help = artifact::EXAMPLES)]
    Artifact(artifact::Artifact),
    /// Print a completion script
    Completions {
        /// For which shell
        shell: Shell,
    },
}

/// A rollout, or an order to it.
#[derive(Debug, Subcommand)]
pub enum Rollout {
    /// Start a rollout and watch it until it has ended
    #[command(after_help = START_EXAMPLES)]
    Start {
        /// The spec, a TOML file; `-` reads standard input
        spec: PathBuf,
        /// Watch until it has ended (the default)
        #[arg(long, visible_alias = "wait", conflicts_with = "detach")]
        watch: bool,
        /// Return as soon as it has started
        #[arg(long)]
        detach: bool,
    },
    /// Show where it stands, once
    Status(Which),
    /// Show where it stands until it has ended
    Watch(Which),
    /// Stop before the next step; what serves goes on serving
    #[command(after_help = ORDER_EXAMPLES)]
    Pause(OrderArgs),
    /// Go on after a pause
    #[command(after_help = ORDER_EXAMPLES)]
    Resume(OrderArgs),
    /// Give up and go back to the version before
    #[command(after_help = ORDER_EXAMPLES)]
    Abort(OrderArgs),
    /// Go back to the version before, also after the rollout has ended
    #[command(after_help = ORDER_EXAMPLES)]
    Rollback(OrderArgs),
    /// List the rollouts, or one rollout's journal
    History(Which),
}

/// Which rollout.
#[derive(Debug, Clone, clap::Args)]
pub struct Which {
    /// The rollout's id; left out: the one that runs, or ran last
    pub rollout: Option<RolloutId>,
}

/// An order to a rollout.
#[derive(Debug, Clone, clap::Args)]
pub struct OrderArgs {
    /// The rollout's id; left out: the one that runs
    pub rollout: Option<RolloutId>,
    /// Why, for the journal
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub reason: String,
    /// Watch until the rollout has ended
    #[arg(long)]
    pub watch: bool,
}

/// How the coordinator runs.
#[derive(Debug, Clone, clap::Args)]
pub struct Serve {
    /// Where to listen
    #[arg(long, default_value = COORDINATOR, value_name = "ADDR")]
    pub listen: SocketAddr,
    /// Where the embedded store keeps its data; used only without --store
    #[arg(long, default_value = "handover-data", value_name = "DIR")]
    pub data: PathBuf,
    /// Where the embedded store listens; used only without --store
    #[arg(long, default_value = STORE, value_name = "ADDR")]
    pub store_listen: SocketAddr,
    /// Where to answer Prometheus at /metrics; left out: nowhere
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<SocketAddr>,
}

impl Global {
    /// The way to the store, the embedded one if no endpoint is given.
    ///
    /// # Errors
    /// [`TlsError::Incomplete`].
    pub fn store_access(&self) -> Result<Access, TlsError> {
        let endpoints = if self.store.is_empty() { vec![STORE.to_owned()] } else { self.store.clone() };
        Ok(Access { endpoints, tls: self.store_tls.files()? })
    }

    /// The other processes of the environment, as we reach and recognise them.
    ///
    /// # Errors
    /// [`TlsError`] if a file cannot be used.
    pub fn parties(&self) -> Result<Parties, TlsError> {
        let tls = self.peer_tls.files()?.as_ref().map(TlsFiles::open).transpose()?;
        Ok(Parties::new(self.env.clone(), tls))
    }

    /// The service as requests carry it; empty: the only one.
    pub fn service_name(&self) -> String {
        self.service.as_ref().map(ToString::to_string).unwrap_or_default()
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let rule = || format!("{text:?} is not a time with a unit; write it like 30s, 5m or 1h30m");
    let signed: jiff::SignedDuration = text.parse().map_err(|_| rule())?;
    Duration::try_from(signed).map_err(|_| rule())
}

#[cfg(test)]
mod tests;
