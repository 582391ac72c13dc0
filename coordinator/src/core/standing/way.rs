//! Which way the lease can go, and what became of a request to its holder.

use std::time::Duration;

use handover_proto::blocker::{Blocker, BlockerKind};
use handover_proto::ids::{AgentId, InstanceId};
use handover_proto::lease::{Candidate, HolderState, LeaseCause, Owner};

use super::give::Refused;
use super::{Asked, Scene, StandingOrder, named};
use crate::core::duration;

/// On top of the service's own time to quiesce: ten seconds in which a holder waits for an heir that does not come
/// (`SAFETY.md` §1.12, H2), and the way of a transaction.
const MARGIN: Duration = Duration::from_secs(12);

/// How long the lease's keys may lag behind our own writes in this coordinator's view.
const VIEW_LAG: Duration = Duration::from_secs(2);

/// Who holds, and is believed in by the store.
pub(super) fn holder<'a>(scene: &Scene<'a>) -> Option<&'a Owner> {
    let held = scene.fleet.lease.holder.as_ref().and_then(|seen| seen.value.held());
    held.filter(|_| scene.fleet.lease.beat.is_some()).map(|held| &held.owner)
}

/// Whether the holder key names `instance`, whatever the store believes.
pub(super) fn is_named(scene: &Scene<'_>, instance: &InstanceId) -> bool {
    scene.fleet.lease.holder.as_ref().is_some_and(|seen| seen.value.is_held_by(instance))
}

/// The holder, if `order` can ask him for something now.
pub(super) fn holder_to_ask<'a>(order: &StandingOrder, scene: &Scene<'a>) -> Result<&'a Owner, Refused> {
    let lease = &scene.fleet.lease;
    lease.check().map_err(|corrupt| Refused::Corrupt(corrupt.to_string()))?;
    let owner = match (lease.holder.as_ref().and_then(|seen| seen.value.held()), holder(scene)) {
        (None, _) => return Err(Refused::NobodyHolds),
        (Some(held), None) => return Err(Refused::Lost(held.owner.agent.clone())),
        (Some(_), Some(owner)) => owner,
    };
    if let Some(alarm) = scene.alarms.first() {
        return Err(Refused::Alarm(alarm.clone()));
    }
    if let Some(rollout) = scene.rollout.filter(|rollout| rollout.moves_lease) {
        return Err(Refused::RolloutMovesLease(rollout.id.clone()));
    }
    let busy = scene.others.iter().find(|other| other.goes_before(order, scene.now.wall_ms));
    if let Some(other) = busy {
        return Err(Refused::OtherOrder { number: other.number, what: other.sentence() });
    }
    if let Some(open) = lease.open_intent() {
        return Err(Refused::OpenIntent(open.value.op.clone()));
    }
    Ok(owner)
}

/// A hand-over's heir: the named host's instance, or the best one that is ready, never on `without`.
pub(super) fn heir(
    scene: &Scene<'_>,
    from: &Owner,
    to: Option<&AgentId>,
    without: Option<&AgentId>,
) -> Result<Owner, Refused> {
    if let Some(freeze) = scene.freeze {
        return Err(Refused::Frozen { by: freeze.by.clone(), because: freeze.because.clone() });
    }
    let here = |candidate: &Candidate| match to {
        Some(agent) => candidate.owner.agent == *agent,
        None => Some(&candidate.owner.agent) != without,
    };
    let others = scene.fleet.lease.candidates.values().map(|seen| &seen.value);
    let mut others: Vec<&Candidate> = others.filter(|c| c.owner.instance != from.instance && here(c)).collect();
    others.sort_by_key(|candidate| rank(candidate));
    let token = scene.fleet.lease.token().ok().flatten();
    // A database that has seen a higher token would refuse the new one (I12).
    let too_low = |candidate: &Candidate| candidate.stored_token > token;
    if let Some(best) = others.iter().find(|candidate| candidate.ready && !too_low(candidate)) {
        return Ok(best.owner.clone());
    }
    let why = |candidate: &&Candidate| {
        let who = named(&candidate.owner.agent, &candidate.owner.version);
        let what = if too_low(candidate) {
            "has a higher token in its database (see `handover lease era`)"
        } else {
            "is not ready"
        };
        format!("{who} {what}")
    };
    let seen: Vec<String> = others.iter().map(why).collect();
    let seen = if seen.is_empty() { "there is no other candidate".to_owned() } else { seen.join(", ") };
    Err(match to {
        Some(agent) if !scene.fleet.agents.contains_key(agent) => Refused::UnknownAgent(agent.clone()),
        Some(agent) => Refused::HeirNotReady { agent: agent.clone(), seen },
        None => Refused::NobodyReady { seen },
    })
}

/// Lower goes first: ready ones, then as their agents rank themselves by policy, then by name.
pub fn rank(candidate: &Candidate) -> (bool, u32, bool, AgentId) {
    (!candidate.ready, candidate.rank, !candidate.serving, candidate.owner.agent.clone())
}

/// What became of a request.
pub(super) enum Answer {
    /// It is on its way.
    Pending(Blocker),
    /// It was carried out.
    Moved,
    /// It was not, and will not be: why.
    Over(String),
}

/// Whether the lease went where the request wanted it: by the holder's answer, or past it if the next turn came sooner
/// than this coordinator looked.
pub(super) fn is_carried_out(asked: &Asked, scene: &Scene<'_>) -> bool {
    let Some(holder) = scene.fleet.lease.holder.as_ref().map(|seen| &seen.value) else { return false };
    holder.op == asked.op
        || match (&asked.to, &holder.state) {
            (Some(to), _) => holder.is_held_by(to),
            // The holder gave it up by himself: his process is gone.
            (None, HolderState::Free(free)) => free.last.instance == asked.from,
            // Only a free lease is acquired, so between his turn and this one there was one in which nobody held.
            (None, HolderState::Held(_)) => {
                let after_next = asked.turn.and_then(|turn| turn.checked_add(2));
                holder.cause == LeaseCause::Acquire && after_next == Some(holder.turn)
            }
        }
}

pub(super) fn answer(asked: &Asked, scene: &Scene<'_>) -> Answer {
    let lease = &scene.fleet.lease;
    if is_carried_out(asked, scene) {
        return Answer::Moved;
    }
    let now = scene.now.wall_ms;
    let quiesce = duration::text(Duration::from_millis(asked.quiesce_ms));
    let from = &asked.from_agent;
    if now < asked.at_ms.saturating_add(duration::millis(VIEW_LAG)) && !declined(asked, scene) {
        return Answer::Pending(pending(asked));
    }
    let limit = asked.quiesce_ms.saturating_add(duration::millis(MARGIN));
    let over = if declined(asked, scene) {
        format!("{from} declined: its service has {quiesce} to acknowledge QUIESCE; it goes on as holder")
    } else if holder(scene).is_none_or(|owner| owner.instance != asked.from) {
        "the lease was lost or moved meanwhile".to_owned()
    } else if lease.open_intent().is_none_or(|seen| seen.value.op != asked.op) {
        "the request was withdrawn or replaced by another one".to_owned()
    } else if let Some(to) = asked.to.as_ref().filter(|to| !lease.candidates.contains_key(*to)) {
        format!("the heir, instance {to}, is gone; {from} goes on as holder")
    } else if now >= asked.at_ms.saturating_add(limit) {
        format!("{from} did not answer in time; the request is withdrawn")
    } else {
        return Answer::Pending(pending(asked));
    };
    Answer::Over(over)
}

fn declined(asked: &Asked, scene: &Scene<'_>) -> bool {
    let holder = scene.fleet.lease.candidates.get(&asked.from);
    holder.is_some_and(|seen| seen.value.declined.as_ref() == Some(&asked.op))
}

fn pending(asked: &Asked) -> Blocker {
    let way = match &asked.to_agent {
        Some(agent) => format!("the lease to move to {agent}"),
        None => "the lease to be released".to_owned(),
    };
    let waiting_for = format!("{}: its service to acknowledge QUIESCE, and {way}", asked.from_agent);
    Blocker { kind: BlockerKind::Quiesce, since_ms: asked.at_ms, waiting_for }
}

/// Whether the service of `instance` works under the present turn.
pub(super) fn works(scene: &Scene<'_>, instance: &InstanceId) -> bool {
    let lease = &scene.fleet.lease;
    let token = lease.token().ok().flatten();
    let active = lease.candidates.get(instance).and_then(|seen| seen.value.active);
    token.is_some() && token == active
}
