//! Where a rollout stands: the fold of its journal.
//!
//! ```text
//! Started ──▶ Running(0) ──Entered──▶ Running(n) ──────────────Ended(Done|Failed)──▶ Ended
//!                │  (from the step Stage: Ended(Failed), since nothing was touched)
//!                │  ▲                    │  ▲
//!             Paused Resumed          Paused Resumed
//!                ▼  │                    ▼  │
//!             Paused(0)               Paused(n)
//!                └───────── Back ────────┘      (not from the step Retire)
//!                            ▼
//!      GoingBack(Routes) ──▶ GoingBack(Lease) ──▶ GoingBack(Stop) ──Ended(RolledBack|Failed)──▶ Ended
//! ```

use handover_proto::ids::{InstanceId, OpId};
use handover_proto::lease::IntentKind;

use super::event::{BackStep, Event, Outcome, Record};
use super::plan::{Plan, Step};

/// Where a rollout stands, and what its next decision needs of the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The state.
    pub state: State,
    /// When the present step began or was resumed, Unix milliseconds; its deadlines count from here.
    pub since_ms: u64,
    /// When the rollout began, Unix milliseconds.
    pub started_ms: u64,
    /// Who started it.
    pub by: String,
    /// The open request to the holder of the lease.
    pub asked: Option<Asked>,
    /// How often the holder was asked; makes the ids of the requests.
    pub asks: u32,
    /// Whether hosts were given anything: until then the first step has not begun for them.
    pub given: bool,
    /// Whether an operator has vouched for the present step, of which nobody measures anything.
    pub vouched: bool,
}

/// The states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It moves on.
    Running {
        /// The present step's number, from 0.
        step: u32,
    },
    /// It waits for `resume`.
    Paused {
        /// The step it stopped at.
        step: u32,
        /// Who paused it.
        by: String,
        /// Why.
        reason: String,
        /// Because nobody measures how the candidate answers.
        unmeasured: bool,
    },
    /// It goes back, for good.
    GoingBack {
        /// Where on the way back it is.
        step: BackStep,
        /// How far forward it had come.
        from_step: u32,
        /// Who sent it back.
        by: String,
        /// Why.
        reason: String,
    },
    /// It is over.
    Ended {
        /// How.
        outcome: Outcome,
        /// Why.
        reason: String,
        /// When, Unix milliseconds.
        at_ms: u64,
    },
}

/// A request to the holder of the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The intent's id.
    pub op: OpId,
    /// Forward or back.
    pub intent: IntentKind,
    /// Who held.
    pub from: InstanceId,
    /// Who was to hold.
    pub to: InstanceId,
    /// When, Unix milliseconds.
    pub at_ms: u64,
}

/// A journal that no coordinator has written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// It has no records, or the first is not a beginning.
    #[error("the journal does not begin with a rollout's start; nothing is done with it")]
    NoStart,
    /// It belongs to another plan.
    #[error("the journal was begun with plan {journal}, but the stored plan is {stored}; nothing is done with it")]
    OtherPlan {
        /// The hash in the journal.
        journal: String,
        /// The hash of the plan.
        stored: String,
    },
    /// An event that the state does not take.
    #[error("record {seq} of the journal does not follow from the ones before: {event:?} in state {state:?}")]
    Move {
        /// Which record.
        seq: u64,
        /// The state before it.
        state: Box<State>,
        /// What it says.
        event: Box<Event>,
    },
}

impl Progress {
    /// The state after the whole journal.
    ///
    /// # Errors
    /// [`Illegal`] with the first record that does not fit.
    pub fn fold(plan: &Plan, records: &[Record]) -> Result<Self, Illegal> {
        let (first, rest) = records.split_first().ok_or(Illegal::NoStart)?;
        rest.iter().try_fold(Self::begin(plan, first)?, |progress, record| progress.after(plan, record))
    }

    /// The state after a journal's first record.
    ///
    /// # Errors
    /// [`Illegal::NoStart`] or [`Illegal::OtherPlan`].
    pub fn begin(plan: &Plan, first: &Record) -> Result<Self, Illegal> {
        let Event::Started { plan_hash, by, .. } = &first.event else { return Err(Illegal::NoStart) };
        if plan_hash != plan.hash() {
            return Err(Illegal::OtherPlan { journal: plan_hash.clone(), stored: plan.hash().to_owned() });
        }
        Ok(Self {
            state: State::Running { step: 0 },
            since_ms: first.at_ms,
            started_ms: first.at_ms,
            by: by.clone(),
            asked: None,
            asks: 0,
            given: false,
            vouched: false,
        })
    }

    /// The state after one more record.
    ///
    /// # Errors
    /// [`Illegal::Move`].
    pub fn after(self, plan: &Plan, record: &Record) -> Result<Self, Illegal> {
        let Some(state) = self.state.after(plan, record) else {
            let (state, event) = (Box::new(self.state), Box::new(record.event.clone()));
            return Err(Illegal::Move { seq: record.seq, state, event });
        };
        let begins_anew = matches!(
            record.event,
            Event::Entered { .. } | Event::Resumed { .. } | Event::Back { .. } | Event::BackEntered { .. }
        );
        let gives = matches!(record.event, Event::Assigned { .. });
        let begins_anew = begins_anew || (gives && !self.given);
        let since_ms = if begins_anew { record.at_ms } else { self.since_ms };
        let (asked, asks) = match &record.event {
            Event::Asked { op, intent, from, to } => {
                let (op, from, to) = (op.clone(), from.clone(), to.clone());
                (Some(Asked { op, intent: *intent, from, to, at_ms: record.at_ms }), self.asks + 1)
            }
            // After a resume the holder is asked again: that is what it was resumed for.
            Event::Withdrawn { .. } | Event::Resumed { .. } => (None, self.asks),
            _ => (self.asked, self.asks),
        };
        let vouched = match &record.event {
            Event::Resumed { .. } => self.vouched || matches!(self.state, State::Paused { unmeasured: true, .. }),
            Event::Entered { .. } | Event::Back { .. } => false,
            _ => self.vouched,
        };
        Ok(Self { state, since_ms, asked, asks, vouched, given: self.given || gives || begins_anew, ..self })
    }

    /// Whether it can still go back.
    pub fn can_go_back(&self, plan: &Plan) -> bool {
        match &self.state {
            State::Running { step } | State::Paused { step, .. } => !is_retire(plan, *step),
            State::GoingBack { .. } | State::Ended { .. } => false,
        }
    }

    /// Whether the lease is in the rollout's hands: at the step that moves it, or on a way back that may.
    pub fn moves_lease(&self, plan: &Plan) -> bool {
        match &self.state {
            State::Running { step } | State::Paused { step, .. } => plan.step(*step) == Some(&Step::Lease),
            State::GoingBack { .. } => true,
            State::Ended { .. } => false,
        }
    }
}

fn is_retire(plan: &Plan, step: u32) -> bool {
    plan.step(step) == Some(&Step::Retire)
}

impl State {
    /// One total match: the diagram above, arrow by arrow; `None` is no arrow.
    fn after(&self, plan: &Plan, record: &Record) -> Option<Self> {
        let at_ms = record.at_ms;
        match (self, &record.event) {
            (Self::Running { step }, Event::Entered { step: next }) => {
                let follows = *next == step + 1 && plan.step(*next).is_some();
                follows.then_some(Self::Running { step: *next })
            }
            (Self::Running { step }, Event::Paused { by, reason, unmeasured }) => {
                let (by, reason) = (by.clone(), reason.clone());
                Some(Self::Paused { step: *step, by, reason, unmeasured: *unmeasured })
            }
            (Self::Paused { step, .. }, Event::Resumed { .. }) => Some(Self::Running { step: *step }),
            (Self::Running { step } | Self::Paused { step, .. }, Event::Back { by, reason }) => {
                let (by, reason) = (by.clone(), reason.clone());
                let back = Self::GoingBack { step: BackStep::Routes, from_step: *step, by, reason };
                (!is_retire(plan, *step)).then_some(back)
            }
            (Self::GoingBack { step, from_step, by, reason }, Event::BackEntered { step: next }) => {
                let (by, reason) = (by.clone(), reason.clone());
                let back = Self::GoingBack { step: *next, from_step: *from_step, by, reason };
                (step.next() == Some(*next)).then_some(back)
            }
            (Self::Running { step }, Event::Ended { outcome, reason }) => {
                let untouched = plan.step(*step) == Some(&Step::Stage) && *outcome == Outcome::Failed;
                let last = untouched || plan.step(step + 1).is_none() && *outcome != Outcome::RolledBack;
                last.then_some(Self::Ended { outcome: *outcome, reason: reason.clone(), at_ms })
            }
            (Self::GoingBack { step, .. }, Event::Ended { outcome, reason }) => {
                let last = step.next().is_none() && *outcome != Outcome::Done;
                last.then_some(Self::Ended { outcome: *outcome, reason: reason.clone(), at_ms })
            }
            (Self::Running { step }, Event::Staging) => (plan.step(*step) == Some(&Step::Stage)).then(|| self.clone()),
            (
                Self::Running { .. } | Self::GoingBack { .. },
                Event::Assigned { .. } | Event::Asked { .. } | Event::Withdrawn { .. },
            ) => Some(self.clone()),
            (_, Event::Started { .. })
            | (Self::Running { .. }, Event::Resumed { .. } | Event::BackEntered { .. })
            | (
                Self::Paused { .. },
                Event::Entered { .. }
                | Event::Staging
                | Event::Assigned { .. }
                | Event::Asked { .. }
                | Event::Withdrawn { .. }
                | Event::Paused { .. }
                | Event::BackEntered { .. }
                | Event::Ended { .. },
            )
            | (
                Self::GoingBack { .. },
                Event::Entered { .. }
                | Event::Staging
                | Event::Paused { .. }
                | Event::Resumed { .. }
                | Event::Back { .. },
            )
            | (
                Self::Ended { .. },
                Event::Entered { .. }
                | Event::Staging
                | Event::Assigned { .. }
                | Event::Asked { .. }
                | Event::Withdrawn { .. }
                | Event::Paused { .. }
                | Event::Resumed { .. }
                | Event::Back { .. }
                | Event::BackEntered { .. }
                | Event::Ended { .. },
            ) => None,
        }
    }
}

impl BackStep {
    /// The one after it.
    pub fn next(self) -> Option<Self> {
        match self {
            Self::Routes => Some(Self::Lease),
            Self::Lease => Some(Self::Stop),
            Self::Stop => None,
        }
    }
}
