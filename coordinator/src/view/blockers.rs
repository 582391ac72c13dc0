//! Everything that is not as it should be, most important first.

use handover_proto::blocker::{Blocker as TypedBlocker, BlockerKind};
use std::time::Duration;

use handover_proto::ids::{AgentId, Service};
use handover_proto::numbers::Term;
use handover_proto::registration::Registration;
use handover_proto::stored::StoredError;
use handover_proto::wire::{Blocker, LeaseStatus, OrderStatus};

use super::{Viewer, staging};
use crate::core::next::{Decision, Now, next};
use crate::core::progress::State;
use crate::core::samples::Samples;
use crate::rollout::Rollout;
use crate::world::{Heard, World};

/// The store itself.
pub(super) fn of_store(world: &World) -> Vec<Blocker> {
    let blocker = |(reason, since_ms): &(String, u64)| TypedBlocker {
        kind: BlockerKind::Store,
        since_ms: *since_ms,
        waiting_for: format!("the store: {reason}"),
    };
    world.cut_off.as_ref().map(|cut| blocker(cut).into()).into_iter().collect()
}

/// What the rollout waits for: as the engine says, or, where there is none, as the same decision comes out here.
pub(super) fn of_rollout(world: &World, rollout: &Rollout, viewer: &Viewer) -> Result<Vec<Blocker>, StoredError> {
    let Rollout { plan, progress, records } = rollout;
    if matches!(progress.state, State::Ended { .. }) {
        return Ok(Vec::new());
    }
    let waiting = world.waiting.get(&plan.service).filter(|waiting| waiting.records == records.len());
    if let Some(waiting) = waiting {
        return Ok(waiting.blockers.iter().cloned().map(Into::into).collect());
    }
    let mut blockers = Vec::new();
    if viewer.leader.is_empty() {
        let waiting_for = "a coordinator that leads: none does; start one with `handover serve`".to_owned();
        let since_ms = progress.since_ms;
        blockers.push(TypedBlocker { kind: BlockerKind::Operator, since_ms, waiting_for }.into());
    }
    let now = Now { wall_ms: viewer.at_ms, boot: Duration::ZERO, term: Term::default() };
    let fleet = world.fleet(&plan.service, viewer.at_ms)?;
    match next(plan, progress, &fleet, &Samples::default(), now) {
        Decision::Wait { blockers: waiting, .. } => blockers.extend(waiting.into_iter().map(Into::into)),
        Decision::Do(_) | Decision::Ended(_) => {}
    }
    Ok(blockers)
}

/// What the standing orders wait for, but for their time.
pub(super) fn of_orders(orders: &[OrderStatus]) -> Vec<Blocker> {
    let waits = orders.iter().filter(|order| order.state != "scheduled" || order.due_ms == 0);
    let waits = waits.filter(|order| order.ended_ms == 0);
    let blockers = |order: &OrderStatus| {
        let of_hosts = staging::blockers(order);
        let all = if of_hosts.is_empty() { order.blocker.clone().into_iter().collect() } else { of_hosts };
        let named = |blocker: Blocker| {
            let waiting_for = format!("{} (order {}: {})", blocker.waiting_for, order.number, order.sentence);
            Blocker { waiting_for, ..blocker }
        };
        all.into_iter().map(named).collect::<Vec<_>>()
    };
    waits.flat_map(blockers).collect()
}

/// A lease under which nobody works, unless somebody waits for that already.
pub(super) fn of_lease(lease: Option<&LeaseStatus>, known: &[Blocker]) -> Option<Blocker> {
    let dark = lease.filter(|lease| lease.dark_since_ms > 0)?;
    let is_lease = |blocker: &Blocker| blocker.kind.starts_with("lease") || blocker.kind == "quiesce";
    if known.iter().any(is_lease) {
        return None;
    }
    let frozen = dark.freeze.as_ref().map(|freeze| {
        format!("; take-over is frozen by {} ({}): `handover lease unfreeze`", freeze.by, freeze.because)
    });
    let waiting_for =
        format!("somebody to work under the scheduler lease: {}{}", dark.dark_because, frozen.unwrap_or_default());
    Some(TypedBlocker { kind: BlockerKind::LeaseDark, since_ms: dark.dark_since_ms, waiting_for }.into())
}

/// Agents that are not heard, refuse, or wait for something themselves; without what is `known` of them already.
pub(super) fn of_agents(world: &World, service: &Service, known: &[Blocker]) -> Result<Vec<Blocker>, StoredError> {
    let mut silent: Vec<Blocker> = Vec::new();
    let mut own: Vec<Blocker> = Vec::new();
    let is_known =
        |agent: &AgentId, kind: &str| known.iter().any(|blocker| blocker.kind == kind && names(blocker, agent));
    for (agent, registration) in world.registrations(service)? {
        let Some(heard) = world.heard.get(&(service.clone(), agent.clone())) else { continue };
        silent.extend(silence(&registration, heard).filter(|blocker| !is_known(&agent, &blocker.kind)));
        let assigned = world.assigned(service, &agent)?;
        let refused = heard.refused.as_ref().filter(|r| assigned.as_ref().is_some_and(|a| a.serial == r.serial));
        own.extend(refused.map(|refusal| {
            let waiting_for = format!("{agent} refuses its assignment {}: {}", refusal.serial, refusal.reason);
            Blocker::from(TypedBlocker { kind: BlockerKind::Refused, since_ms: refusal.at_ms, waiting_for })
        }));
        let reported = heard.report.as_ref().filter(|_| heard.silent.is_none()).and_then(|r| r.blocker.clone());
        let reported = reported.filter(|blocker| !is_known(&agent, &blocker.kind));
        own.extend(
            reported.map(|blocker| Blocker { waiting_for: format!("{agent}: {}", blocker.waiting_for), ..blocker }),
        );
    }
    silent.extend(own);
    Ok(silent)
}

/// Whether the agent stands in the sentence, as a word: `app-1` does not stand in `app-10`.
fn names(blocker: &Blocker, agent: &AgentId) -> bool {
    blocker.waiting_for.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').any(|word| word == agent.as_str())
}

fn silence(registration: &Registration, heard: &Heard) -> Option<Blocker> {
    let silence = heard.silent.as_ref()?;
    let waiting_for = format!(
        "agent {} at {} is not heard ({}); check handover-agent@{} on host {}",
        registration.agent, registration.endpoint, silence.reason, registration.service, registration.host
    );
    Some(TypedBlocker { kind: BlockerKind::AgentSilent, since_ms: silence.since_ms, waiting_for }.into())
}
