//! Why something waits: a closed list, so that `handover why` and its readers can rely on the words.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// What is waited for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum BlockerKind {
            $($(#[$doc])* $name,)*
        }

        impl BlockerKind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word that stands in reports, JSON and `why`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

kinds! {
    /// The store does not answer.
    Store => "store",
    /// An agent is not heard.
    AgentSilent => "agent-silent",
    /// An agent has not taken its assignment yet.
    Delivery => "delivery",
    /// An agent refused its assignment.
    Refused => "refused",
    /// The gate process does not answer.
    Gate => "gate",
    /// A balancer in front of the host cannot be reached, or does not ask.
    BalancerUnreachable => "balancer-unreachable",
    /// A balancer in front of the host does not say yet that it does as it was told.
    BalancerNotConfirmed => "balancer-not-confirmed",
    /// A version is on its way to a host, ahead of its window.
    Staging => "staging",
    /// A process is being started.
    Start => "start",
    /// A process could not be started, or ended by itself.
    Crash => "crash",
    /// A condition of readiness is not met.
    Readiness => "readiness",
    /// Work is in flight.
    Drain => "drain",
    /// How much work is in flight cannot be counted.
    Uncounted => "uncounted",
    /// The service has not acknowledged QUIESCE.
    Quiesce => "quiesce",
    /// The scheduler lease is on its way.
    Lease => "lease",
    /// Nobody holds the scheduler lease.
    LeaseDark => "lease-dark",
    /// The database has seen a higher fencing token than the lease would give.
    FenceRegression => "fence-regression",
    /// A process has not ended.
    Stop => "stop",
    /// A soak has not passed.
    Soak => "soak",
    /// Fewer instances would serve than the floor.
    Floor => "floor",
    /// Too few samples to judge.
    Samples => "samples",
    /// An operator paused the rollout.
    Paused => "paused",
    /// A human has to decide.
    Operator => "operator",
    /// An operation ended without a known outcome.
    Unknown => "unknown",
    /// The state file or disk of an agent.
    Disk => "disk",
}

/// A word that is not in the list: from a newer peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown kind of blocker {0:?}")]
pub struct UnknownKind(String);

impl FromStr for BlockerKind {
    type Err = UnknownKind;
    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text).ok_or_else(|| UnknownKind(text.to_owned()))
    }
}

impl fmt::Display for BlockerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One thing that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocker {
    /// What is waited for.
    pub kind: BlockerKind,
    /// Since when, Unix milliseconds; for people.
    pub since_ms: u64,
    /// One sentence: what, of whom, and what helps.
    pub waiting_for: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_back_from_its_word() {
        for kind in BlockerKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(*kind));
            assert_eq!(serde_json::to_string(kind).expect("json"), format!("\"{kind}\""));
        }
        assert!("bored".parse::<BlockerKind>().is_err());
    }
}
