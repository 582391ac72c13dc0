//! N18: two coordinators at once, and a stale one that comes back. Each fault comes right after an order to hand the lease
//! over, so that whoever is hit has something under way that it must not finish in another's reign.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;

use super::process::INVISIBLE;
use super::{Deed, Scene, Undo};
use crate::chaos::site::coordinators::Coordinators;
use crate::chaos::stand_in;

/// What happens among the coordinators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Rival {
    /// The leading one is stopped until another leads, then continued.
    Stale,
    /// The leading one is cut off from etcd: it goes on believing that it leads when another does.
    Deaf,
    /// The leader key is deleted by hand: another leads before the first has heard of it.
    Deposed,
    /// The leading one is killed.
    Killed,
    /// The one that follows is killed.
    FollowerKilled,
    /// Both are killed.
    BothKilled,
}

fn all<'a>(scene: &'a Scene<'_>) -> Result<&'a Coordinators> {
    scene.site.coordinators.as_ref().context("the site has no coordinators")
}

/// Begins it.
///
/// # Errors
/// If the site has no coordinators, or none leads.
pub fn begin(scene: &mut Scene<'_>, rival: Rival) -> Result<(Deed, Undo)> {
    let coordinators = all(scene)?;
    let leader = coordinators.leader(&scene.site.etcd)?;
    let other = (leader + 1) % coordinators.members.len();
    // Nobody may be ready to take over: then there is nothing under way, and it is as well.
    let ordered = coordinators.operator.order_hand_over().is_ok();
    let leads = coordinators.members[leader].spot.name.clone();
    let undo = match rival {
        Rival::Stale => {
            let process = coordinators.members[leader].process.as_ref().context("the leader does not run")?;
            let group = -i32::try_from(process.pid())?;
            kill(Pid::from_raw(group), Signal::SIGSTOP)?;
            Undo::Continue(vec![group])
        }
        Rival::Deaf => {
            let members = scene.site.etcd.members.iter().map(|member| member.spot.name.clone());
            let pairs: Vec<_> =
                members.flat_map(|member| [(leads.clone(), member.clone()), (member, leads.clone())]).collect();
            scene.site.net.cut(&pairs)?;
            Undo::Heal(pairs)
        }
        Rival::Deposed => {
            let (env, _) = stand_in::keys()?;
            scene.site.etcd.ctl(scene.leader()?, &["del", &env.leader()])?;
            Undo::Nothing
        }
        Rival::Killed => end(scene, vec![leader])?,
        Rival::FollowerKilled => end(scene, vec![other])?,
        Rival::BothKilled => end(scene, vec![leader, other])?,
    };
    let order = if ordered { "after an order to hand over" } else { "with nothing ordered" };
    let what = format!("coordinators: {rival:?} while {leads} leads, {order}");
    Ok((Deed { what, after: INVISIBLE, ..Deed::default() }, undo))
}

fn end(scene: &mut Scene<'_>, which: Vec<usize>) -> Result<Undo> {
    let coordinators = scene.site.coordinators.as_mut().context("the site has no coordinators")?;
    for index in &which {
        coordinators.members[*index].process.take().context("it does not run")?.kill()?;
    }
    Ok(Undo::Coordinators(which))
}

/// Starts them again.
///
/// # Errors
/// If one cannot be started.
pub fn start(scene: &mut Scene<'_>, which: &[usize]) -> Result<()> {
    let coordinators = scene.site.coordinators.as_mut().context("the site has no coordinators")?;
    which.iter().try_for_each(|index| coordinators.start(*index))
}

/// An operator raises the era, after a restore; again, if that changed under his hands.
///
/// # Errors
/// If the command fails.
pub fn raise_era(scene: &mut Scene<'_>) -> Result<()> {
    let operator = &all(scene)?.operator;
    let mut last = operator.raise_era();
    for _ in 0..TRIES {
        if last.is_ok() {
            break;
        }
        // Members that have just come back elect a leader first.
        std::thread::sleep(AGAIN);
        last = operator.raise_era();
    }
    last
}

const TRIES: u32 = 10;
const AGAIN: Duration = Duration::from_millis(500);
