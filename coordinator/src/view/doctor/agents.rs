//! The agents: who is silent, what they run, what time they think it is, what they wait for, who is drained.

use std::collections::{BTreeMap, BTreeSet};

use handover_proto::ids::{AgentId, Service};
use handover_proto::registration::Registration;
use handover_proto::stored::StoredError;
use handover_proto::wire::{Finding, FleetRow};

use super::{Patient, age, fail, ok, warn};
use crate::world::Heard;

/// An agent's restart takes about a second; one of its host a minute, which is worth a look.
const RESTART_MS: u64 = 10_000;
/// What an agent waits for in the middle of a step is nothing to look at.
const WAIT_MS: u64 = 60_000;
/// Times in journals, orders with a date and the dark time in the lease's history are wall clock; well-kept clocks differ by
/// milliseconds, and a report is on its way for less than a second.
const CLOCK_MS: u64 = 2_000;

pub(super) fn findings(of: &Patient<'_>) -> Result<Vec<Finding>, StoredError> {
    let registrations = of.world.registrations(of.service)?;
    let heard = |agent: &AgentId| of.world.heard.get(&(of.service.clone(), agent.clone()));
    let mut all = silent(of, &registrations);
    all.push(versions(&registrations, heard));
    all.extend(clocks(&registrations, heard));
    all.extend(hosts(of));
    for agent in registrations.keys() {
        let leaves = of.world.assigned(of.service, agent)?.is_some_and(|assigned| assigned.assignment.leaving);
        all.extend(Some(agent).filter(|_| leaves).and_then(|agent| forgotten(of, agent)));
    }
    Ok(all)
}

fn silent(of: &Patient<'_>, registrations: &BTreeMap<AgentId, Registration>) -> Vec<Finding> {
    let alive: BTreeSet<&str> = of.status.fleet.iter().filter(|row| row.alive).map(|row| row.agent.as_str()).collect();
    let mut all = Vec::new();
    for (agent, known) in registrations.iter().filter(|(agent, _)| !alive.contains(agent.as_str())) {
        let silence = of.world.heard.get(&(of.service.clone(), agent.clone())).and_then(|heard| heard.silent.as_ref());
        let (since_ms, reason) = silence.map_or((0, "its alive key is gone"), |s| (s.since_ms, s.reason.as_str()));
        let sentence = format!(
            "agent {agent} on host {} has not been heard for {}: {reason}",
            known.host,
            age(since_ms, of.at_ms)
        );
        let fix =
            format!("on {}: systemctl status handover-agent@{}; its service may well go on", known.host, of.service);
        let restarts = since_ms > 0 && of.at_ms.saturating_sub(since_ms) < RESTART_MS;
        all.push(if restarts { warn("agents", sentence, fix) } else { fail("agents", sentence, fix) });
    }
    if all.is_empty() {
        all.push(ok("agents", format!("all {} are heard", registrations.len())));
    }
    all
}

/// Agents of one fleet are upgraded one after the other; for days they should not differ.
fn versions<'h>(
    registrations: &BTreeMap<AgentId, Registration>,
    heard: impl Fn(&AgentId) -> Option<&'h Heard>,
) -> Finding {
    let mut by_version: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (agent, registration) in registrations {
        let reported = heard(agent).and_then(|heard| heard.report.as_ref()).map(|report| report.agent_version.clone());
        let version = reported.unwrap_or_else(|| registration.agent_version.clone());
        by_version.entry(version).or_default().push(agent.as_str());
    }
    let mine = env!("CARGO_PKG_VERSION");
    let list = by_version.iter().map(|(version, agents)| format!("{version} ({})", agents.join(", ")));
    let list = list.collect::<Vec<_>>().join("; ");
    match by_version.keys().next() {
        Some(only) if by_version.len() == 1 && only == mine => {
            ok("versions", format!("every agent is {mine}, as we are"))
        }
        Some(only) if by_version.len() == 1 => {
            let sentence = format!("every agent is {only}, and this coordinator is {mine}");
            warn("versions", sentence, "one version apart is supported; install the same package version everywhere")
        }
        _ => warn("versions", format!("the agents differ: {list}"), "install the same package version on every host"),
    }
}

fn clocks<'h>(
    registrations: &BTreeMap<AgentId, Registration>,
    heard: impl Fn(&AgentId) -> Option<&'h Heard>,
) -> Vec<Finding> {
    let known = registrations.keys().filter_map(|agent| Some((agent, heard(agent)?.clock_ms?)));
    let (wrong, right): (Vec<_>, Vec<_>) = known.partition(|(_, off)| off.unsigned_abs() >= CLOCK_MS);
    let mut all: Vec<Finding> = wrong
        .into_iter()
        .map(|(agent, off)| {
            let way = if off > 0 { "ahead of" } else { "behind" };
            let sentence = format!("the clock of {agent} is {} s {way} the coordinator's", off.unsigned_abs() / 1000);
            warn("clock", sentence, "timedatectl on both says which is wrong; start a time service (chrony)")
        })
        .collect();
    if all.is_empty() && !right.is_empty() {
        all.push(ok("clock", format!("{} agents and the coordinator agree within {} s", right.len(), CLOCK_MS / 1000)));
    }
    all
}

/// One line per host that does not do what it could.
fn hosts(of: &Patient<'_>) -> Vec<Finding> {
    let mut seen = BTreeSet::new();
    let rows = of.status.fleet.iter().filter(|row| row.alive && seen.insert(&row.agent));
    let mut all = Vec::new();
    for row in rows {
        all.extend(drained(of, row));
        // Without reports nobody knows.
        let reports =
            |heard: &(Service, AgentId)| of.world.heard.get(heard).is_some_and(|heard| heard.report.is_some());
        let known = row.agent.parse().is_ok_and(|agent| reports(&(of.service.clone(), agent)));
        if known && !row.gate {
            let fix = format!("on its host: systemctl status handover-gate@{}", of.service);
            all.push(fail("hosts", format!("the gate of {} does not answer its agent", row.agent), fix));
        }
        let old = |since_ms: u64| of.at_ms.saturating_sub(since_ms) >= WAIT_MS;
        all.extend(row.blocker.as_ref().filter(|blocker| old(blocker.since_ms)).map(|blocker| {
            let waits = age(blocker.since_ms, of.at_ms);
            let sentence = format!("{} has waited for {waits}: {}", row.agent, blocker.waiting_for);
            warn("hosts", sentence, "handover why says what it hangs on; the agent's journal says more")
        }));
    }
    let serves = |row: &&FleetRow| row.reads > 0 || row.writes > 0;
    let serving = of.status.fleet.iter().filter(serves).map(|row| &row.agent).collect::<BTreeSet<_>>().len();
    let nobody_heard = of.status.fleet.iter().all(|row| !row.reported_shares);
    match serving {
        // Without reports nobody knows.
        0 if nobody_heard => {}
        0 => {
            all.push(fail("hosts", "no host serves", "handover fleet shows each; handover why says what is waited for"))
        }
        _ => all.push(ok("hosts", format!("{serving} serve"))),
    }
    all
}

/// A host that leaves, though nothing that may have made it leave goes on.
fn forgotten(of: &Patient<'_>, agent: &AgentId) -> Option<Finding> {
    let runs = |state: &str| ["running", "paused", "rolling-back"].contains(&state);
    let drained = of.status.fleet.iter().any(|row| row.agent == agent.as_str() && row.drained_by > 0);
    let owned = drained || of.status.rollout.as_ref().is_some_and(|rollout| runs(&rollout.state));
    let sentence = format!("{agent} is out of its balancers, and no order or rollout keeps it there");
    let fix = format!("handover drain {agent}, then handover undrain {agent}, gives it back");
    (!owned).then(|| fail("hosts", sentence, fix))
}

fn drained(of: &Patient<'_>, row: &FleetRow) -> Option<Finding> {
    let order = of.status.orders.iter().find(|order| order.number == row.drained_by && row.drained_by > 0)?;
    let since = age(order.at_ms, of.at_ms);
    let sentence = format!(
        "{} is kept out by order {}, given {since} ago by {} ({})",
        row.agent, order.number, order.by, order.because
    );
    Some(warn("hosts", sentence, format!("handover undrain {}, if that is over", row.agent)))
}
