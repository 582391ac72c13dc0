//! The floor (`SAFETY.md` R1, R8): our own actions never leave fewer hosts serving than planned, and never take a host's
//! last ready instance out of its gate.
//!
//! A host serves when its gate, as it reports itself, has a ready instance for reads and one for writes. Everything here
//! is counted from such observations, never from what we wish.

use std::collections::{BTreeMap, BTreeSet};

use handover_proto::assignment::Assignment;
use handover_proto::ids::{AgentId, SlotId};
use handover_proto::lifecycle::Lifecycle;

use super::fleet::{Agent, Fleet, Instance};

/// The hosts that serve now, and go on doing so once they have taken what is stored for them.
pub fn serving(fleet: &Fleet) -> BTreeSet<AgentId> {
    serving_after(fleet, &BTreeMap::new())
}

/// The hosts that serve when these hosts have taken these assignments. A host that is not heard does not count.
pub fn serving_after(fleet: &Fleet, changes: &BTreeMap<AgentId, Assignment>) -> BTreeSet<AgentId> {
    let serves = |id: &AgentId, agent: &Agent| match changes.get(id) {
        Some(change) => will_serve(agent, change),
        // Where traffic is decided: a host that its balancers do not send to serves nobody.
        None if agent.seen().is_some_and(|report| report.front_pending) => false,
        None => serves_now(agent) && agent.assignment().is_none_or(|stored| will_serve(agent, stored)),
    };
    fleet.agents.iter().filter(|(id, agent)| serves(id, agent)).map(|(id, _)| id.clone()).collect()
}

/// Whether the host serves now and would not with this assignment.
pub fn would_stop_serving(agent: &Agent, change: &Assignment) -> bool {
    serves_now(agent) && !will_serve(agent, change)
}

/// Whether its gate, as it reports itself, has somebody for reads and for writes, whatever its balancers say.
pub fn has_traffic(agent: &Agent) -> bool {
    serves_now(agent)
}

fn serves_now(agent: &Agent) -> bool {
    is_covered(agent, |_, instance| (instance.reads, instance.writes))
}

/// A host that leaves is out of its balancers, whatever its gate still serves.
fn will_serve(agent: &Agent, assignment: &Assignment) -> bool {
    if assignment.leaving {
        return false;
    }
    is_covered(agent, |slot, instance| {
        let wish = assignment.slots.get(slot);
        let stays = wish.is_some_and(|w| w.lifecycle == Lifecycle::Serving && w.version == instance.version);
        if stays { assignment.weights(slot) } else { (0, 0) }
    })
}

fn is_covered(agent: &Agent, weights: impl Fn(&SlotId, &Instance) -> (u32, u32)) -> bool {
    let slots = agent.seen().into_iter().flat_map(|report| &report.slots);
    let ready = slots.filter_map(|(slot, seen)| Some((slot, seen.instance.as_ref().filter(|found| found.ready)?)));
    let shares: Vec<(u32, u32)> = ready.map(|(slot, found)| weights(slot, found)).collect();
    shares.iter().any(|(reads, _)| *reads > 0) && shares.iter().any(|(_, writes)| *writes > 0)
}
