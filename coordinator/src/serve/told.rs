//! What the engine tells: in the world what it waits for, in the log one sentence for each lap.

use handover_proto::blocker::{Blocker, BlockerKind};
use handover_proto::ids::{RolloutId, Service};

use super::engine::{Engine, EngineError};
use crate::clock::wall_ms;
use crate::core::event::BackStep;
use crate::core::next::{Decision, Now};
use crate::core::plan::Plan;
use crate::core::progress::State;
use crate::rollout::Rollout;
use crate::view::what;
use crate::world::Waiting;

impl Engine {
    pub(super) fn waiting(&self, service: &Service, waiting: Waiting) {
        self.world.send_if_modified(|world| {
            let known = world.waiting.insert(service.clone(), waiting.clone());
            known.as_ref() != Some(&waiting)
        });
    }

    /// What a rollout that is over waited for is no longer true.
    pub(super) fn forget(&self, claims: &[(Service, RolloutId)]) {
        self.world.send_if_modified(|world| {
            let before = world.waiting.len();
            world.waiting.retain(|service, _| claims.iter().any(|(claimed, _)| claimed == service));
            world.waiting.len() != before
        });
    }

    /// A rollout that cannot go on says so, and the others do not suffer.
    pub(super) fn stuck(&mut self, service: &Service, id: &RolloutId, error: &EngineError) {
        let waiting_for = format!("an operator: {}", crate::cause::chain(error));
        let known = self.world.borrow().waiting.get(service).and_then(|known| known.blockers.first().cloned());
        let since_ms = match known {
            Some(known) if known.waiting_for == waiting_for => known.since_ms,
            _ => {
                tracing::error!(rollout = %id, "{waiting_for}");
                wall_ms()
            }
        };
        let records = self.records(id);
        let blockers = vec![Blocker { kind: BlockerKind::Operator, since_ms, waiting_for }];
        self.waiting(service, Waiting { records, blockers });
    }
}

/// One span for each step.
pub(super) fn span(rollout: &Rollout, now: Now) -> tracing::Span {
    let Rollout { plan, progress, .. } = rollout;
    let step = match &progress.state {
        State::Running { step } | State::Paused { step, .. } => (step + 1).to_string(),
        State::GoingBack { step: BackStep::Routes, .. } => "back: routes".to_owned(),
        State::GoingBack { step: BackStep::Lease, .. } => "back: lease".to_owned(),
        State::GoingBack { step: BackStep::Stop, .. } => "back: stop".to_owned(),
        State::Ended { .. } => "end".to_owned(),
    };
    tracing::info_span!("step", rollout = %plan.id, step, term = %now.term)
}

/// One sentence for each lap: what was decided, and why.
pub(super) fn sentence(plan: &Plan, decision: &Decision) -> String {
    match decision {
        Decision::Do(act) => match act.assignments.len() {
            0 => what(plan, &act.event),
            hosts => format!("{}, with assignments for {hosts} agents", what(plan, &act.event)),
        },
        Decision::Wait { blockers, .. } => match blockers.first() {
            Some(first) => format!("waiting for {}", first.waiting_for),
            None => "waiting".to_owned(),
        },
        Decision::Ended(outcome) => format!("ended: {outcome:?}"),
    }
}
