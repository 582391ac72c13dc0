//! Hosts that are on their way out and do not get on: a lame duck serves nobody who is told of it.

use std::collections::BTreeMap;
use std::time::Duration;

use handover_proto::assignment::Assignment;
use handover_proto::blocker::Blocker;
use handover_proto::ids::AgentId;
use handover_proto::numbers::Term;

use super::changes::floor_blocker;
use super::forward::Lap;
use super::{Act, Decision, MAX_ASSIGNMENTS, OURSELVES};
use crate::core::assign::{Place, staying, wanted};
use crate::core::duration;
use crate::core::event::Event;
use crate::core::fleet::{Agent, Fleet};
use crate::core::plan::{Host, Plan, Step};

/// How long a balancer may take to let a host go: as long as a drain waits (`docs/decisions.md` 8).
const PATIENCE: Duration = Duration::from_secs(600);

/// Hosts that have left and may not be stopped, since others are lost meanwhile, are given back; they leave again when the
/// floor holds. Leaving and stopping pass the same check, so that this does not go to and fro by itself.
pub(super) fn given_back(lap: Lap<'_>, step: u32) -> Option<Decision> {
    let back = left(lap.plan, step, lap.fleet, lap.now.term);
    if back.is_empty() || needed(lap, step).is_none() { None } else { Some(in_part(back)) }
}

/// What the floor is short of once all hosts of a step `leave` have left and are stopped, however many of them one decision
/// tells; none: it holds, or that is no such step.
pub(super) fn needed(lap: Lap<'_>, step: u32) -> Option<Blocker> {
    let what = lap.plan.step(step).filter(|what| matches!(what, Step::Leave { .. }))?;
    let next = Place::Forward { step: step + 1 };
    let stop = |host: &Host| (host.agent.clone(), wanted(lap.plan, next, host, lap.now.term));
    let stops = lap.plan.hosts_of(what).map(stop).collect();
    floor_blocker(lap.plan, lap.fleet, &stops, lap.progress.since_ms)
}

/// As many as one decision takes; the next lap does the rest.
fn in_part(back: BTreeMap<AgentId, Assignment>) -> Decision {
    let part: BTreeMap<_, _> = back.into_iter().take(MAX_ASSIGNMENTS).collect();
    let agents = part.keys().cloned().collect();
    Act::assign(Event::Assigned { agents }, part)
}

/// A pause of our own at `step`. A host that has left serves nobody, and a pause may last: it is given back with it, and
/// before it, where there are more than one decision takes. `late` is the last of them: it is what the pause is for.
pub(super) fn paused(lap: Lap<'_>, step: u32, reason: String, late: Option<&AgentId>) -> Decision {
    let mut back = left(lap.plan, step, lap.fleet, lap.now.term);
    if back.len() > MAX_ASSIGNMENTS {
        back.retain(|agent, _| Some(agent) != late);
        return in_part(back);
    }
    Act::assign(Event::Paused { by: OURSELVES.to_owned(), reason, unmeasured: false }, back)
}

/// A host that is kept from its step for too long pauses the rollout: by balancers that do not let it go, or by another host of
/// its wave that does not leave, and then it is given back; or by work of the current version that does not end, which goes
/// on meanwhile.
pub(super) fn held_up(lap: Lap<'_>, step: u32) -> Option<Decision> {
    let rules = &lap.plan.rules;
    let (limit, leaves) = match lap.plan.step(step)? {
        Step::Leave { .. } => (PATIENCE, true),
        // The current version has its drain, and the change as long again as it may take.
        Step::Start { .. } => (rules.drain.deadline().saturating_add(rules.start_deadline), false),
        Step::Stage | Step::Shift { .. } | Step::Lease | Step::Soak { .. } | Step::Retire => return None,
    };
    let late = lap.samples.held_up(step, lap.now.boot, limit).filter(|_| is_late(lap, limit))?;
    let agent = if leaves { stays(lap, step).unwrap_or(late) } else { late };
    let seen = lap.fleet.seen(agent);
    let own = seen.and_then(|(_, report)| report.blocker.as_ref());
    let own = own.map(|blocker| format!(" ({})", blocker.waiting_for)).unwrap_or_default();
    let limit = duration::text(limit);
    let reason = match (leaves, &lap.plan.from) {
        (false, Some(from)) => format!(
            "{agent}: {from} has not made room for {limit}{own}, and the host serves nobody; `resume` goes on waiting, \
             `rollback` lets {from} serve again"
        ),
        _ => {
            let told = seen.map(|(agent, _)| agent.assignment().is_some_and(|stored| stored.leaving));
            let why = match told {
                Some(true) => format!("its balancers have not let it go for {limit}{own}"),
                Some(false) => format!("it could not be told to leave for {limit}"),
                None => format!("it is not heard, and its wave has waited for it for {limit}"),
            };
            format!("{agent}: {why}; what has left is given back, and `resume` tries again")
        }
    };
    Some(paused(lap, step, reason, Some(late)))
}

/// The first host of the wave that has not left.
fn stays(lap: Lap<'_>, step: u32) -> Option<&AgentId> {
    let mut hosts = lap.plan.hosts_of(lap.plan.step(step)?);
    let has_left = |host: &&Host| lap.fleet.agents.get(&host.agent).is_some_and(Agent::is_out);
    hosts.find(|host| !has_left(host)).map(|host| &host.agent)
}

/// Since the step began or was resumed.
fn is_late(lap: Lap<'_>, limit: Duration) -> bool {
    lap.now.wall_ms >= lap.progress.since_ms.saturating_add(duration::millis(limit))
}

/// The hosts of a step `leave` that were told to, with what they had before.
pub(in crate::core) fn left(plan: &Plan, step: u32, fleet: &Fleet, term: Term) -> BTreeMap<AgentId, Assignment> {
    let what = plan.step(step).filter(|step| matches!(step, Step::Leave { .. }));
    let stored = |host: &&Host| fleet.agents.get(&host.agent).and_then(|agent| agent.assignment());
    let hosts = what.into_iter().flat_map(|what| plan.hosts_of(what));
    let told = hosts.filter(|host| stored(host).is_some_and(|stored| stored.leaving));
    told.filter_map(|host| Some((host.agent.clone(), staying(plan, step, host, term)?))).collect()
}
