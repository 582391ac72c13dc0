//! The steps of each way, and what stop-first asks of a fleet.

use std::time::Duration;

use handover_proto::staging::Stages;

use super::PlanError;
use crate::core::fleet::{Agent, Fleet};
use crate::core::plan::{Host, Step};
use crate::core::spec::Spec;

/// The version is in place everywhere before anything is touched: as the spec says, or where an agent fetches and all can
/// be asked.
///
/// # Errors
/// When the spec wants it, and an agent cannot be asked.
pub(super) fn stage(spec: &Spec, fleet: &Fleet, hosts: &[Host]) -> Result<Option<Step>, PlanError> {
    let agents = || hosts.iter().filter_map(|host| fleet.agents.get(&host.agent)).map(|agent| &agent.registration);
    let too_old = agents().find(|registration| registration.stages.is_none());
    let fetches = agents().any(|registration| registration.stages == Some(Stages::Fetches));
    match (spec.stage, too_old) {
        (Some(false), _) => Ok(None),
        (None, too_old) => Ok((fetches && too_old.is_none()).then_some(Step::Stage)),
        (Some(true), None) => Ok(Some(Step::Stage)),
        (Some(true), Some(old)) => {
            Err(PlanError::CannotStage { agent: old.agent.clone(), agent_version: old.agent_version.clone() })
        }
    }
}

/// The candidates beside the current version.
pub(super) fn start_first(spec: &Spec, hosts: &[Host]) -> Vec<Step> {
    let mut steps = Vec::new();
    for wave in waves(hosts) {
        let shift = |reads, writes| Step::Shift { wave, reads, writes, soak: spec.step_soak };
        steps.push(Step::Start { wave });
        steps.extend(spec.shift.iter().map(|reads| shift(*reads, 0)));
        // Writes last and at once: two versions that write at the same time on one host are what goes wrong first.
        steps.push(shift(100, 100));
    }
    steps.extend([Step::Lease, Step::Soak { soak: spec.soak }, Step::Retire]);
    steps
}

/// The candidates in the current version's place. `serving` hosts serve before.
///
/// # Errors
/// When a wave would leave fewer serving than the floor, or its gates would have to hold requests and may not for long enough.
pub(super) fn stop_first(
    spec: &Spec,
    fleet: &Fleet,
    hosts: &[Host],
    serving: usize,
    min_serving: usize,
) -> Result<Vec<Step>, PlanError> {
    let (mut steps, last) = (Vec::new(), hosts.last().map_or(0, |host| host.wave));
    for wave in waves(hosts) {
        let those = hosts.iter().filter(|host| host.wave == wave);
        let size = those.clone().count();
        if serving < min_serving.saturating_add(size) {
            return Err(PlanError::TakesTooMany { wave: size, serving, min_serving });
        }
        those.clone().try_for_each(|host| holds(spec, fleet, host, (size, serving)))?;
        // The holder is in the last wave; with only one nobody is there to take the lease from it before.
        if wave == last && wave > 0 {
            steps.push(Step::Lease);
        }
        if serving > size {
            steps.push(Step::Leave { wave });
        }
        steps.extend([Step::Start { wave }, Step::Shift { wave, reads: 100, writes: 100, soak: spec.step_soak }]);
    }
    if last == 0 {
        steps.push(Step::Lease);
    }
    steps.push(Step::Soak { soak: spec.soak });
    Ok(steps)
}

/// Where nobody else serves, or nobody is told to send elsewhere: that its gate holds requests for as long as the change may
/// take. A start that takes longer sends the rollout back, and that may take as long again.
fn holds(spec: &Spec, fleet: &Fleet, host: &Host, (wave, serving): (usize, usize)) -> Result<(), PlanError> {
    let agent = host.agent.clone();
    let deadline = spec.rules.start_deadline;
    let needed = deadline.saturating_mul(2);
    match fleet.agents.get(&agent).and_then(Agent::hold) {
        None | Some(Duration::ZERO) if wave == serving => Err(PlanError::NobodyLeft { agent, wave, serving }),
        None => Ok(()),
        Some(Duration::ZERO) => Err(PlanError::NobodyTold { agent }),
        Some(hold) if hold < needed => Err(PlanError::HoldsTooShortly { agent, hold, deadline }),
        Some(_) => Ok(()),
    }
}

/// Nothing serves, so nothing can be lost: all hosts at once.
pub(super) fn bring_up(spec: &Spec) -> Vec<Step> {
    let shift = Step::Shift { wave: 0, reads: 100, writes: 100, soak: spec.step_soak };
    vec![Step::Start { wave: 0 }, shift, Step::Lease]
}

fn waves(hosts: &[Host]) -> std::ops::Range<u32> {
    0..hosts.last().map_or(0, |host| host.wave + 1)
}
