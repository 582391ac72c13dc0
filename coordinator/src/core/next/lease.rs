//! What the coordinator does about the scheduler lease: it asks, and waits. It never moves it (`SAFETY.md` I14).

use std::time::Duration;

use handover_proto::blocker::{Blocker, BlockerKind};
use handover_proto::ids::{AgentId, InstanceId, SlotId, Version};
use handover_proto::lease::{IntentKind, Owner};

use super::Now;
use crate::core::duration;
use crate::core::fleet::Fleet;
use crate::core::plan::{Host, Plan};
use crate::core::progress::{Asked, Progress};

/// On top of the service's own time to quiesce: ten seconds in which a holder waits for an heir that does not come
/// (`SAFETY.md` §1.12, H2), and the start of the heir's work.
const MARGIN: Duration = Duration::from_secs(15);

/// How long the lease's keys may lag behind the journal in this coordinator's view.
const VIEW_LAG: Duration = Duration::from_secs(2);

/// Where the lease stands as to a step.
pub(super) enum Standing {
    /// Where it should be.
    Settled,
    /// On its way.
    Wait(Blocker),
    /// The holder has to be asked.
    Ask { intent: IntentKind, from: InstanceId, to: InstanceId },
    /// It does not go on like this: why.
    Stuck(String),
    /// A candidate holds, but does not work: why.
    Broken(String),
}

/// Forward: an instance of the new version holds and works, if one of the current version held before.
pub(super) fn forward(plan: &Plan, progress: &Progress, fleet: &Fleet, now: Now) -> Standing {
    let holder = holder(fleet);
    let ours = plan.lease_to.is_some() || holder.is_some_and(|owner| is_current(plan, owner));
    if !ours {
        return Standing::Settled;
    }
    let late = is_late(plan, progress.since_ms, now);
    let wait = |kind, what: String| {
        if late { Standing::Stuck(what) } else { Standing::Wait(blocker(kind, progress, what)) }
    };
    let Some(owner) = holder.filter(|_| fleet.lease.beat.is_some()) else {
        return wait(
            BlockerKind::LeaseDark,
            format!("a candidate {} to take the scheduler lease: nobody holds it", plan.to),
        );
    };
    if is_current(plan, owner) {
        let heir = heirs(plan).find_map(|host| ready_heir(fleet, host, &host.candidate, &plan.to));
        return hand_over(plan, progress, fleet, owner, (IntentKind::Handoff, heir, late), now);
    }
    let token = fleet.lease.token().ok().flatten();
    let active = fleet.lease.candidates.get(&owner.instance).and_then(|seen| seen.value.active);
    let what = || format!("{}: its service to work under the scheduler lease", owner.agent);
    match token == active && token.is_some() {
        true => Standing::Settled,
        false if late && is_candidate(plan, owner) => Standing::Broken(format!(
            "{}: the candidate holds the scheduler lease, but its service does not work under it",
            owner.agent
        )),
        false => wait(BlockerKind::Lease, what()),
    }
}

/// Before this wave's hosts leave: none of them holds. Whoever is ready elsewhere may be asked for, of either version; only
/// one side is eligible at any step.
pub(super) fn away(plan: &Plan, progress: &Progress, fleet: &Fleet, now: Now, wave: u32) -> Standing {
    let leaves = |agent: &AgentId| plan.host(agent).is_some_and(|host| host.wave == wave);
    let Some(owner) = holder(fleet).filter(|owner| leaves(&owner.agent) && fleet.lease.beat.is_some()) else {
        return Standing::Settled;
    };
    // Time counts from the step before, and whoever has not left yet is not hurt by waiting: nothing is late here but an
    // answer.
    hand_over(plan, progress, fleet, owner, (IntentKind::Handoff, elsewhere(fleet, leaves), false), now)
}

/// An instance that is ready to take the lease, on a host that does not leave.
fn elsewhere(fleet: &Fleet, leaves: impl Fn(&AgentId) -> bool) -> Option<InstanceId> {
    let ready = |owner: &Owner| {
        let slots = fleet.seen(&owner.agent).into_iter().flat_map(|(_, report)| report.slots.values());
        slots.filter_map(|slot| slot.instance.as_ref()).any(|found| found.id == owner.instance && found.ready)
    };
    let candidates = fleet.lease.candidates.values().map(|seen| &seen.value);
    let mut able = candidates.filter(|one| one.ready && !leaves(&one.owner.agent) && ready(&one.owner));
    able.next().map(|one| one.owner.instance.clone())
}

/// Whether the candidate of this host holds.
pub(super) fn candidate_holds(plan: &Plan, host: &Host, fleet: &Fleet) -> bool {
    holder(fleet).is_some_and(|owner| owner.agent == host.agent && owner.version == plan.to)
}

/// A freeze keeps the lease where it is, and its holder is not stopped under it: what is waited for before this host is to
/// run `next`. Its gate would hold requests for as long as the freeze lasts.
pub(super) fn frozen_with(fleet: &Fleet, agent: &AgentId, next: Option<&Version>, since_ms: u64) -> Option<Blocker> {
    let frozen = fleet.lease.frozen && fleet.lease.beat.is_some();
    let owner = holder(fleet).filter(|owner| frozen && owner.agent == *agent && Some(&owner.version) != next)?;
    let waiting_for = format!(
        "`handover lease unfreeze`: the scheduler lease is frozen, so {agent} keeps {}, which holds it",
        owner.version
    );
    Some(Blocker { kind: BlockerKind::Operator, since_ms, waiting_for })
}

/// Nobody is asked, and nothing is late.
pub(super) fn on_its_way(progress: &Progress) -> Blocker {
    blocker(BlockerKind::Lease, progress, "the scheduler lease to come to rest".to_owned())
}

/// Back: no candidate holds, or it has been asked and there is nothing more to wait for. It stops next, and with it its
/// right to the lease.
pub(super) fn back(plan: &Plan, progress: &Progress, fleet: &Fleet, now: Now) -> Standing {
    let holder = holder(fleet).filter(|owner| is_candidate(plan, owner) && plan.from.is_some());
    let reachable = |owner: &&Owner| fleet.seen(&owner.agent).is_some() && fleet.lease.beat.is_some();
    let Some(owner) = holder.filter(reachable).filter(|_| !is_late(plan, progress.since_ms, now)) else {
        return Standing::Settled;
    };
    let heir = plan.hosts.iter().rev().find_map(|host| {
        let (slot, version) = (host.current.as_ref()?, plan.from.as_ref()?);
        ready_heir(fleet, host, slot, version)
    });
    // A host that ran the new version before this rollout keeps it. One of the plan's would only be asked in its turn.
    let heir = heir.or_else(|| elsewhere(fleet, |agent| plan.host(agent).is_some()).filter(|_| plan.is_in_place()));
    if heir.is_none() && fleet.agents.len() == 1 && plan.is_in_place() {
        return Standing::Settled;
    }
    match hand_over(plan, progress, fleet, owner, (IntentKind::Return, heir, false), now) {
        Standing::Stuck(_) => Standing::Settled,
        other => other,
    }
}

fn hand_over(
    plan: &Plan,
    progress: &Progress,
    fleet: &Fleet,
    owner: &Owner,
    (intent, heir, late): (IntentKind, Option<InstanceId>, bool),
    now: Now,
) -> Standing {
    if fleet.lease.frozen {
        let what =
            format!("`handover lease unfreeze`: the scheduler lease is frozen, so it stays with {}", owner.agent);
        return match late {
            true => Standing::Stuck(what),
            false => Standing::Wait(blocker(BlockerKind::Operator, progress, what)),
        };
    }
    let asked = progress.asked.as_ref().filter(|asked| asked.intent == intent && asked.from == owner.instance);
    match asked.map(|asked| answer(asked, plan, fleet, now)) {
        Some(Answer::Pending) => {
            let what = format!("{}: its service to acknowledge QUIESCE, and the lease to move", owner.agent);
            return Standing::Wait(blocker(BlockerKind::Quiesce, progress, what));
        }
        Some(Answer::Declined) => {
            let timeout = duration::text(plan.rules.quiesce_timeout);
            return Standing::Stuck(format!(
                "{}: the scheduler lease was not handed over; its service has {timeout} to acknowledge QUIESCE",
                owner.agent
            ));
        }
        Some(Answer::HeirGone) | None => {}
    }
    // An operator's own request goes first; whoever gave it sees it end in a bounded time.
    let order = fleet.lease.open_intent().filter(|open| open.value.cause.rollout.is_none());
    if let Some(open) = order.filter(|_| intent == IntentKind::Handoff && !late) {
        let what = format!("order {} to be over, which moves the scheduler lease", open.value.cause.step);
        return Standing::Wait(blocker(BlockerKind::Lease, progress, what));
    }
    match heir {
        Some(to) => Standing::Ask { intent, from: owner.instance.clone(), to },
        None if late => Standing::Stuck("no instance is ready to take the scheduler lease".to_owned()),
        None => {
            let what = format!("an instance that is ready to take the scheduler lease from {}", owner.agent);
            Standing::Wait(blocker(BlockerKind::Lease, progress, what))
        }
    }
}

/// What became of a request.
enum Answer {
    Pending,
    Declined,
    HeirGone,
}

fn answer(asked: &Asked, plan: &Plan, fleet: &Fleet, now: Now) -> Answer {
    let lease = &fleet.lease;
    let declined = lease.candidates.get(&asked.from).and_then(|seen| seen.value.declined.as_ref());
    let stands = lease.intent.as_ref().is_some_and(|seen| seen.value.op == asked.op);
    let just_asked = now.wall_ms < asked.at_ms.saturating_add(duration::millis(VIEW_LAG));
    if declined == Some(&asked.op) || is_late(plan, asked.at_ms, now) {
        Answer::Declined
    } else if just_asked || (stands && lease.candidates.contains_key(&asked.to)) {
        Answer::Pending
    } else {
        Answer::HeirGone
    }
}

fn is_late(plan: &Plan, since_ms: u64, now: Now) -> bool {
    now.wall_ms >= since_ms.saturating_add(duration::millis(plan.rules.quiesce_timeout + MARGIN))
}

fn holder(fleet: &Fleet) -> Option<&Owner> {
    fleet.lease.holder.as_ref().and_then(|seen| seen.value.held()).map(|held| &held.owner)
}

fn is_current(plan: &Plan, owner: &Owner) -> bool {
    plan.host(&owner.agent).is_some() && plan.from.as_ref() == Some(&owner.version)
}

fn is_candidate(plan: &Plan, owner: &Owner) -> bool {
    plan.host(&owner.agent).is_some() && owner.version == plan.to
}

/// The planned one first, then those that have soaked longest.
fn heirs(plan: &Plan) -> impl Iterator<Item = &Host> {
    let planned = plan.lease_to.as_ref().and_then(|agent| plan.host(agent));
    planned.into_iter().chain(&plan.hosts)
}

fn ready_heir(fleet: &Fleet, host: &Host, slot: &SlotId, version: &Version) -> Option<InstanceId> {
    let found = fleet.instance(&host.agent, slot).filter(|found| found.version == *version && found.ready)?;
    fleet.lease.candidates.get(&found.id).filter(|seen| seen.value.ready).map(|_| found.id.clone())
}

fn blocker(kind: BlockerKind, progress: &Progress, waiting_for: String) -> Blocker {
    let since_ms = progress.asked.as_ref().map_or(progress.since_ms, |asked| asked.at_ms.max(progress.since_ms));
    Blocker { kind, since_ms, waiting_for }
}
