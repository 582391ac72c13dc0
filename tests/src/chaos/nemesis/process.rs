//! N1 and N2: programs are killed, or stopped and continued, without a word.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;
use serde::Serialize;

use super::{Deed, Scene, Undo};
use crate::chaos::bounds;

/// What is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Victim {
    /// The holder's agent. Killed, it is started again, as the service manager would.
    HolderAgent,
    /// The holder's service.
    HolderApp,
    /// The service of a host that does not hold.
    OtherApp,
    /// The holder's gate.
    Gate,
    /// Agent, service and gate of the holder's host.
    HolderHost,
    /// The etcd member that leads.
    EtcdLeader,
    /// Another member.
    EtcdFollower,
}

/// Darkness after the end of what the holder's side suffers: it sees a renewal accepted, or takes its turn up anew.
pub(super) const RESUME: Duration = Duration::from_secs(2 + bounds::MACHINE.as_secs());
/// A killed service is known to be dead at once (§1.9: 1 s and the start of work), but it takes a place to start again.
const APP_GONE: Duration = bounds::APP_GONE;
/// No change at all is expected; this much is the machine's.
pub(super) const INVISIBLE: Duration = bounds::MACHINE;

fn group(pid: i32) -> i32 {
    -pid
}

fn pid_of(process: Option<&crate::fleet::Process>) -> Result<i32> {
    Ok(i32::try_from(process.context("it does not run")?.pid())?)
}

/// Host and process groups of a victim.
fn targets(scene: &Scene<'_>, victim: Victim) -> Result<(String, Vec<i32>, Option<usize>)> {
    let holder = scene.holder();
    let other = (holder + 1) % scene.site.hosts.len();
    let app = |host: usize| scene.site.hosts[host].app().context("no service runs there").map(group);
    let host = &scene.site.hosts[holder];
    let name = |host: usize, what: &str| format!("{what} of {}", scene.name(host));
    Ok(match victim {
        Victim::HolderAgent => (name(holder, "agent"), vec![group(pid_of(host.agent.as_ref())?)], Some(holder)),
        Victim::HolderApp => (name(holder, "service"), vec![app(holder)?], Some(holder)),
        Victim::OtherApp => (name(other, "idle service"), vec![app(other)?], Some(other)),
        Victim::Gate => (name(holder, "gate"), vec![group(pid_of(host.gate.as_ref())?)], Some(holder)),
        Victim::HolderHost => {
            let (agent, gate) = (pid_of(host.agent.as_ref())?, pid_of(host.gate.as_ref())?);
            (name(holder, "whole host"), vec![group(agent), group(gate), app(holder)?], Some(holder))
        }
        Victim::EtcdLeader | Victim::EtcdFollower => {
            let leader = scene.leader()?;
            let member = if victim == Victim::EtcdLeader { leader } else { (leader + 1) % 3 };
            let pid = i32::try_from(scene.site.etcd.members[member].pid()?)?;
            (format!("etcd {} ({victim:?})", scene.site.etcd.members[member].spot.name), vec![group(pid)], None)
        }
    })
}

/// Kills it.
///
/// # Errors
/// If it does not run.
pub fn kill(scene: &mut Scene<'_>, victim: Victim) -> Result<(Deed, Undo)> {
    let (what, groups, host) = targets(scene, victim)?;
    for group in &groups {
        // One that has just ended is as dead as asked for.
        let _ended_already = send(Pid::from_raw(*group), Signal::SIGKILL);
    }
    let deed = Deed { what: format!("kills the {what}"), after: INVISIBLE, ..Deed::default() };
    let hosts = host.map(|host| scene.name(host)).into_iter().collect();
    let member = || scene.site.etcd.members.iter().position(|m| m.pid().is_ok_and(|pid| is(&groups, pid)));
    Ok(match (victim, host) {
        (Victim::HolderApp, _) => (Deed { after: APP_GONE, hosts, ..deed }, Undo::Nothing),
        (Victim::OtherApp, _) => (Deed { hosts, ..deed }, Undo::Nothing),
        (Victim::Gate, Some(host)) => (Deed { hosts, ..deed }, Undo::Gate(host)),
        // No request notices; but nobody tells what the gate does until there is an agent again.
        (Victim::HolderAgent, Some(host)) => (Deed { silent: hosts, ..deed }, Undo::Agent(host)),
        // The whole host is down for the rest of the schedule: gate and agent are not started again.
        (Victim::HolderHost, _) => {
            (Deed { after: bounds::HOST_LOST, traffic_after: bounds::FOR_EVER, hosts, ..deed }, Undo::Nothing)
        }
        _ => {
            let member = member().context("no such member")?;
            let mut process = scene.site.etcd.members[member].process.take().context("no such member")?;
            process.wait()?;
            (Deed { after: RESUME, ..deed }, Undo::Members(vec![member]))
        }
    })
}

fn is(groups: &[i32], pid: u32) -> bool {
    groups.iter().any(|group| group.unsigned_abs() == pid)
}

/// Stops it until [`go_on`].
///
/// # Errors
/// If it does not run.
pub fn freeze(scene: &mut Scene<'_>, victim: Victim) -> Result<(Deed, Undo)> {
    let (what, groups, host) = targets(scene, victim)?;
    let paused = match (victim, host) {
        (Victim::HolderApp | Victim::OtherApp | Victim::HolderHost, Some(host)) => scene.instance(host),
        _ => None,
    };
    for group in &groups {
        send(Pid::from_raw(*group), Signal::SIGSTOP).with_context(|| format!("stopping the {what}"))?;
    }
    // An agent that wakes up beyond the hard deadline kills its service, which takes the requests of that moment with it.
    let deed = Deed {
        what: format!("freezes the {what}"),
        traffic_after: bounds::TRAFFIC_BACK_AFTER_STALL,
        after: RESUME,
        hosts: host.map(|host| scene.name(host)).into_iter().collect(),
        paused: paused.into_iter().collect(),
        ..Deed::default()
    };
    Ok((deed, Undo::Continue(groups)))
}

/// Lets them go on.
pub fn go_on(groups: &[i32]) {
    for group in groups {
        // What was killed meanwhile, as a service that made no progress is, needs no continuing.
        let _killed_meanwhile = send(Pid::from_raw(*group), Signal::SIGCONT);
    }
}
