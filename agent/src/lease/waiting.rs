//! Why the keeper waits: typed for the code, one sentence for people.

use std::time::Duration;

use handover_proto::blocker::BlockerKind;
use handover_proto::ids::{AgentId, InstanceId, OpId};
use handover_proto::numbers::Token;

use super::deadline::Boot;
use super::fitness::Unfit;
use super::ladder::Doom;
use super::taking::numbers;

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Waiting {
    /// The store has not shown the lease's keys yet.
    #[error("the store has not shown the lease yet{}", because(.0))]
    Store(Option<String>),
    /// An accepted renewal.
    #[error("an accepted renewal of the etcd lease{}", because(.0))]
    Renewal(Option<String>),
    /// The outcome of a transaction.
    #[error("the outcome of lease transaction {0}; the store is read until it says so")]
    Outcome(OpId),
    /// The keys contradict each other, or cannot be read.
    #[error("an operator: {0}")]
    Corrupt(String),
    /// The holder key proves nothing.
    #[error(
        "the time that a holder of before the store's restore may still work: the holder key is of a lower era, or was \
         deleted"
    )]
    Unproven(Option<Boot>),
    /// I12.
    #[error(
        "an operator: the database has seen token {stored}, and the lease gives {token}: the store lost its newest turns; two \
         people raise the era above {}: `handover lease era --raise --by NAME --second NAME --because \"fence regression\"`",
        .stored.era().0
    )]
    FenceRegression {
        /// Of the turn, or the highest that can be known before one.
        token: Token,
        /// As the service reported it.
        stored: Token,
    },
    /// K7.
    #[error(
        "a change of config: all agents of a service have the same ttl and rho (K7), but {other} has {}, and this one {}",
        numbers(.theirs), numbers(.ours)
    )]
    Unequal {
        /// Who differs.
        other: AgentId,
        /// TTL in seconds, rho in millionths.
        theirs: (u64, u32),
        /// As theirs.
        ours: (u64, u32),
    },
    /// F26.
    #[error(
        "a restart of the instance: this host was copied while it ran (a snapshot or clone of the machine), and the copy \
         may hold the lease under the same name"
    )]
    Copied,
    /// Not in the roster.
    #[error("a listed agent: {0} is not in the roster (key lease/roster), so it may not take over")]
    NotListed(AgentId),
    /// The holder has died without proof that no process of it is left.
    #[error(
        "the end of the quarantine: the holder's process died, but it is not proved that none of its children is left"
    )]
    DeadUnproven,
    /// The service's QUIESCED.
    #[error("the service to finish its unit of work and acknowledge QUIESCED{}", because(.0))]
    Quiesce(Option<String>),
    /// The end of processes that were killed.
    #[error("the end of the instance's processes, which were killed: {doom}{}", because(.trouble))]
    Kill {
        /// Why they were.
        doom: Doom,
        /// Why the last kill did not work.
        trouble: Option<String>,
    },
    /// The service's STARTED.
    #[error("the service to install its token and acknowledge STARTED{}", because(.0))]
    Start(Option<String>),
    /// The service's first answer.
    #[error("the service to acknowledge STOPPED once, before it may take the lease{}", because(.0))]
    Greeting(Option<String>),
    /// K4.
    #[error(
        "a change of config: the service's longest unit takes {declared:?}, the lease allows {configured:?} (K4); raise c_unit"
    )]
    UnitTooLong {
        /// By the service.
        declared: Duration,
        /// By the agent's config.
        configured: Duration,
    },
    /// K4 to K6, c_kill.
    #[error(transparent)]
    Unfit(Unfit),
    /// The successor.
    #[error("the successor that intent {0} names to be prepared")]
    Successor(OpId),
    /// The state file.
    #[error("the state file to be written: nothing that ends a turn begins before{}", because(.0))]
    Disk(Option<String>),
    /// The lease is free, and the instance is not ready.
    #[error("the instance to be ready, before it may take the lease")]
    Readiness,
    /// An operator's freeze.
    #[error("an operator: automatic take-over is frozen (key lease/freeze)")]
    Frozen,
    /// The intent names another.
    #[error("the instance that intent {0} names, or the intent to be withdrawn")]
    IntentForOther(OpId),
    /// The quarantine.
    #[error("the end of the quarantine of {length:?} after the holder's loss ({because})")]
    Quarantine {
        /// None: no read has shown the beat absent yet.
        end: Option<Boot>,
        /// How long it is.
        length: Duration,
        /// Why so long.
        because: String,
    },
    /// The last holder is back.
    #[error("the last holder, which is back and goes first for a moment")]
    FirstRefusal,
    /// Another candidate that is preferred.
    #[error("instance {0}, which is preferred and so goes first")]
    Courtesy(InstanceId),
    /// The transaction could not be built.
    #[error("a change of the lease's keys: {0}")]
    Refused(String),
}

fn because(cause: &Option<String>) -> String {
    cause.as_ref().map(|cause| format!(" ({cause})")).unwrap_or_default()
}

impl Waiting {
    /// The word for `handover why`.
    pub fn kind(&self) -> BlockerKind {
        match self {
            Self::Store(_) | Self::Renewal(_) => BlockerKind::Store,
            Self::Outcome(_) => BlockerKind::Unknown,
            Self::Corrupt(_) | Self::Frozen | Self::Copied | Self::UnitTooLong { .. } | Self::Unequal { .. } => {
                BlockerKind::Operator
            }
            Self::FenceRegression { .. } => BlockerKind::FenceRegression,
            Self::Quiesce(_) => BlockerKind::Quiesce,
            Self::Start(_) | Self::Greeting(_) => BlockerKind::Start,
            Self::Successor(_) => BlockerKind::Lease,
            Self::Kill { .. } => BlockerKind::Stop,
            Self::Unfit(Unfit::KillUnderWay) => BlockerKind::Start,
            Self::Unfit(_) => BlockerKind::Operator,
            Self::Disk(_) => BlockerKind::Disk,
            Self::Readiness => BlockerKind::Readiness,
            Self::DeadUnproven
            | Self::IntentForOther(_)
            | Self::Unproven(_)
            | Self::NotListed(_)
            | Self::Quarantine { .. }
            | Self::FirstRefusal
            | Self::Courtesy(_)
            | Self::Refused(_) => BlockerKind::LeaseDark,
        }
    }
}
