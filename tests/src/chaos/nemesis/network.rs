//! N3 and N4: silence between two hosts, and wires that delay, stall, tear or thin out what goes to etcd.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use super::process::RESUME;
use super::{Deed, Scene, Undo};
use crate::chaos::site::{DATABASE, Site};
use crate::chaos::wire::Shape;

/// Who is kept from whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Cut {
    /// The holder's host from all of etcd.
    HolderEtcd,
    /// What the holder's host says reaches etcd, and no answer comes back.
    HolderEtcdOneWay,
    /// The same the other way: it hears, and is not heard.
    EtcdHearsNot,
    /// The holder's host from the database.
    HolderDatabase,
    /// The hosts from each other.
    HostHost,
    /// The holder's host from both coordinators.
    HolderCoordinators,
    /// The member that leads from the other two.
    LeaderMembers,
    /// The member that leads from all hosts; members see each other.
    LeaderHosts,
}

/// What a wire to etcd does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Bend {
    /// Everything comes 300 ms late, give or take 200.
    Late,
    /// A byte now and then.
    Drip,
    /// Nothing passes, and no connection breaks.
    Stall,
    /// Connections break in the middle of a message, every second one.
    Tear,
}

/// Who does not reach whom.
pub type Pairs = Vec<(String, String)>;

/// Two hosts, both ways.
pub fn both(from: &str, to: &str) -> Pairs {
    vec![(from.to_owned(), to.to_owned()), (to.to_owned(), from.to_owned())]
}

/// Cuts.
///
/// # Errors
/// If the system refuses, or nobody leads who is to be cut off.
pub fn cut(scene: &Scene<'_>, cut: Cut) -> Result<(Deed, Undo)> {
    let holder = scene.holder();
    let host = scene.name(holder);
    let hosts: Vec<String> = (0..scene.site.hosts.len()).map(|index| scene.name(index)).collect();
    let members: Vec<String> = scene.site.etcd.members.iter().map(|member| member.spot.name.clone()).collect();
    let leader = || scene.leader().map(|leader| members[leader].clone());
    let one_way = |from: &[String], to: &[String]| -> Pairs {
        from.iter().flat_map(|from| to.iter().map(|to| (from.clone(), to.clone()))).collect()
    };
    let (mut struck, mut from) = (Vec::new(), host.clone());
    let pairs = match cut {
        Cut::HolderEtcd => members.iter().flat_map(|member| both(&host, member)).collect(),
        Cut::HolderEtcdOneWay => one_way(&members, std::slice::from_ref(&host)),
        Cut::EtcdHearsNot => one_way(std::slice::from_ref(&host), &members),
        Cut::HolderDatabase => {
            struck.push(host.clone());
            both(&host, DATABASE)
        }
        Cut::HostHost => hosts.iter().filter(|other| **other != host).flat_map(|other| both(&host, other)).collect(),
        Cut::HolderCoordinators => {
            let all = scene.site.coordinators.as_ref().context("the site has no coordinators")?;
            all.members.iter().flat_map(|member| both(&host, &member.spot.name)).collect()
        }
        Cut::LeaderMembers => {
            from = leader()?;
            members.iter().filter(|other| **other != from).flat_map(|other| both(&from, other)).collect()
        }
        Cut::LeaderHosts => {
            from = leader()?;
            hosts.iter().flat_map(|host| both(&from, host)).collect()
        }
    };
    scene.site.net.cut(&pairs)?;
    let deed = Deed { what: format!("cuts {cut:?} at {from}"), after: RESUME, hosts: struck, ..Deed::default() };
    Ok((deed, Undo::Heal(pairs)))
}

/// Bends the holder's wires to etcd.
///
/// # Errors
/// If the site has no wires.
pub fn bend(scene: &mut Scene<'_>, bend: Bend) -> Result<(Deed, Undo)> {
    let holder = scene.holder();
    let shape = match bend {
        Bend::Late => Shape { delay_ms: 300, jitter_ms: 200, ..Shape::default() },
        Bend::Drip => Shape { bytes_at_once: 16, delay_ms: 10, ..Shape::default() },
        Bend::Stall => Shape { stall: true, ..Shape::default() },
        Bend::Tear => Shape { tear: true, ..Shape::default() },
    };
    scene.site.hosts[holder].shape_wires(&shape)?;
    let what = format!("bends the wires of {} to etcd: {bend:?}", scene.name(holder));
    Ok((Deed { what, after: RESUME + Duration::from_secs(1), ..Deed::default() }, Undo::Straighten(holder)))
}

/// Wires as they should be.
///
/// # Errors
/// If it cannot be written.
pub fn straighten(site: &Site, host: usize) -> Result<()> {
    site.hosts[host].shape_wires(&Shape::default())
}
