//! The decision: from plan, progress and the world to what happens now, or to why nothing does.
//!
//! Level-triggered: the same function serves normal work, a new coordinator and a host that comes late. Whatever it
//! decides is one journal record with its assignments; the caller commits that in one transaction and asks again.

mod back;
mod changes;
mod forward;
mod in_place;
mod lease;
pub(in crate::core) mod leaving;
pub(in crate::core) mod met;
mod staging;
mod triggers;

use std::collections::BTreeMap;
use std::time::Duration;

use handover_proto::assignment::{Assignment, Cause};
use handover_proto::blocker::{Blocker, BlockerKind};
use handover_proto::ids::{AgentId, InstanceId, OpId};
use handover_proto::lease::{Intent, IntentKind};
use handover_proto::numbers::Term;
use handover_proto::stored::STORED_VERSION;

use self::forward::Lap;
use super::assign::Place;
use super::duration;
use super::event::{Event, Outcome, sha256_hex};
use super::fleet::Fleet;
use super::plan::{Host, Plan, Step};
use super::progress::{Progress, State};
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
    /// What happens to the staging key with it.
    pub staging: Option<super::staging::Ask>,
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

/// Who decides when no operator did, in the journal.
const OURSELVES: &str = "handover";

/// How long the last step waits for hosts that are not heard. Their assignment is stored by then; this is only how soon
/// the operator is told.
const SILENT_PATIENCE: Duration = Duration::from_secs(60);

/// Decides. `samples` has observed the same fleet at the same time.
pub fn next(plan: &Plan, progress: &Progress, fleet: &Fleet, samples: &Samples, now: Now) -> Decision {
    let lap = Lap { plan, progress, fleet, samples, now };
    let decided = match &progress.state {
        State::Running { step } => forward::next(lap, *step),
        State::Paused { step, by, reason, .. } => forward::paused(lap, *step, by, reason),
        State::GoingBack { step, from_step, reason, .. } => back::next(lap, *step, *from_step, reason),
        State::Ended { outcome, .. } => Decision::Ended(*outcome),
    };
    staging::tidied(lap, decided)
}

/// The end when only hosts are left that have not been heard for long: honest about what is not known.
fn ended_without_silent(lap: Lap<'_>, waits: &[Blocker], what: &str) -> Option<Decision> {
    let patience = lap.progress.since_ms.saturating_add(duration::millis(SILENT_PATIENCE));
    let only_silent = waits.iter().all(|blocker| blocker.kind == BlockerKind::AgentSilent);
    if !only_silent || lap.now.wall_ms < patience {
        return None;
    }
    let left: Vec<&str> = waits.iter().map(|blocker| blocker.waiting_for.as_str()).collect();
    let reason = format!("{what}; left for later, with its assignment stored: {}", left.join("; "));
    Some(Act::only(Event::Ended { outcome: Outcome::Failed, reason }))
}

impl Lap<'_> {
    fn trigger(self, deadlines: bool) -> Option<String> {
        triggers::reason(self.plan, self.progress, self.fleet, self.samples, self.now, deadlines)
    }

    /// The boot time at which the wall clock should show this.
    fn at_wall(self, wall_ms: u64) -> Option<Duration> {
        let left = Duration::from_millis(wall_ms.saturating_sub(self.now.wall_ms));
        Some(self.now.boot.saturating_add(left))
    }

    /// Takes away an intent that is done, or that this rollout wrote; not one of an operator that is still open.
    fn spent_intent(self) -> Option<Ask> {
        let lease = &self.fleet.lease;
        let theirs = lease.open_intent().is_some_and(|open| open.value.cause.rollout.is_none());
        lease.intent.as_ref().filter(|_| !theirs).map(|_| Ask::Withdraw)
    }

    /// When a candidate that is not up by then is late; none: its time has not begun.
    fn deadline(self, step: u32) -> Option<Duration> {
        let limit = self.plan.rules.start_deadline;
        let from_the_beginning = self.at_wall(self.progress.since_ms.saturating_add(duration::millis(limit)));
        let holds = |host: &Host| self.fleet.agents.get(&host.agent).is_some_and(|agent| agent.hold().is_some());
        let at = match self.plan.step(step) {
            Some(what @ Step::Start { wave }) if self.plan.leaves(*wave) && !self.plan.hosts_of(what).any(holds) => {
                self.samples
                    .room_since(self.plan, *wave)
                    .map(|since| since.saturating_add(limit))
                    .max(from_the_beginning)
            }
            _ => from_the_beginning,
        };
        at.filter(|at| *at > self.now.boot)
    }

    /// The request's id follows from rollout and count, so that deciding twice asks once.
    fn ask(self, intent: IntentKind, from: InstanceId, to: InstanceId) -> Decision {
        let count = self.progress.asks;
        let digest = sha256_hex(format!("{}/asks/{count}", self.plan.id).as_bytes());
        let Some(op) = digest.get(..16).and_then(|digits| digits.parse::<OpId>().ok()) else {
            let waiting_for = "an operation id for the hand-over".to_owned();
            return Decision::wait(Blocker {
                kind: BlockerKind::Unknown,
                since_ms: self.progress.since_ms,
                waiting_for,
            });
        };
        let step = Place::of(self.progress).map_or(0, Place::reached_step);
        let cause = Cause { rollout: Some(self.plan.id.clone()), step, plan_hash: self.plan.hash().to_owned() };
        let value = Intent {
            v: STORED_VERSION,
            op: op.clone(),
            kind: intent,
            from: from.clone(),
            to: Some(to.clone()),
            quiesce_timeout_ms: duration::millis(self.plan.rules.quiesce_timeout),
            term: self.now.term,
            cause,
        };
        Act::all(Event::Asked { op, intent, from, to }, BTreeMap::new(), Some(Ask::Intent(value)))
    }
}

impl Decision {
    fn wait(blocker: Blocker) -> Self {
        Self::Wait { blockers: vec![blocker], until: None }
    }
}

impl Act {
    fn only(event: Event) -> Decision {
        Self::assign(event, BTreeMap::new())
    }

    fn assign(event: Event, assignments: BTreeMap<AgentId, Assignment>) -> Decision {
        Self::all(event, assignments, None)
    }

    fn all(event: Event, assignments: BTreeMap<AgentId, Assignment>, ask: Option<Ask>) -> Decision {
        Decision::Do(Box::new(Self { event, assignments, ask, staging: None }))
    }
}
