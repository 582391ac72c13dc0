//! The way back: a short plan of its own. It never waits for the new version.

use std::time::Duration;

use handover_proto::blocker::{Blocker, BlockerKind};

use super::changes::changes;
use super::forward::Lap;
use super::lease::{self, Standing};
use super::{Act, Ask, Decision, ended_without_silent, in_place, met};
use crate::core::assign::Place;
use crate::core::duration;
use crate::core::event::{BackStep, Event, Outcome};

/// How long the other hosts wait for one that is heard but does not take its routes: more than a restart of its agent
/// and its gate, less than an operator's patience.
const ROUTES_PATIENCE: Duration = Duration::from_secs(30);

/// Going back at `step`.
pub(super) fn next(lap: Lap<'_>, step: BackStep, from_step: u32, reason: &str) -> Decision {
    let place = Place::Back { step, from_step };
    if let Some(withdraw) = unwanted_intent(lap) {
        return withdraw;
    }
    let late = changes(lap, place);
    if !late.is_empty() {
        let agents = late.keys().cloned().collect();
        return Act::assign(Event::Assigned { agents }, late);
    }
    let waits = met::back(lap.plan, place, step, lap.fleet, lap.progress.since_ms);
    match step {
        BackStep::Routes => {
            let patience = if lap.plan.is_in_place() { in_place::patience(lap.plan, place) } else { ROUTES_PATIENCE };
            let patience = lap.progress.since_ms.saturating_add(duration::millis(patience));
            if waits.is_empty() || lap.now.wall_ms >= patience {
                return enter(lap, BackStep::Lease, from_step);
            }
            Decision::Wait { blockers: waits, until: lap.at_wall(patience) }
        }
        BackStep::Lease => match lease::back(lap.plan, lap.progress, lap.fleet, lap.now) {
            Standing::Ask { intent, from, to } => lap.ask(intent, from, to),
            Standing::Wait(blocker) => Decision::wait(blocker),
            Standing::Settled | Standing::Stuck(_) | Standing::Broken(_) => enter(lap, BackStep::Stop, from_step),
        },
        BackStep::Stop => stop(lap, waits, reason),
    }
}

/// A request to hand over forward that is still open could be followed after all: it is taken back first.
fn unwanted_intent(lap: Lap<'_>) -> Option<Decision> {
    use handover_proto::lease::IntentKind;
    let asked = lap.progress.asked.as_ref().filter(|asked| asked.intent == IntentKind::Handoff)?;
    let open = lap.fleet.lease.open_intent().filter(|open| open.value.op == asked.op)?;
    Some(Act::all(Event::Withdrawn { op: open.value.op.clone() }, Default::default(), Some(Ask::Withdraw)))
}

fn enter(lap: Lap<'_>, step: BackStep, from_step: u32) -> Decision {
    let ask = lap.spent_intent();
    let assignments = changes(lap, Place::Back { step, from_step });
    Act::all(Event::BackEntered { step }, assignments, ask)
}

fn stop(lap: Lap<'_>, mut waits: Vec<Blocker>, reason: &str) -> Decision {
    if waits.is_empty() {
        let outcome = if lap.plan.from.is_some() { Outcome::RolledBack } else { Outcome::Failed };
        return Act::only(Event::Ended { outcome, reason: reason.to_owned() });
    }
    if let Some(ended) = ended_without_silent(lap, &waits, reason) {
        return ended;
    }
    let waiting_for = "`handover rollout abort` ends it, if what is left is yours to repair".to_owned();
    waits.push(Blocker { kind: BlockerKind::Operator, since_ms: lap.progress.since_ms, waiting_for });
    Decision::Wait { blockers: waits, until: None }
}
