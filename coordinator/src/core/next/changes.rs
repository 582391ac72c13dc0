//! Which hosts get a new assignment now, and which have to wait for theirs.

use std::collections::BTreeMap;

use handover_proto::assignment::Assignment;
use handover_proto::blocker::{Blocker, BlockerKind};
use handover_proto::ids::AgentId;

use super::forward::Lap;
use super::{MAX_ASSIGNMENTS, in_place};
use crate::core::assign::{Place, begun, same, wanted};
use crate::core::event::BackStep;
use crate::core::fleet::{Agent, Fleet, Heard};
use crate::core::floor;
use crate::core::plan::{Host, Plan, Step};

/// The assignments to write for a place: of every begun host whose stored one asks for something else.
///
/// Left out, to be looked at again in the next lap, are
/// - hosts that are not heard, because nobody can say what they would lose; at the last step of either way they are
///   written too, if enough others serve, so that they follow when they come back;
/// - hosts that serve now and would not with the new assignment, because its instance there is not ready; unless that is
///   what the step is for.
pub(super) fn changes(lap: Lap<'_>, place: Place) -> BTreeMap<AgentId, Assignment> {
    let Lap { plan, fleet, now, .. } = lap;
    let enough = floor::serving(fleet).len() >= plan.min_serving;
    let mut changes = BTreeMap::new();
    for host in begun(plan, place) {
        let Some(agent) = fleet.agents.get(&host.agent) else { continue };
        let want = wanted(plan, place, host, now.term);
        let differs = agent.assignment().is_none_or(|stored| !same(stored, &want));
        if !differs || changes.len() >= MAX_ASSIGNMENTS {
            continue;
        }
        let change = match (agent.seen(), place) {
            (None, _) => Some(want).filter(|_| is_last(plan, place) && enough),
            (Some(_), _) if plan.from.is_none() || !floor::would_stop_serving(agent, &want) => Some(want),
            (Some(_), Place::Forward { step }) => Some(want).filter(|_| takes_out(plan, step, host)),
            (Some(_), Place::Back { step, .. }) => in_place::turn(lap, (step, place), (host, agent), want, &changes),
        };
        changes.extend(change.map(|change| (host.agent.clone(), change)));
    }
    changes
}

/// Whether the step is there to take this host out; the floor is asked for all of them together.
fn takes_out(plan: &Plan, step: u32, host: &Host) -> bool {
    let of_its_wave = |step: &Step| matches!(step, Step::Leave { wave } | Step::Start { wave } if *wave == host.wave);
    host.is_in_place() && plan.step(step).is_some_and(of_its_wave)
}

/// Whether the floor holds with these assignments; if not, what is waited for. A bring-up takes nothing away.
pub(super) fn floor_blocker(
    plan: &Plan,
    fleet: &Fleet,
    changes: &BTreeMap<AgentId, Assignment>,
    since_ms: u64,
) -> Option<Blocker> {
    let serving = floor::serving_after(fleet, changes);
    if plan.from.is_none() || serving.len() >= plan.min_serving {
        return None;
    }
    let missing: Vec<&str> =
        fleet.agents.keys().filter(|agent| !serving.contains(agent)).map(AgentId::as_str).collect();
    let waiting_for = format!(
        "{} to serve again: {} of {} hosts do, and min_serving is {}",
        missing.join(", "),
        serving.len(),
        fleet.agents.len(),
        plan.min_serving
    );
    Some(Blocker { kind: BlockerKind::Floor, since_ms, waiting_for })
}

/// Whether nothing follows after this place, so that a host that is away needs its last word in the store.
fn is_last(plan: &Plan, place: Place) -> bool {
    match place {
        Place::Forward { step } => plan.step(step) == Some(&Step::Retire),
        Place::Back { step, .. } => step == BackStep::Stop,
    }
}

/// The blocker of a host that is not heard.
pub(super) fn silent(agent: &AgentId, seen: Option<&Agent>, since_ms: u64) -> Blocker {
    let since_ms = match seen.map(|agent| agent.heard) {
        Some(Heard::Silent { since_ms }) => since_ms,
        Some(Heard::Yes) | None => since_ms,
    };
    let waiting_for = format!("{agent} to be heard again: look at its host and at `handover-agent` there");
    Blocker { kind: BlockerKind::AgentSilent, since_ms, waiting_for }
}
