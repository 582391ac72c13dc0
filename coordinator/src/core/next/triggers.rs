//! What sends a rollout back by itself. Only what was seen does: an agent that is not heard says nothing, neither that
//! its candidate is well nor that it is not (`SAFETY.md` E16).

use handover_proto::ids::Version;

use super::{Now, met};
use crate::core::assign::{Place, begun};
use crate::core::duration;
use crate::core::fleet::Fleet;
use crate::core::plan::{Host, Plan, Step};
use crate::core::progress::Progress;
use crate::core::samples::Samples;

/// The first reason to go back, in the order of how sure it is; none at the step from which there is no way back.
///
/// `deadlines`: whether steps have to be met in time. Not while an operator has paused the rollout.
pub(super) fn reason(
    plan: &Plan,
    progress: &Progress,
    fleet: &Fleet,
    samples: &Samples,
    now: Now,
    deadlines: bool,
) -> Option<String> {
    let place = Place::of(progress).filter(|_| progress.can_go_back(plan))?;
    let hosts = || begun(plan, place);
    let late =
        deadlines && now.wall_ms >= progress.since_ms.saturating_add(duration::millis(plan.rules.start_deadline));
    hosts()
        .find_map(|host| crashed(plan, host, fleet))
        .or_else(|| {
            hosts()
                .filter(|host| late && samples.had_time(plan, host, fleet, now.boot))
                .find_map(|host| not_started(plan, place, host, fleet))
        })
        .or_else(|| samples.unready(plan, now.boot))
        .or_else(|| samples.failing(plan, now.boot))
}

fn crashed(plan: &Plan, host: &Host, fleet: &Fleet) -> Option<String> {
    let (agent, report) = fleet.seen(&host.agent)?;
    let wish: Option<&Version> = agent.assignment()?.slots.get(&host.candidate).map(|wish| &wish.version);
    let slot = report.slots.get(&host.candidate)?;
    if wish != Some(&plan.to) || !agent.has_taken() || slot.crashes == 0 {
        return None;
    }
    let how = slot.last_exit.as_deref().unwrap_or("it is not known how");
    Some(format!("{}: the candidate {} ended by itself ({how})", host.agent, plan.to))
}

fn not_started(plan: &Plan, place: Place, host: &Host, fleet: &Fleet) -> Option<String> {
    if plan.step(place.reached_step()) != Some(&Step::Start { wave: host.wave }) {
        return None;
    }
    let (agent, report) = fleet.seen(&host.agent)?;
    // Before it was asked for, something else is waited for.
    agent.assignment()?.slots.get(&host.candidate).filter(|wish| wish.version == plan.to)?;
    let found = report.slots.get(&host.candidate).and_then(|slot| slot.instance.as_ref());
    if found.is_some_and(|found| met::is_up(found, plan)) {
        return None;
    }
    let unmet = found.map(|found| found.unmet.join(", ")).filter(|unmet| !unmet.is_empty());
    let unmet = unmet.map(|unmet| format!(": {unmet}")).unwrap_or_default();
    let deadline = duration::text(plan.rules.start_deadline);
    Some(format!("{}: the candidate {} is not READY after {deadline}{unmet}", host.agent, plan.to))
}
