//! From a spec and the fleet as it is to a plan, or to the reason why there can be none.

use std::collections::{BTreeMap, BTreeSet};

use handover_proto::ids::{AgentId, RolloutId, Service, SlotId, Version};
use handover_proto::lifecycle::Lifecycle;
use handover_proto::stored::STORED_VERSION;

use super::{Host, Plan};
use crate::core::fleet::{Agent, Fleet};
use crate::core::floor;
use crate::core::spec::{Spec, Way};

mod error;
mod steps;

pub use error::PlanError;

/// The slot and version that serve on a host.
type Serving = Option<(SlotId, Version)>;

impl Plan {
    /// Plans the rollout `id`. `known` are all services that agents have registered for, for the error's text.
    ///
    /// # Errors
    /// [`PlanError`] with the first reason why it cannot be; [`PlanError::NoChanges`] if there is nothing to do.
    pub fn make(spec: &Spec, fleet: &Fleet, known: &BTreeSet<Service>, id: &RolloutId) -> Result<Self, PlanError> {
        if fleet.agents.is_empty() {
            return Err(PlanError::UnknownService { service: spec.service.clone(), known: known.clone() });
        }
        if let Some((agent, order)) = fleet.drained.first_key_value() {
            return Err(PlanError::Drained { agent: agent.clone(), order: *order });
        }
        let mut serving = BTreeMap::new();
        for (id, agent) in &fleet.agents {
            serving.insert(id.clone(), looked_at(id, agent, spec.way)?);
        }
        let serve = serving.values().filter(|served| served.is_some()).count();
        let from = from_version(&serving, &spec.version)?;
        let changing = |served: &Serving| served.as_ref().is_none_or(|(_, version)| *version != spec.version);
        serving.retain(|_, served| changing(served));
        let min_serving = floor(spec, fleet.agents.len())?;
        let hosts = hosts(spec, fleet, serving, from.is_none())?;
        let holder = fleet.lease.holder.as_ref().map(|seen| seen.value.owner());
        let mut steps = match (&from, spec.way) {
            (None, _) => steps::bring_up(spec),
            (Some(_), Way::StartFirst) => steps::start_first(spec, &hosts),
            (Some(_), Way::StopFirst) => steps::stop_first(spec, fleet, &hosts, serve, min_serving)?,
        };
        steps.splice(..0, steps::stage(spec, fleet, &hosts)?);
        let lease_moves = holder
            .is_some_and(|owner| Some(&owner.version) == from.as_ref() && hosts.iter().any(|h| h.agent == owner.agent));
        let plan = Self {
            v: STORED_VERSION,
            id: id.clone(),
            service: spec.service.clone(),
            lease_to: hosts.first().filter(|_| lease_moves).map(|host| host.agent.clone()),
            steps,
            from,
            to: spec.version.clone(),
            way: spec.way,
            hosts,
            min_serving,
            rules: spec.rules.clone(),
            hash: String::new(),
        };
        let hash = plan.hash_of(&plan.to_bytes()?);
        Ok(Self { hash, ..plan })
    }
}

/// What serves on a host; and that the host can take part.
fn looked_at(id: &AgentId, agent: &Agent, way: Way) -> Result<Serving, PlanError> {
    let report = agent.seen().ok_or_else(|| PlanError::Silent { agent: id.clone() })?;
    if agent.assignment().is_some_and(|assignment| assignment.leaving) {
        return Err(PlanError::Leaves { agent: id.clone() });
    }
    if !report.gate {
        return Err(PlanError::NoGate { agent: id.clone() });
    }
    let slots = &agent.registration.slots;
    if slots.len() < 2 && way == Way::StartFirst {
        return Err(PlanError::TooFewSlots { agent: id.clone(), slots: slots.keys().cloned().collect() });
    }
    let wished = agent.assignment().into_iter().flat_map(|assignment| &assignment.slots);
    let wished = wished.filter(|(_, wish)| wish.lifecycle == Lifecycle::Serving);
    let reported = report.slots.iter().filter_map(|(slot, seen)| seen.instance.as_ref().map(|found| (slot, found)));
    let reported = reported.filter(|(_, found)| found.lifecycle == Some(Lifecycle::Serving));
    let mut all: Vec<(SlotId, Version)> = wished.map(|(slot, wish)| (slot.clone(), wish.version.clone())).collect();
    all.extend(reported.map(|(slot, found)| (slot.clone(), found.version.clone())));
    all.sort();
    all.dedup();
    if let Some((slot, _)) = all.iter().find(|(slot, _)| !slots.contains_key(slot)) {
        return Err(PlanError::UnknownSlot { agent: id.clone(), slot: slot.clone() });
    }
    if all.len() > 1 {
        let serving = all.iter().map(|(slot, version)| format!("{slot}: {version}")).collect();
        return Err(PlanError::InTransition { agent: id.clone(), serving });
    }
    Ok(all.pop())
}

/// The one version that serves on the hosts that are to change; none: nothing serves there.
fn from_version(serving: &BTreeMap<AgentId, Serving>, to: &Version) -> Result<Option<Version>, PlanError> {
    let versions: BTreeSet<Option<&Version>> =
        serving.values().map(|served| served.as_ref().map(|(_, version)| version)).filter(|v| *v != Some(to)).collect();
    let mut different = versions.into_iter();
    match (different.next(), different.next()) {
        (None, _) => Err(PlanError::NoChanges { version: to.clone() }),
        (Some(one), None) => Ok(one.cloned()),
        (Some(_), Some(_)) => {
            let words = |(agent, served): (&AgentId, &Serving)| match served {
                Some((_, version)) => format!("{agent}: {version}"),
                None => format!("{agent}: nothing"),
            };
            Err(PlanError::Mixed { serving: serving.iter().map(words).collect() })
        }
    }
}

fn floor(spec: &Spec, hosts: usize) -> Result<usize, PlanError> {
    let least = match spec.way {
        Way::StartFirst => 1,
        // The only host of a fleet serves nobody while its versions change.
        Way::StopFirst => 0,
    };
    let min_serving = spec.min_serving.unwrap_or_else(|| hosts.saturating_sub(1).max(least));
    if min_serving > hosts { Err(PlanError::Floor { min_serving, hosts }) } else { Ok(min_serving) }
}

/// By name, the lease holder's host last, so that the lease moves once. Hosts that serve nobody go first: to change them takes
/// nobody out, and under the floor the others may have to wait for them.
fn hosts(
    spec: &Spec,
    fleet: &Fleet,
    serving: BTreeMap<AgentId, Serving>,
    at_once: bool,
) -> Result<Vec<Host>, PlanError> {
    let holder = fleet.lease.holder.as_ref().map(|seen| &seen.value.owner().agent);
    let mut order: Vec<(AgentId, Serving)> = serving.into_iter().collect();
    let serves = |id: &AgentId| fleet.agents.get(id).is_some_and(floor::has_traffic);
    order.sort_by_key(|(agent, _)| (Some(agent) == holder, serves(agent)));
    let wave_size = if at_once { order.len() } else { spec.wave_size };
    let host = |(index, (id, served)): (usize, (AgentId, Serving))| {
        let current = served.map(|(slot, _)| slot);
        let candidate = match (&current, spec.way) {
            (Some(current), Way::StopFirst) => current.clone(),
            (None, _) | (_, Way::StartFirst) => empty_slot(fleet, &id, current.as_ref())?,
        };
        let wave = u32::try_from(index / wave_size.max(1)).unwrap_or(u32::MAX);
        Ok(Host { agent: id, wave, current, candidate })
    };
    order.into_iter().enumerate().map(host).collect()
}

fn empty_slot(fleet: &Fleet, id: &AgentId, current: Option<&SlotId>) -> Result<SlotId, PlanError> {
    let Some(agent) = fleet.agents.get(id) else { return Err(PlanError::Silent { agent: id.clone() }) };
    let wished = |slot: &SlotId| {
        let wish = agent.assignment().and_then(|assignment| assignment.slots.get(slot));
        wish.filter(|wish| wish.lifecycle != Lifecycle::Terminated).map(|wish| &wish.version)
    };
    let runs = |slot: &SlotId| {
        let found = agent.seen().and_then(|report| report.slots.get(slot)?.instance.as_ref());
        found.filter(|found| found.lifecycle != Some(Lifecycle::Terminated)).map(|found| &found.version)
    };
    let others = || agent.registration.slots.keys().filter(|slot| Some(*slot) != current);
    let empty = others().find(|slot| wished(slot).or_else(|| runs(slot)).is_none());
    empty.cloned().ok_or_else(|| {
        let words = |slot: &SlotId| wished(slot).or_else(|| runs(slot)).map(|version| format!("{slot}: {version}"));
        PlanError::NoEmptySlot { agent: id.clone(), taken: others().filter_map(words).collect() }
    })
}
