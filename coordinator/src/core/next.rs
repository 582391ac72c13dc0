//! The decision: from plan, progress and the world to what happens now, or to why nothing does.
//!
//! Level-triggered: the same function serves normal work, a new coordinator and a host that comes late. Whatever it
//! decides is one journal record with its assignments; the caller commits that in one transaction and asks again.

use std::collections::BTreeMap;
use std::time::Duration;

use handover_proto::assignment::Assignment;
use handover_proto::blocker::Blocker;
use handover_proto::ids::AgentId;
use handover_proto::lease::Intent;
use handover_proto::numbers::Term;

use super::event::{Event, Outcome};
use super::fleet::Fleet;
use super::plan::Plan;
use super::progress::Progress;
use super::samples::Samples;

/// Most assignments in one decision: etcd takes 128 operations in one transaction, and the record, the checks and the
/// intent need some. The rest follows in the next lap.
pub const MAX_ASSIGNMENTS: usize = 100;

/// When, and by whom, a decision is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Wall clock, Unix milliseconds: deadlines that stand in the journal.
    pub wall_ms: u64,
    /// Time since the host booted: dwell times. They start again with a new coordinator.
    pub boot: Duration,
    /// The coordinator's term.
    pub term: Term,
}

/// What happens now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Journal and assign this, in one transaction; then decide again.
    Do(Box<Act>),
    /// Nothing, for these reasons; there is at least one.
    Wait {
        /// What is waited for, most important first.
        blockers: Vec<Blocker>,
        /// Boot time at which to look again though nothing happened.
        until: Option<Duration>,
    },
    /// The rollout is over.
    Ended(Outcome),
}

/// One transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// The journal's next record.
    pub event: Event,
    /// What hosts get with it; at most [`MAX_ASSIGNMENTS`].
    pub assignments: BTreeMap<AgentId, Assignment>,
    /// What happens to the lease's intent key with it.
    pub ask: Option<Ask>,
}

/// What happens to the lease's intent key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Written, with `handover_proto::lease::ask`.
    Intent(Intent),
    /// Deleted, under a compare of its revision: what it asked for is done or no longer wanted, and an intent that
    /// stays behind would keep others from a lease that is lost later.
    Withdraw,
}

/// Decides.
pub fn next(plan: &Plan, progress: &Progress, fleet: &Fleet, samples: &Samples, now: Now) -> Decision {
    let _ = (plan, progress, fleet, samples, now);
    Decision::Wait { blockers: Vec::new(), until: None }
}
