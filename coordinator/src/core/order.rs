//! What an operator can order while a rollout runs.

use std::collections::BTreeMap;

use handover_proto::assignment::Assignment;
use handover_proto::ids::AgentId;
use handover_proto::numbers::Term;

use super::assign::{Place, begun};
use super::event::{BackStep, Event, Outcome};
use super::fleet::Fleet;
use super::next::{Act, MAX_ASSIGNMENTS, leaving};
use super::plan::Plan;
use super::progress::{Progress, State};

/// An order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Stop moving on. Limits stay in force: it can still go back by itself.
    Pause,
    /// Move on.
    Resume,
    /// Give up and go back.
    Abort,
    /// Go back.
    Rollback,
}

/// An order that makes no sense now; says what does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is over.
    #[error("rollout {rollout} has ended; to change versions, start another one")]
    Ended {
        /// Which.
        rollout: String,
    },
    /// It is paused.
    #[error("rollout {rollout} is paused already ({reason}); `resume` lets it move on, `rollback` sends it back")]
    Paused {
        /// Which.
        rollout: String,
        /// Why it is paused.
        reason: String,
    },
    /// It is not paused.
    #[error("rollout {rollout} is not paused, there is nothing to resume")]
    NotPaused {
        /// Which.
        rollout: String,
    },
    /// It goes back, which is neither paused nor turned round.
    #[error("rollout {rollout} goes back already ({reason}), and finishes that; `handover why` says what it waits for")]
    GoesBack {
        /// Which.
        rollout: String,
        /// Why it goes back.
        reason: String,
    },
    /// The current version is being stopped.
    #[error(
        "rollout {rollout} has begun to retire {from}: there is no way back; when it has ended, roll out {from} again"
    )]
    NoReturn {
        /// Which.
        rollout: String,
        /// The version that is being retired.
        from: String,
    },
}

/// The event that the order amounts to now; the caller journals it, and the next lap acts on it.
///
/// `abort` at the last step of the way back is the operator's way out of an undo that cannot finish: what is left is
/// his.
///
/// # Errors
/// [`Refused`]; nothing changes.
pub fn order(plan: &Plan, progress: &Progress, order: Order, by: &str, reason: &str) -> Result<Event, Refused> {
    let rollout = plan.id.to_string();
    let (by, reason) = (by.to_owned(), reason.to_owned());
    match (&progress.state, order) {
        (State::Ended { .. }, _) => Err(Refused::Ended { rollout }),
        (State::GoingBack { step: BackStep::Stop, .. }, Order::Abort) => {
            let reason = format!("{by} ended the way back before it was finished: {reason}");
            Ok(Event::Ended { outcome: Outcome::Failed, reason })
        }
        (State::GoingBack { reason, .. }, _) => Err(Refused::GoesBack { rollout, reason: reason.clone() }),
        (State::Paused { reason, .. }, Order::Pause) => Err(Refused::Paused { rollout, reason: reason.clone() }),
        (State::Running { .. }, Order::Resume) => Err(Refused::NotPaused { rollout }),
        (State::Running { .. }, Order::Pause) => Ok(Event::Paused { by, reason, unmeasured: false }),
        (State::Paused { .. }, Order::Resume) => Ok(Event::Resumed { by }),
        (State::Running { .. } | State::Paused { .. }, Order::Abort | Order::Rollback) => {
            if progress.can_go_back(plan) {
                Ok(Event::Back { by, reason })
            } else {
                let from = plan.from.as_ref().map(ToString::to_string).unwrap_or_default();
                Err(Refused::NoReturn { rollout, from })
            }
        }
    }
}

/// What the order's event is recorded with, in this order. A way back that is ended before it was finished, and a pause,
/// give back the hosts that have left their balancers: nobody else would, as long as it lasts.
pub fn carried_out(plan: &Plan, progress: &Progress, fleet: &Fleet, event: Event, term: Term) -> Vec<Act> {
    let mut left = match (&event, Place::of(progress)) {
        (Event::Ended { .. }, Some(place)) => as_they_are(plan, place, fleet, term),
        (Event::Paused { .. }, Some(Place::Forward { step })) => leaving::left(plan, step, fleet, term),
        _ => BTreeMap::new(),
    };
    let mut acts = Vec::new();
    while left.len() > MAX_ASSIGNMENTS {
        let rest = left.keys().nth(MAX_ASSIGNMENTS).cloned().map(|first| left.split_off(&first)).unwrap_or_default();
        let assignments = std::mem::replace(&mut left, rest);
        let agents = assignments.keys().cloned().collect();
        acts.push(Act { event: Event::Assigned { agents }, assignments, ask: None, staging: None });
    }
    acts.push(Act { event, assignments: left, ask: None, staging: None });
    acts
}

/// The hosts that have left, with what they have.
fn as_they_are(plan: &Plan, place: Place, fleet: &Fleet, term: Term) -> BTreeMap<AgentId, Assignment> {
    let stays = |agent: &AgentId| {
        let stored = fleet.agents.get(agent)?.assignment().filter(|stored| stored.leaving)?;
        Some((agent.clone(), Assignment { leaving: false, term, ..stored.clone() }))
    };
    begun(plan, place).filter_map(|host| stays(&host.agent)).collect()
}
