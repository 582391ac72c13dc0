//! The way back where versions take turns in one slot: host by host, as far as the floor lets them.
//!
//! What is stored for a host says how far it is: the candidate serves ▶ leaves its balancers ▶ the current version is
//! back, in its place. A host that serves nobody anyway is changed at once, so that nobody waits for a candidate to be well.
//! The host whose candidate holds the scheduler lease goes last, in the step after the lease's.

use std::collections::BTreeMap;
use std::time::Duration;

use handover_proto::assignment::Assignment;
use handover_proto::ids::AgentId;

use super::forward::Lap;
use super::lease;
use crate::core::assign::{Place, begun, leaving};
use crate::core::event::BackStep;
use crate::core::fleet::{Agent, Fleet};
use crate::core::floor;
use crate::core::plan::{Host, Plan};

/// What a host that serves is to do next on its way to `end`; none: it waits for its turn.
pub(super) fn turn(
    lap: Lap<'_>,
    (step, place): (BackStep, Place),
    (host, agent): (&Host, &Agent),
    end: Assignment,
    others: &BTreeMap<AgentId, Assignment>,
) -> Option<Assignment> {
    let Lap { plan, fleet, now, .. } = lap;
    if !host.is_in_place() {
        return None;
    }
    if agent.assignment().is_some_and(|stored| stored.leaving)
        && let Some(back) = given_back(lap, (host, agent), &end, others)
    {
        return Some(back);
    }
    if step == BackStep::Lease || waits_for_the_lease(plan, step, host, fleet) {
        return None;
    }
    if lease::frozen_with(fleet, &host.agent, plan.from.as_ref(), 0).is_some() {
        return None;
    }
    if plan.leaves(host.wave) && agent.assignment().is_some_and(|stored| stored.leaving) {
        return Some(end).filter(|_| agent.is_out());
    }
    let next = if plan.leaves(host.wave) { leaving(plan, place, host, now.term) } else { end };
    let mut changes = others.clone();
    changes.insert(host.agent.clone(), next.clone());
    Some(next).filter(|_| floor::serving_after(fleet, &changes).len() >= plan.min_serving)
}

/// A host that has left, and may not be stopped since others are lost meanwhile, serves on with what it has; it leaves again
/// when the floor holds. Whoever has left serves nobody yet, though it is given back in this lap, too.
fn given_back(
    lap: Lap<'_>,
    (host, agent): (&Host, &Agent),
    end: &Assignment,
    others: &BTreeMap<AgentId, Assignment>,
) -> Option<Assignment> {
    let has_left = |id: &AgentId| lap.fleet.agents.get(id).and_then(Agent::assignment).is_some_and(|it| it.leaving);
    let mut changes: BTreeMap<_, _> = others.clone();
    changes.retain(|id, _| !has_left(id));
    changes.insert(host.agent.clone(), end.clone());
    let holds = floor::serving_after(lap.fleet, &changes).len() >= lap.plan.min_serving;
    let stored = agent.assignment().filter(|_| !holds)?;
    Some(Assignment { leaving: false, term: lap.now.term, ..stored.clone() })
}

/// Whether this host keeps its candidate until the lease has had its step.
pub(super) fn waits_for_the_lease(plan: &Plan, step: BackStep, host: &Host, fleet: &Fleet) -> bool {
    let serves = fleet.agents.get(&host.agent).is_some_and(floor::has_traffic);
    step != BackStep::Stop && serves && lease::candidate_holds(plan, host, fleet)
}

/// How long the first step of the way back waits for hosts that do not come back, before it goes on to the lease: as long
/// as all of them may take, one after the other.
pub(super) fn patience(plan: &Plan, place: Place) -> Duration {
    let each = plan.rules.drain.deadline().saturating_add(plan.rules.start_deadline);
    each.saturating_mul(u32::try_from(begun(plan, place).count()).unwrap_or(u32::MAX))
}
