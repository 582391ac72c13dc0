//! Having a version in place on hosts, ahead of its window. Nothing that serves is touched, so that nothing else has to
//! wait for it: neither the lease nor a drain.

use std::collections::BTreeSet;

use handover_proto::assignment::Cause;
use handover_proto::ids::{AgentId, Version};
use handover_proto::staging::StagingRequest;
use handover_proto::stored::{Rest, STORED_VERSION};

use super::give::Refused;
use super::next::{Change, Step};
use super::{Outcome, Phase, Scene, StandingOrder, What};
use crate::core::staging::{Ask, HostEnd, HostStand, Requested, refusals, stand};

/// What is refused at once.
///
/// # Errors
/// [`Refused`].
pub(super) fn check(order: &StandingOrder, hosts: &BTreeSet<AgentId>, scene: &Scene<'_>) -> Result<(), Refused> {
    if hosts.is_empty() {
        return Err(Refused::NoHosts);
    }
    if let Some(rollout) = scene.rollout {
        return Err(Refused::RolloutHasItsVersion(rollout.id.clone()));
    }
    let other = scene.others.iter().find(|other| matches!(other.what, What::Stage { .. }));
    if let Some(other) = other.filter(|other| other.number != order.number) {
        return Err(Refused::OtherStaging { number: other.number, what: other.sentence() });
    }
    for host in hosts {
        let agent = scene.fleet.agents.get(host).ok_or_else(|| Refused::UnknownAgent(host.clone()))?;
        if agent.registration.stages.is_none() {
            let agent_version = agent.registration.agent_version.clone();
            return Err(Refused::CannotStage { agent: host.clone(), agent_version });
        }
    }
    Ok(())
}

/// The hosts are asked.
///
/// # Errors
/// [`Refused`].
pub(super) fn begin(order: &StandingOrder, scene: &Scene<'_>) -> Result<Change, Refused> {
    let What::Stage { version, hosts } = &order.what else { return Err(Refused::NoHosts) };
    check(order, hosts, scene)?;
    let phase = Phase::Staging { since_ms: scene.now.wall_ms };
    Ok(asking(order, scene, version, hosts, phase, format!("asked {} to stage {version}", named(hosts))))
}

/// Until every host has ended, or a rollout begins.
pub(super) fn next(order: &StandingOrder, scene: &Scene<'_>, since_ms: u64) -> Step {
    let What::Stage { version, hosts } = &order.what else { return Step::Rest };
    if let Some(rollout) = scene.rollout {
        let reason = format!("rollout {} runs, and what it may still start must not be pruned", rollout.id);
        return taken_back(order, scene, reason).step();
    }
    let requested = match &scene.fleet.staging {
        Some(requested) if requested.is_for(&cause(order)) => requested,
        Some(other) => {
            let reason = format!("{} has {} staged now", other.whose(), other.request.version);
            return Change::of(order.ended(scene.now, Outcome::Undone, reason)).step();
        }
        None => {
            let line = "asked again, since what was asked is not in the store any more".to_owned();
            return asking(order, scene, version, hosts, Phase::Staging { since_ms }, line).step();
        }
    };
    if let Some((host, end)) = news(order, scene, requested) {
        let mut next = order.then(scene.now, Phase::Staging { since_ms }, end.in_words(&host, version));
        next.staged.insert(host, end.in_short());
        return Change::of(next).step();
    }
    let open = hosts.iter().filter(|host| !order.staged.contains_key(*host));
    let blockers = open.filter_map(|host| stand(scene.fleet, host, requested).blocker(host, version, since_ms));
    // First those about whom somebody can do something.
    match blockers.min_by_key(|blocker| blocker.kind) {
        Some(blocker) => Step::Wait { blocker, until: None },
        None => Change { staging: Some(Ask::Withdraw), ..Change::of(ended(order, scene, version)) }.step(),
    }
}

/// The first host that has ended, and is not written down yet.
fn news(order: &StandingOrder, scene: &Scene<'_>, requested: &Requested) -> Option<(AgentId, HostEnd)> {
    let hosts = requested.request.hosts.iter().filter(|host| !order.staged.contains_key(*host));
    let ended = |host: &AgentId| match stand(scene.fleet, host, requested) {
        HostStand::Ended(end) => Some((host.clone(), end)),
        HostStand::Away { .. } | HostStand::Asked { .. } | HostStand::Underway(_) => None,
    };
    hosts.filter_map(ended).next()
}

fn ended(order: &StandingOrder, scene: &Scene<'_>, version: &Version) -> StandingOrder {
    let (all, good) = (order.staged.len(), order.staged.values().filter(|end| end.is_staged()).count());
    match refusals(&order.staged, version) {
        None => order.ended(scene.now, Outcome::Done, format!("{version} is staged on {}", counted(all))),
        Some(refusals) => {
            let reason = format!(
                "{version} is staged on {good} of {}, and what serves was not touched; {refusals}",
                counted(all)
            );
            order.ended(scene.now, Outcome::Failed, reason)
        }
    }
}

/// The order is taken back: hosts that have the version keep it, others stop.
pub(super) fn cancel(order: &StandingOrder, scene: &Scene<'_>, by: &str) -> Change {
    taken_back(order, scene, format!("cancelled by {by}"))
}

fn taken_back(order: &StandingOrder, scene: &Scene<'_>, reason: String) -> Change {
    let ours = scene.fleet.staging.as_ref().is_some_and(|requested| requested.is_for(&cause(order)));
    let change = Change::of(order.ended(scene.now, Outcome::Undone, reason));
    Change { staging: ours.then_some(Ask::Withdraw), ..change }
}

fn asking(
    order: &StandingOrder,
    scene: &Scene<'_>,
    version: &Version,
    hosts: &BTreeSet<AgentId>,
    phase: Phase,
    line: String,
) -> Change {
    let request = StagingRequest {
        v: STORED_VERSION,
        term: scene.now.term,
        cause: cause(order),
        version: version.clone(),
        hosts: hosts.iter().filter(|host| !order.staged.contains_key(*host)).cloned().collect(),
        rest: Rest::new(),
    };
    Change { staging: Some(Ask::Request(request)), ..Change::of(order.then(scene.now, phase, line)) }
}

/// The order's number stands where a rollout's step does.
fn cause(order: &StandingOrder) -> Cause {
    Cause { rollout: None, step: u32::try_from(order.number).unwrap_or(0), plan_hash: String::new() }
}

/// Hosts in words.
pub(super) fn named(hosts: &BTreeSet<AgentId>) -> String {
    let names: Vec<&str> = hosts.iter().map(AgentId::as_str).collect();
    match names.as_slice() {
        [first, second, rest @ ..] if rest.len() > 1 => format!("{first}, {second} and {} more", rest.len()),
        few => few.join(", "),
    }
}

fn counted(hosts: usize) -> String {
    if hosts == 1 { "1 host".to_owned() } else { format!("{hosts} hosts") }
}
