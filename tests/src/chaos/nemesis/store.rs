//! N5 to N8: what happens to etcd, and what an operator's hand does in it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;

use super::network::{self, Cut};
use super::process::{INVISIBLE, RESUME};
use super::{Deed, Scene, Undo};
use crate::chaos::bounds;
use crate::chaos::stand_in;
use crate::fleet::Process;

/// What happens to etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum StoreFault {
    /// N5: the leader's log is not on its disk for as long as this lasts.
    StallWal,
    /// N6: another member leads.
    MoveLeader,
    /// N6: a member is away.
    LoseMember,
    /// N6: a member is lost with its data and removed; later a new one comes in its place, with none.
    ReplaceMember,
    /// N6: two of three are.
    LoseQuorum,
    /// N6: all are killed at once.
    RestartAll,
    /// N7: no writes.
    NoSpace,
    /// N7: all history is gone under every watch.
    Compact,
    /// N7: another cluster begins from a snapshot that is some seconds old.
    Restore,
    /// N7: the same, with the cluster token of before: its id is the same as well.
    RestoreAlike,
}

/// What an operator does by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Hand {
    /// `etcdctl lease revoke` on a live holder.
    RevokeHolder,
    /// The same, while the holder's host is cut off from etcd: what a defective etcd does (M3), made sure of.
    RevokeDeafHolder,
    /// Deletes the beat.
    DeleteBeat,
    /// Deletes the holder key.
    DeleteHolder,
    /// Deletes a candidate.
    DeleteCandidate,
    /// Writes what nobody can read into the holder key.
    GarbageHolder,
    /// The same for a candidate.
    GarbageCandidate,
}

/// Longer than any schedule: the tracer is ended when the fault is.
const STALL_US: u64 = 60_000_000;
/// What `by_hand` leaves behind: the holder's own turn ends, its lease has to expire, and then the quarantine passes.
const BY_HAND: Duration = bounds::HOST_LOST;

fn leader_and_name(scene: &Scene<'_>) -> Result<(usize, String)> {
    let leader = scene.leader()?;
    Ok((leader, scene.site.etcd.members[leader].spot.name.clone()))
}

/// Begins it.
///
/// # Errors
/// If etcd's own tools refuse.
pub fn begin(scene: &mut Scene<'_>, fault: StoreFault) -> Result<(Deed, Undo)> {
    let (leader, name) = leader_and_name(scene)?;
    let next = (leader + 1) % scene.site.etcd.members.len();
    let deed = |what: String, after: Duration| Deed { what, after, ..Deed::default() };
    Ok(match fault {
        StoreFault::StallWal => {
            let tracer = stall(scene, leader)?;
            (deed(format!("stalls the log of the leader {name}"), RESUME), Undo::End(tracer))
        }
        StoreFault::MoveLeader => {
            let to = scene.site.etcd.id(next)?;
            scene.site.etcd.ctl(leader, &["move-leader", &to])?;
            (deed(format!("moves the leader away from {name}"), INVISIBLE), Undo::Nothing)
        }
        StoreFault::ReplaceMember => {
            scene.site.etcd.remove_member(leader)?;
            (deed(format!("replaces the leader {name} by a new member"), RESUME), Undo::NewMember(leader))
        }
        StoreFault::LoseMember => (deed(format!("loses the leader {name}"), RESUME), lose(scene, &[leader])?),
        StoreFault::LoseQuorum => {
            let lost = [leader, next];
            (deed(format!("loses {name} and another, the quorum"), bounds::QUORUM_BACK), lose(scene, &lost)?)
        }
        StoreFault::RestartAll => (deed("kills all members".into(), bounds::QUORUM_BACK), lose(scene, &[0, 1, 2])?),
        StoreFault::NoSpace => {
            alarm(scene, leader, true)?;
            (deed("raises the alarm NOSPACE: nothing can be written".into(), RESUME), Undo::Disarm)
        }
        StoreFault::Compact => {
            let revision = revision(scene, leader)?;
            scene.site.etcd.ctl(leader, &["compact", &revision.to_string()])?;
            scene.site.etcd.ctl(next, &["defrag"])?;
            (deed(format!("compacts up to revision {revision}, and defragments"), INVISIBLE), Undo::Nothing)
        }
        StoreFault::Restore => restore(scene, leader, false)?,
        StoreFault::RestoreAlike => restore(scene, leader, true)?,
    })
}

/// Adds a new member with no data in the place of one that was removed, and waits for it.
///
/// # Errors
/// If it does not come up.
pub fn add_member(scene: &mut Scene<'_>, member: usize) -> Result<()> {
    scene.site.etcd.add_member(member)?;
    scene.site.etcd.wait_healthy()
}

/// As when a volume hangs: the member's process is in the call and does nothing else.
pub fn stall(scene: &Scene<'_>, member: usize) -> Result<Process> {
    let pid = scene.site.etcd.members[member].pid()?.to_string();
    let inject = format!("inject=fdatasync,fsync:delay_enter={STALL_US}");
    let args = ["-f", "-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync", "-e", &inject, "-p", &pid];
    let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
    Process::spawn("strace", Path::new("/usr/bin/strace"), &args, &scene.site.shared.dir, &[])
}

fn lose(scene: &mut Scene<'_>, members: &[usize]) -> Result<Undo> {
    for member in members {
        if let Some(mut process) = scene.site.etcd.members[*member].process.take() {
            process.kill()?;
        }
    }
    Ok(Undo::Members(members.to_vec()))
}

/// Starts members again, and waits for them.
///
/// # Errors
/// If one does not come back.
pub fn start_members(scene: &mut Scene<'_>, members: &[usize]) -> Result<()> {
    for member in members {
        scene.site.etcd.start_member(*member)?;
    }
    scene.site.etcd.wait_healthy()
}

/// What a disk that is full makes etcd do by itself.
fn alarm(scene: &Scene<'_>, member: usize, on: bool) -> Result<()> {
    use etcd_client::{AlarmAction, AlarmType};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let endpoint = scene.site.etcd.members[member].endpoint();
    let action = if on { AlarmAction::Activate } else { AlarmAction::Deactivate };
    runtime.block_on(async {
        let mut client = crate::chaos::site::etcd::Cluster::client(&endpoint).await?;
        client.alarm(action, AlarmType::Nospace, None).await?;
        Ok(())
    })
}

/// Takes the alarm back.
///
/// # Errors
/// If no member answers.
pub fn disarm(scene: &Scene<'_>) -> Result<()> {
    let leader = scene.leader()?;
    scene.site.etcd.ctl(leader, &["alarm", "disarm"]).map(drop)
}

fn revision(scene: &Scene<'_>, member: usize) -> Result<i64> {
    let status: Value = serde_json::from_str(&scene.site.etcd.ctl(member, &["endpoint", "status", "-w", "json"])?)?;
    status[0]["Status"]["header"]["revision"].as_i64().context("no revision")
}

/// Turns that begin after the snapshot are lost: one is asked for, and whoever works under it must not go on.
fn restore(scene: &mut Scene<'_>, leader: usize, alike: bool) -> Result<(Deed, Undo)> {
    let snapshot = scene.site.etcd.snapshot(leader, "snapshot.db")?;
    let revision = snapshot_revision(scene, &snapshot)?;
    let operator = scene.site.coordinators.as_ref().map(|coordinators| coordinators.operator.clone());
    let operator = operator.context("nobody could raise the era")?;
    // What happens from here on is lost. If nobody is ready to take over, that is little.
    let _ordered = operator.order_hand_over();
    std::thread::sleep(bounds::LOST_HISTORY);
    scene.site.etcd.kill_all()?;
    // Before the first answer of the new life.
    scene.recorder.reborn(revision);
    scene.site.etcd.restore(&snapshot, alike)?;
    let id = if alike { "the same cluster id" } else { "another cluster id" };
    let lost = bounds::LOST_HISTORY;
    let what = format!("restores etcd with {id} from a snapshot of revision {revision}, {lost:?} old");
    Ok((Deed { what, after: bounds::RESTORED, ..Deed::default() }, Undo::RaiseEra))
}

fn snapshot_revision(scene: &Scene<'_>, snapshot: &Path) -> Result<i64> {
    let status = scene.site.etcd.ctl(0, &["snapshot", "status", &snapshot.display().to_string(), "-w", "json"])?;
    let status: Value = serde_json::from_str(&status)?;
    status["revision"].as_i64().with_context(|| format!("no revision in {status}"))
}

/// An operator's hand.
///
/// # Errors
/// If there is nothing to meddle with.
pub fn meddle(scene: &mut Scene<'_>, hand: Hand) -> Result<(Deed, Undo)> {
    let (_, service) = stand_in::keys()?;
    let keys = service.lease();
    let leader = scene.leader()?;
    let ctl = |args: &[&str]| scene.site.etcd.ctl(leader, args);
    let candidate = || -> Result<String> {
        let found = ctl(&["get", "--prefix", "--keys-only", &keys.candidates()])?;
        found.lines().find(|line| !line.is_empty()).map(str::to_owned).context("no candidate to meddle with")
    };
    let before = revision(scene, leader)?;
    let (after, undo) = match hand {
        Hand::RevokeHolder => {
            revoke(scene, leader, &keys.holder())?;
            (RESUME, Undo::Nothing)
        }
        Hand::RevokeDeafHolder => {
            let deaf = scene.holder();
            let (_, cut) = network::cut(scene, Cut::HolderEtcd)?;
            // In the moments before it is cut off it may still hand over.
            let holder = ctl(&["get", "--print-value-only", &keys.holder()])?;
            let holder: Value = serde_json::from_str(holder.trim()).context("nobody holds")?;
            if holder["owner"]["agent"].as_str() != Some(&scene.name(deaf)) {
                if let Undo::Heal(pairs) = &cut {
                    scene.site.net.heal(pairs)?;
                }
                bail!("the lease went to another than {} at this moment", scene.name(deaf));
            }
            revoke(scene, leader, &keys.holder())?;
            (BY_HAND, cut)
        }
        Hand::DeleteBeat => {
            ctl(&["del", &keys.beat()])?;
            (RESUME, Undo::Nothing)
        }
        Hand::DeleteHolder => {
            ctl(&["del", &keys.holder()])?;
            (BY_HAND, Undo::Nothing)
        }
        Hand::DeleteCandidate => {
            ctl(&["del", &candidate()?])?;
            (RESUME, Undo::Nothing)
        }
        Hand::GarbageHolder => {
            ctl(&["put", &keys.holder(), "{\"v\":1,"])?;
            (BY_HAND, Undo::Delete(keys.holder()))
        }
        Hand::GarbageCandidate => {
            ctl(&["put", &candidate()?, "{\"v\":1,"])?;
            (RESUME, Undo::Nothing)
        }
    };
    let by_hand = (before + 1..=revision(scene, leader)?).collect();
    let what = format!("an operator's hand: {hand:?}");
    Ok((Deed { what, after, by_hand, ..Deed::default() }, undo))
}

fn revoke(scene: &Scene<'_>, member: usize, holder: &str) -> Result<()> {
    let value = scene.site.etcd.ctl(member, &["get", "--print-value-only", holder])?;
    let value: Value = serde_json::from_str(value.trim()).context("nobody holds")?;
    let Some(lease) = value["lease_id"].as_i64() else { bail!("nobody holds") };
    scene.site.etcd.ctl(member, &["lease", "revoke", &format!("{lease:x}")]).map(drop)
}

/// Deletes a key by hand; the revisions that this may have been.
///
/// # Errors
/// If no member answers.
pub fn delete(scene: &Scene<'_>, key: &str) -> Result<Vec<i64>> {
    let leader = scene.leader()?;
    let before = revision(scene, leader)?;
    scene.site.etcd.ctl(leader, &["del", key])?;
    Ok((before + 1..=revision(scene, leader)?).collect())
}
