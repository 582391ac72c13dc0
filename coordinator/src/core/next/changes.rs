//! Which hosts get a new assignment now, and which have to wait for theirs.

use std::collections::BTreeMap;

use handover_proto::assignment::Assignment;
use handover_proto::blocker::{Blocker, BlockerKind};
use handover_proto::ids::AgentId;

use super::{MAX_ASSIGNMENTS, Now};
use crate::core::assign::{Place, begun, same, wanted};
use crate::core::event::BackStep;
use crate::core::fleet::{Agent, Fleet, Heard};
use crate::core::floor;
use crate::core::plan::{Plan, Step};

/// The assignments to write for a place: of every begun host whose stored one asks for something else.
///
/// Left out, to be looked at again in the next lap, are
/// - hosts that are not heard, because nobody can say what they would lose; at the last step of either way they are
///   written too, if enough others serve, so that they follow when they come back;
/// - hosts that serve now and would not with the new assignment, because its instance there is not ready.
pub(super) fn changes(plan: &Plan, place: Place, fleet: &Fleet, now: Now) -> BTreeMap<AgentId, Assignment> {
    let enough = floor::serving(fleet).len() >= plan.min_serving;
    let mut changes = BTreeMap::new();
    for host in begun(plan, place) {
        let Some(agent) = fleet.agents.get(&host.agent) else { continue };
        let want = wanted(plan, place, host, now.term);
        let differs = agent.assignment().is_none_or(|stored| !same(stored, &want));
        let may = match agent.seen() {
            Some(_) => plan.from.is_none() || !floor::would_stop_serving(agent, &want),
            None => is_last(plan, place) && enough,
        };
        if differs && may && changes.len() < MAX_ASSIGNMENTS {
            changes.insert(host.agent.clone(), want);
        }
    }
    changes
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
