//! Taking a host out, and giving it back.
//!
//! The order of leaving (`SAFETY.md` R5, R6): the lease goes first; then the host tells balancers and clients to go
//! elsewhere while its gate still serves what comes; only when nothing comes any more does it get no traffic, and is
//! waited for until its ledger is empty.

use std::collections::BTreeMap;
use std::time::Duration;

use handover_proto::assignment::{Assignment, Cause, LeaseWish};
use handover_proto::blocker::BlockerKind;
use handover_proto::ids::AgentId;
use handover_proto::lifecycle::Lifecycle;

use super::give::Refused;
use super::next::{Change, Step, ask};
use super::way::{heir, holder, holder_to_ask};
use super::{Outcome, Phase, Scene, StandingOrder, What};
use crate::core::fleet::{Agent, Heard};
use crate::core::floor;

/// A host that has had no new request for this long is out of its balancers.
const QUIET: Duration = Duration::from_secs(1);
/// Requests that keep coming for this long mean that something sends them which does not look at `/ready`.
const PATIENCE: Duration = Duration::from_secs(600);

/// The next step of a drain that has begun.
pub(super) fn next(order: &StandingOrder, scene: &Scene<'_>) -> Step {
    let What::Drain { agent: name, notice_ms, .. } = &order.what else { return Step::Rest };
    let Some(agent) = scene.fleet.agents.get(name) else { return gone(order, scene, name) };
    let keeps_out = matches!(order.phase, Phase::Leaving { .. } | Phase::Emptying { .. } | Phase::Drained { .. });
    if keeps_out && holder(scene).is_some_and(|owner| owner.agent == *name) {
        return move_away(order, scene, name);
    }
    match &order.phase {
        Phase::Leaving { since_ms, told_ms } => leaving(order, scene, (name, agent), *since_ms, (*told_ms, *notice_ms)),
        Phase::Emptying { since_ms } if agent.has_reached() => {
            let phase = Phase::Drained { since_ms: scene.now.wall_ms };
            let took = Duration::from_millis(scene.now.wall_ms.saturating_sub(*since_ms));
            let what = format!("{name} is drained: nothing is in flight, after {} ms", took.as_millis());
            Change::of(order.then(scene.now, phase, what)).step()
        }
        Phase::Emptying { since_ms } => waiting(name, agent, *since_ms, "to be empty"),
        Phase::Returning { outcome, reason } if agent.has_reached() => {
            Change::of(order.ended(scene.now, *outcome, reason.clone())).step()
        }
        Phase::Returning { .. } => waiting(name, agent, order.at_ms, "to take its traffic back"),
        _ => Step::Rest,
    }
}

fn gone(order: &StandingOrder, scene: &Scene<'_>, name: &AgentId) -> Step {
    let reason = format!("{name} is no longer registered");
    Change::of(order.ended(scene.now, Outcome::Failed, reason)).step()
}

/// It took the lease over before it was kept from it.
fn move_away(order: &StandingOrder, scene: &Scene<'_>, name: &AgentId) -> Step {
    let way = holder_to_ask(order, scene).and_then(|owner| Ok((owner, heir(scene, owner, None, Some(name))?)));
    match way {
        Ok((owner, heir)) => ask(order, scene, owner, Some(&heir), false).step(),
        Err(refused) => Step::wait(BlockerKind::Lease, order.at_ms, format!("{name} to give the lease up: {refused}")),
    }
}

fn leaving(
    order: &StandingOrder,
    scene: &Scene<'_>,
    (name, agent): (&AgentId, &Agent),
    since_ms: u64,
    (told_ms, notice_ms): (Option<u64>, u64),
) -> Step {
    let now = scene.now.wall_ms;
    let Some(told_ms) = told_ms else {
        // The drain counts as begun only when the balancers say so (`SAFETY.md` R5).
        if !agent.has_taken() || agent.seen().is_some_and(|report| report.front_pending) {
            return waiting(name, agent, since_ms, "to say that it leaves");
        }
        let phase = Phase::Leaving { since_ms, told_ms: Some(now) };
        return Change::of(order.then(scene.now, phase, format!("{name} tells balancers to go elsewhere"))).step();
    };
    let noticed = told_ms.saturating_add(notice_ms);
    if now >= noticed && scene.quiet >= QUIET {
        return empty(order, scene, name, agent);
    }
    if now >= told_ms.saturating_add(crate::core::duration::millis(PATIENCE)) {
        let reason = format!("requests still arrive at {name}; take it out of what sends them, and drain it again");
        return end(order, scene, Outcome::Undone, reason).step();
    }
    let waiting_for = if now < noticed {
        format!("balancers to notice that {name} leaves")
    } else {
        format!("requests to stop arriving at {name}; its /ready answers 503, and its gate still serves them")
    };
    let again = scene.now.boot.saturating_add(QUIET);
    Step::wait(BlockerKind::Drain, told_ms, waiting_for).until(again.min(scene.at_wall(noticed.max(now + 1))))
}

/// What the agent is waited for, in its own words if it has some.
fn waiting(name: &AgentId, agent: &Agent, since_ms: u64, what: &str) -> Step {
    if let Heard::Silent { since_ms } = agent.heard {
        let waiting_for = format!("{name} {what}, which is not heard; its assignment is stored");
        return Step::wait(BlockerKind::AgentSilent, since_ms, waiting_for);
    }
    let own = agent.seen().filter(|_| agent.has_taken()).and_then(|report| report.blocker.clone());
    match own {
        Some(blocker) => Step::wait(blocker.kind, blocker.since_ms, format!("{name} {what}: {}", blocker.waiting_for)),
        None => Step::wait(BlockerKind::Delivery, since_ms, format!("{name} {what}")),
    }
}

/// The host begins to leave.
///
/// # Errors
/// [`Refused`] if it must stay.
pub(super) fn leave(order: &StandingOrder, scene: &Scene<'_>, name: &AgentId) -> Result<Change, Refused> {
    let What::Drain { min_serving, .. } = order.what else { return Err(Refused::UnknownAgent(name.clone())) };
    let agent = may_leave(scene, name, min_serving)?;
    let stored = agent.assignment().ok_or_else(|| Refused::NothingAssigned(name.clone()))?;
    // Whatever made it leave before is over: given back, it serves.
    let before = order.before.clone().unwrap_or_else(|| Assignment { leaving: false, ..stored.clone() });
    let slots = stored.slots.iter().map(|(slot, wish)| {
        (slot.clone(), handover_proto::assignment::SlotWish { lease: LeaseWish::Never, ..wish.clone() })
    });
    let assignment = Assignment { slots: slots.collect(), leaving: true, ..written(order, scene, stored) };
    let phase = Phase::Leaving { since_ms: scene.now.wall_ms, told_ms: None };
    let mut next = order.then(scene.now, phase, format!("{name} is to leave"));
    next.before = Some(before);
    Ok(Change { assignments: BTreeMap::from([(name.clone(), assignment)]), ..Change::of(next) })
}

/// That the host is there, no rollout runs, and enough others serve without it (`SAFETY.md` R1).
///
/// # Errors
/// [`Refused`].
pub(super) fn may_leave<'a>(scene: &Scene<'a>, name: &AgentId, min_serving: usize) -> Result<&'a Agent, Refused> {
    let agent = scene.fleet.agents.get(name).ok_or_else(|| Refused::UnknownAgent(name.clone()))?;
    if let Some(rollout) = scene.rollout {
        return Err(Refused::RolloutRuns(rollout.id.clone()));
    }
    let serving = floor::serving(scene.fleet);
    let left = serving.iter().filter(|other| *other != name).count();
    // One whose balancers do not answer may have traffic all the same.
    if left < min_serving && (serving.contains(name) || floor::has_traffic(agent)) {
        return Err(Refused::Floor { agent: name.clone(), left, min_serving });
    }
    Ok(agent)
}

fn empty(order: &StandingOrder, scene: &Scene<'_>, name: &AgentId, agent: &Agent) -> Step {
    let Some(stored) = agent.assignment() else { return Step::Rest };
    let slots = stored.slots.iter().map(|(slot, wish)| {
        let serves = wish.lifecycle == Lifecycle::Serving;
        let lifecycle = if serves { Lifecycle::Ready } else { wish.lifecycle };
        (slot.clone(), handover_proto::assignment::SlotWish { lifecycle, lease: LeaseWish::Never, ..wish.clone() })
    });
    let mut assignment = Assignment { slots: slots.collect(), routes: Vec::new(), ..written(order, scene, stored) };
    assignment.drain = scene.habits.drain;
    let phase = Phase::Emptying { since_ms: scene.now.wall_ms };
    let next = order.then(scene.now, phase, format!("{name} gets nothing new and finishes what it has"));
    Change { assignments: BTreeMap::from([(name.clone(), assignment)]), ..Change::of(next) }.step()
}

/// Ends an order: at once, or, if it has taken a host out, once that is back.
pub(super) fn end(order: &StandingOrder, scene: &Scene<'_>, outcome: Outcome, reason: String) -> Change {
    let (What::Drain { agent, .. }, Some(before)) = (&order.what, &order.before) else {
        return Change::of(order.ended(scene.now, outcome, reason));
    };
    let assignment = written(order, scene, before);
    let line = format!("giving {agent} back: {reason}");
    let next = order.then(scene.now, Phase::Returning { outcome, reason }, line);
    Change { assignments: BTreeMap::from([(agent.clone(), assignment)]), ..Change::of(next) }
}

/// The same assignment, decided here and now.
fn written(order: &StandingOrder, scene: &Scene<'_>, of: &Assignment) -> Assignment {
    let step = u32::try_from(order.number).unwrap_or(0);
    Assignment { term: scene.now.term, cause: Cause { rollout: None, step, plan_hash: String::new() }, ..of.clone() }
}
