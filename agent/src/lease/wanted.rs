//! What the agent's main loop tells the keeper, and what it gets back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use handover_proto::blocker::Blocker;
use handover_proto::ids::{AgentId, InstanceId, SlotId};
use handover_proto::lease::Owner;
use handover_proto::numbers::Token;

/// Every instance of this host, always as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// By instance. One that is left out while it holds counts as dead without proof.
    pub instances: BTreeMap<InstanceId, LocalInstance>,
}

/// One instance of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalInstance {
    /// As it stands in the store.
    pub owner: Owner,
    /// Its slot: names the directory of its `lease.json`.
    pub slot: SlotId,
    /// Where it takes its calls.
    pub app: SocketAddr,
    /// The assignment lets it take the lease. A holder goes on holding without.
    pub eligible: bool,
    /// It is ready. A holder goes on holding without.
    pub ready: bool,
    /// It has traffic.
    pub serving: bool,
    /// Where it stands among those that could take the lease: the lowest goes first.
    pub rank: u32,
    /// Whether it lives, and is to.
    pub life: Life,
}

/// Whether an instance lives, and is to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It runs.
    Running,
    /// It runs and is to be stopped: it hands over if an intent says so, else it quiesces and releases.
    GiveUp,
    /// Its main process has ended.
    Dead {
        /// No process of it is left, for certain.
        proven: bool,
    },
}

/// What the keeper reports.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeeperStatus {
    /// Of every wanted instance.
    pub instances: BTreeMap<InstanceId, InstanceLease>,
    /// Who holds, as the store shows it; none: never held, free, or not known yet.
    pub holder: Option<HolderStatus>,
    /// What is waited for; none: all is as it should be.
    pub waiting: Option<Blocker>,
    /// How long a take-over without proof would wait here, and why so long. One sentence.
    pub quarantine: String,
    /// The judgement over the store members' versions, and why.
    pub store_versions: String,
}

/// The lease, as one instance of this host has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceLease {
    /// Where it stands.
    pub state: LeaseState,
    /// The token of its turn.
    pub token: Option<Token>,
    /// Time to the soft deadline of its turn when the status was made.
    pub remaining_soft: Option<Duration>,
    /// Since when it stands there: Unix milliseconds, for people.
    pub since_ms: u64,
    /// One sentence for people.
    pub reason: String,
    /// Nothing of the lease is in the way of SIGTERM: it is to be stopped, it does not hold, and its service has
    /// acknowledged that it works no more.
    pub may_stop: bool,
}

/// Where an instance stands with the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    /// Neither holds nor could.
    None,
    /// Could hold.
    Candidate,
    /// Holds, and its service has been told to begin.
    Starting,
    /// Holds, and its service works.
    Holder,
    /// Holds (or held), and its service has been told to stop.
    Quiescing,
    /// Holds, and its service has stopped.
    Stopped,
    /// Has lost the lease; its service has not yet acknowledged.
    Fenced,
}

/// Who holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderStatus {
    /// Which instance.
    pub instance: InstanceId,
    /// Of which agent.
    pub agent: AgentId,
    /// Its token.
    pub token: Option<Token>,
    /// Count of changes, for people.
    pub turn: u64,
    /// Whether etcd believes that it lives.
    pub beating: bool,
}
