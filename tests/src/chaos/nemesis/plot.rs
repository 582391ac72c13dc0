//! Faults in several parts, each of which comes when what it waits for has happened. No timetable would hit them: they
//! are made for one mistake each ([`crate::chaos::mistakes`]), and whoever makes none must survive them as well.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use handover_proto::assignment::Cause;
use handover_proto::ids::OpId;
use handover_proto::lease::{Intent, IntentKind};
use handover_proto::numbers::{Era, Term};
use handover_proto::stored::{STORED_VERSION, encode};
use serde::Serialize;
use serde_json::Value;

use super::network::{Pairs, both};
use super::process::{self, Victim};
use super::store::stall;
use super::{Deed, Scene, Undo};
use crate::chaos::bounds;
use crate::chaos::site::host::ask;
use crate::chaos::stand_in;
use crate::chaos::wire::Shape;
use crate::clock::BootNs;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Plot {
    /// The holder's agent dies cut off from etcd, and comes back while its etcd lease still lives. It can read, through the
    /// one member that it tries last, and is cut off for good before it has renewed.
    Reborn,
    /// The holder is asked to park the lease. Its transaction is held on the wire, and the order is taken back. Once it has
    /// given up waiting for an answer, the transaction arrives, and from then on it hears nothing.
    LateRelease,
    /// The holder reaches the leader alone, whose log stalls until another leads. A keep-alive that the deposed one still
    /// answers is followed by a read when it knows of the other, and then the holder hears nothing.
    DeposedAnswer,
}

/// From one look to the next.
const LOOK: Duration = Duration::from_millis(10);
/// After so long cut off, an etcd lease of 10 s has some seconds left, even if it was last renewed a second before.
const HALF_DEAD: Duration = Duration::from_millis(6500);
/// An agent starts, tries two members in vain and reads from the third.
const READS: Duration = Duration::from_secs(3);
/// A holder hears of the order and sends its transaction.
const SENT: Duration = Duration::from_secs(1);
/// A call without an answer is given up after 2 s.
const GIVEN_UP: Duration = Duration::from_secs(3);
/// How long a request is on its way to the deposed leader: a keep-alive and a read that follows it fit into a renewal of
/// 1.5 s, and as long as this passes between the one's answer and the other's arrival.
const THERE: Duration = Duration::from_millis(500);
/// A tracer takes hold of a process, and a write is in its hands.
const STALLS: Duration = Duration::from_secs(10);
/// From the beginning of the stall: what a false renewal adds from here on lasts longer than the etcd lease, which the new
/// leader counts anew.
const STALLED: Duration = Duration::from_millis(6500);
/// An attempt at each of three members, of 1.5 s; and the etcd lease still lives.
const ATTEMPTS: Duration = Duration::from_millis(4500);
/// A renewal makes its connection within this.
const TOGETHER: Duration = Duration::from_millis(40);
/// From a renewal's beginning: the keep-alive has been answered, and the read has not arrived.
const ANSWERED: Duration = Duration::from_millis(520);
/// The read has been answered.
const READ: Duration = Duration::from_millis(1200);
/// The next attempt's keep-alive has not arrived.
const BEFORE_NEXT: Duration = Duration::from_millis(1550);

/// Begins it.
///
/// # Errors
/// If the system refuses, or what it takes is not there.
pub fn begin(scene: &mut Scene<'_>, plot: Plot) -> Result<(Deed, Undo)> {
    let host = scene.holder();
    let name = scene.name(host);
    let undo = match plot {
        Plot::Reborn => reborn(scene, host)?,
        Plot::LateRelease => late_release(scene, host)?,
        Plot::DeposedAnswer => deposed_answer(scene, host)?,
    };
    let deed = Deed { what: format!("{plot:?} at {name}"), after: bounds::HOST_LOST, ..Deed::default() };
    // An agent that was away, or whose deadline passed unheard, takes its service with it.
    let deed = Deed { hosts: vec![name.clone()], silent: vec![name], ..deed };
    Ok((Deed { traffic_after: bounds::TRAFFIC_BACK_AFTER_STALL, ..deed }, undo))
}

fn pairs(scene: &Scene<'_>, host: usize, which: impl Fn(usize) -> bool) -> Pairs {
    let name = scene.name(host);
    let members = scene.site.etcd.members.iter().enumerate().filter(|(index, _)| which(*index));
    members.flat_map(|(_, member)| both(&name, &member.spot.name)).collect()
}

/// Waits until the agent says that its service works; whether it does.
fn works(scene: &Scene<'_>, host: usize, until: Instant) -> bool {
    let port = scene.site.hosts[host].operations;
    while Instant::now() < until {
        if ask(port).is_ok_and(|said| said["lease"]["state"] == "holder") {
            return true;
        }
        std::thread::sleep(LOOK);
    }
    false
}

fn reborn(scene: &mut Scene<'_>, host: usize) -> Result<Undo> {
    let last = scene.site.etcd.members.len() - 1;
    let (all, first, last) =
        (pairs(scene, host, |_| true), pairs(scene, host, |member| member < last), pairs(scene, host, |m| m == last));
    scene.site.net.cut(&all)?;
    // Whoever holds was asked a moment ago: nobody else's agent is killed.
    let (_, _again) = process::kill(scene, Victim::HolderAgent)?;
    std::thread::sleep(HALF_DEAD);
    scene.site.net.cut(&first)?;
    scene.site.net.heal(&all)?;
    scene.site.start_agent(host)?;
    works(scene, host, Instant::now() + READS);
    scene.site.net.cut(&last)?;
    Ok(Undo::Heal(all))
}

fn late_release(scene: &mut Scene<'_>, host: usize) -> Result<Undo> {
    let from = scene.instance(host).context("the holder's agent names no instance")?;
    let leader = scene.leader()?;
    let (env, service) = stand_in::keys()?;
    let key = service.lease().intent();
    let leads: Value = serde_json::from_str(&scene.site.etcd.ctl(leader, &["get", &env.leader(), "-w", "json"])?)?;
    let term = leads["kvs"][0]["create_revision"].as_i64().context("nobody gives orders")?;
    let park = Intent {
        v: STORED_VERSION,
        op: OpId::random(),
        kind: IntentKind::Park,
        from: from.parse()?,
        to: None,
        quiesce_timeout_ms: 5000,
        term: Term::new(Era(0), term)?,
        cause: Cause { rollout: None, step: 0, plan_hash: String::new() },
    };
    let value = String::from_utf8(encode(&park)?)?;
    scene.site.hosts[host].shape_wires(&Shape { hold_there: true, ..Shape::default() })?;
    scene.site.etcd.ctl(leader, &["put", &key, &value])?;
    std::thread::sleep(SENT);
    scene.site.etcd.ctl(leader, &["del", &key])?;
    works(scene, host, Instant::now() + GIVEN_UP);
    scene.site.hosts[host].shape_wires(&Shape { hold_back: true, ..Shape::default() })?;
    Ok(Undo::Straighten(host))
}

fn deposed_answer(scene: &mut Scene<'_>, host: usize) -> Result<Undo> {
    let leader = scene.leader()?;
    let (others, leaders) = (pairs(scene, host, |m| m != leader), pairs(scene, host, |m| m == leader));
    scene.site.net.cut(&others)?;
    let mut tracer = stall(scene, leader)?;
    let began = deposed(scene, leader)?;
    let there_ms = u64::try_from(THERE.as_millis())?;
    scene.site.hosts[host].shape_wires(&Shape { there_ms, ..Shape::default() })?;
    let renews = renewal_at(scene, host, leader, (began + STALLED, began + STALLED + ATTEMPTS));
    std::thread::sleep(ANSWERED.saturating_sub(renews.elapsed()));
    // Whatever it says: it goes on from here.
    let _ended = tracer.kill();
    std::thread::sleep(READ.saturating_sub(renews.elapsed()));
    works(scene, host, renews + BEFORE_NEXT);
    scene.site.net.cut(&leaders)?;
    let all = others.into_iter().chain(leaders).collect();
    Ok(Undo::All(vec![Undo::Heal(all), Undo::Straighten(host)]))
}

/// Writes through the leader, whose log is about to stall, until a write is not answered: a log to which nothing is written
/// does not stall. Returns when that write began.
fn deposed(scene: &Scene<'_>, leader: usize) -> Result<Instant> {
    let end = Instant::now() + STALLS;
    loop {
        let began = Instant::now();
        if scene.site.etcd.ctl(leader, &["put", "/chaos/stall", "x"]).is_err() {
            return Ok(began);
        }
        if began > end {
            bail!("the leader's log does not stall");
        }
    }
}

/// Waits until `from`, and then for a renewal through this member; when that began. `until`, if none is told apart.
///
/// The agent says in its log that a renewal begins, and not with whom. None is answered, so each goes to the next member,
/// and most make a connection there: those before `from` tell which one is whose.
fn renewal_at(scene: &Scene<'_>, host: usize, member: usize, (from, until): (Instant, Instant)) -> Instant {
    let members = scene.site.etcd.members.len();
    let host = &scene.site.hosts[host];
    let log = host.agent.as_ref().map(|agent| agent.log.clone()).unwrap_or_default();
    let renewals = || std::fs::read_to_string(&log).unwrap_or_default().matches("step=\"Renew\"").count();
    // By how much a renewal's number is ahead of its member's: how often it was seen so.
    let (mut votes, mut seen) = (vec![0; members], renewals());
    while Instant::now() < until {
        std::thread::sleep(LOOK);
        let (now, count) = (Instant::now(), renewals());
        if count == seen {
            continue;
        }
        seen = count;
        let most = (0..members).max_by_key(|ahead| votes[*ahead]).filter(|ahead| votes[*ahead] > 1);
        if now >= from && most.is_some_and(|ahead| (member + ahead) % members == count % members) {
            return now;
        }
        std::thread::sleep(TOGETHER);
        let before = TOGETHER + 2 * LOOK;
        let just = |at: &usize| host.last_dial(*at).is_some_and(|dial| BootNs::now().since(dial) < before);
        (0..members).filter(just).for_each(|dialled| votes[(count + members - dialled) % members] += 1);
    }
    until
}
