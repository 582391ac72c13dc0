//! The way forward, and the pause on it.

use std::collections::BTreeMap;
use std::time::Duration;

use handover_proto::assignment::Assignment;
use handover_proto::blocker::{Blocker, BlockerKind};
use handover_proto::ids::AgentId;
use handover_proto::numbers::Term;

use super::changes::{changes, floor_blocker};
use super::lease::{self, Standing};
use super::{Act, Decision, Now, OURSELVES, ended_without_silent, leaving, met, staging};
use crate::core::assign::{Place, begun, wanted};
use crate::core::duration;
use crate::core::event::{BackStep, Event, Outcome};
use crate::core::fleet::Fleet;
use crate::core::plan::{Host, Plan, Step};
use crate::core::progress::Progress;
use crate::core::samples::Samples;
use crate::core::spec::Unmeasured;

/// Everything that a lap looks at.
#[derive(Clone, Copy)]
pub(super) struct Lap<'a> {
    pub(super) plan: &'a Plan,
    pub(super) progress: &'a Progress,
    pub(super) fleet: &'a Fleet,
    pub(super) samples: &'a Samples,
    pub(super) now: Now,
}

/// Running at `step`.
pub(super) fn next(lap: Lap<'_>, step: u32) -> Decision {
    if let Some(reason) = lap.trigger(true) {
        return go_back(lap, step, reason);
    }
    if let Err(corrupt) = lap.fleet.lease.check() {
        return leaving::paused(lap, step, corrupt.to_string(), None);
    }
    if lap.plan.step(step) == Some(&Step::Stage) {
        return staging::next(lap, step);
    }
    if let Some(back) = leaving::given_back(lap, step) {
        return back;
    }
    let waits = met::forward(lap.plan, step, lap.fleet, lap.progress.since_ms);
    if let Some(paused) = leaving::held_up(lap, step).filter(|_| !waits.is_empty()) {
        return paused;
    }
    let late = changes(lap, Place::Forward { step });
    if !late.is_empty() {
        let agents = late.keys().cloned().collect();
        return unless_needed(lap, step, late, |late| Act::assign(Event::Assigned { agents }, late));
    }
    if !waits.is_empty() {
        return left_silent(lap, step, &waits).unwrap_or(Decision::Wait { blockers: waits, until: lap.deadline(step) });
    }
    if lap.plan.step(step) == Some(&Step::Lease) {
        match lease::forward(lap.plan, lap.progress, lap.fleet, lap.now) {
            Standing::Settled => {}
            Standing::Broken(reason) => return go_back(lap, step, reason),
            other => return until_settled(lap, step, other),
        }
    }
    soak(lap, step).unwrap_or_else(|| enter(lap, step + 1))
}

/// Paused at `step`: limits stay in force, deadlines do not.
pub(super) fn paused(lap: Lap<'_>, step: u32, by: &str, reason: &str) -> Decision {
    if let Some(reason) = lap.trigger(false) {
        return go_back(lap, step, reason);
    }
    let waiting_for = format!("`handover rollout resume` or `rollback`: paused by {by} ({reason})");
    Decision::wait(Blocker { kind: BlockerKind::Paused, since_ms: lap.progress.since_ms, waiting_for })
}

/// The latch and the traffic's way back, in one transaction.
fn go_back(lap: Lap<'_>, step: u32, reason: String) -> Decision {
    let place = Place::Back { step: BackStep::Routes, from_step: step };
    let event = Event::Back { by: OURSELVES.to_owned(), reason };
    Act::assign(event, changes(lap, place))
}

/// What is done about a lease that is not where it should be.
fn until_settled(lap: Lap<'_>, step: u32, standing: Standing) -> Decision {
    match standing {
        Standing::Wait(blocker) => Decision::wait(blocker),
        Standing::Ask { intent, from, to } => lap.ask(intent, from, to),
        Standing::Stuck(reason) | Standing::Broken(reason) => leaving::paused(lap, step, reason, None),
        Standing::Settled => Decision::wait(lease::on_its_way(lap.progress)),
    }
}

/// Unless the floor needs the hosts that would go, or the lease is with one of them, and cannot or has not yet moved.
fn unless_needed(
    lap: Lap<'_>,
    step: u32,
    changes: BTreeMap<AgentId, Assignment>,
    act: impl FnOnce(BTreeMap<AgentId, Assignment>) -> Decision,
) -> Decision {
    let short = floor_blocker(lap.plan, lap.fleet, &changes, lap.progress.since_ms);
    if let Some(blocker) = short.or_else(|| leaving::needed(lap, step)) {
        return Decision::wait(blocker);
    }
    match lap.plan.step(step) {
        Some(Step::Leave { wave }) => match lease::away(lap.plan, lap.progress, lap.fleet, lap.now, *wave) {
            Standing::Settled => act(changes),
            other => until_settled(lap, step, other),
        },
        Some(Step::Start { .. }) if lap.plan.is_in_place() => {
            let (to, since_ms) = (Some(&lap.plan.to), lap.progress.since_ms);
            let frozen = changes.keys().find_map(|agent| lease::frozen_with(lap.fleet, agent, to, since_ms));
            frozen.map_or_else(|| act(changes), Decision::wait)
        }
        _ => act(changes),
    }
}

/// What a step that is met is still watched for.
fn soak(lap: Lap<'_>, step: u32) -> Option<Decision> {
    let soak = lap.plan.step(step).map(Step::soak)?;
    let met_since = lap.samples.met_since(Place::Forward { step }).unwrap_or(lap.now.boot);
    let until = met_since.saturating_add(soak);
    if lap.now.boot < until {
        let waiting_for = format!("the soak of this step, {}", duration::text(soak));
        let blocker = Blocker { kind: BlockerKind::Soak, since_ms: lap.progress.since_ms, waiting_for };
        return Some(Decision::Wait { blockers: vec![blocker], until: Some(until) });
    }
    // Too little to go back for, too much to go on with.
    let Some(suspect) = lap.samples.suspect(lap.plan, lap.now.boot) else { return unmeasured(lap, step, soak) };
    let waiting_for = format!("enough answers to judge: {suspect}");
    Some(Decision::wait(Blocker { kind: BlockerKind::Samples, since_ms: lap.progress.since_ms, waiting_for }))
}

/// What was watched, though nobody counts how the candidate answers: no data is no promotion (`SAFETY.md` E16). A fleet
/// that is brought up has nothing to go back to, and a step without a soak is not watched.
fn unmeasured(lap: Lap<'_>, step: u32, soak: Duration) -> Option<Decision> {
    let goes_on = lap.plan.rules.health.unmeasured == Unmeasured::GoOn || lap.progress.vouched;
    if goes_on || soak.is_zero() || lap.plan.from.is_none() {
        return None;
    }
    let place = Place::Forward { step };
    let serves = |host: &&Host| {
        let (reads, writes) = wanted(lap.plan, place, host, Term::default()).weights(&host.candidate);
        reads + writes > 0
    };
    let blind = |host: &&Host| {
        let candidate = lap.fleet.instance(&host.agent, &host.candidate);
        candidate.is_some_and(|found| found.version == lap.plan.to && found.traffic.is_none())
    };
    let host = begun(lap.plan, place).filter(serves).find(blind)?;
    let (agent, to) = (&host.agent, &lap.plan.to);
    let reason = format!(
        "nobody measures how {to} answers on {agent} (mode signal has no gate); look at it yourself, then `handover rollout \
         resume`, or `rollback`; `unmeasured = \"go-on\"` under [health] in the spec goes on without"
    );
    Some(Act::only(Event::Paused { by: OURSELVES.to_owned(), reason, unmeasured: true }))
}

pub(super) fn enter(lap: Lap<'_>, next: u32) -> Decision {
    // An intent that has done its work would keep others from the lease, should the new holder be lost.
    let ask = lap.spent_intent();
    if lap.plan.step(next).is_none() {
        return Act::all(Event::Ended { outcome: Outcome::Done, reason: String::new() }, BTreeMap::new(), ask);
    }
    let changes = changes(lap, Place::Forward { step: next });
    unless_needed(lap, next, changes, |changes| Act::all(Event::Entered { step: next }, changes, ask))
}

/// At the last step nobody waits for ever for a host that is gone: its assignment is stored, and the outcome says so.
fn left_silent(lap: Lap<'_>, step: u32, waits: &[Blocker]) -> Option<Decision> {
    let from = lap.plan.from.as_ref().filter(|_| lap.plan.step(step) == Some(&Step::Retire))?;
    let done = format!("{} serves, but {from} could not be seen to stop everywhere", lap.plan.to);
    ended_without_silent(lap, waits, &done)
}
