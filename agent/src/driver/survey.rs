//! Looks at the process table on behalf of all watched instances: whose is each process, and which are strays.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use handover_proto::ids::InstanceId;
use rustix::process::Signal;

use super::members::Scene;
use super::table::{self, Key, Row, Table};
use super::watched::Watched;
use super::{child, kernel, marks};

/// How long an ended child of unknown descent stays before we reap it. Whoever started it past the register, against
/// the rule, has had the time to ask for its status.
const STRAY_GRACE: Duration = Duration::from_secs(1);

/// All instances under watch, and the one place that surveys.
#[derive(Debug, Default)]
pub(super) struct Watch {
    instances: Mutex<BTreeMap<InstanceId, Arc<Watched>>>,
    /// Ended strays and when they were first seen. The lock is held for a whole survey with what it kills and reaps: a
    /// stray that another survey reaped meanwhile would leave no trace in this one.
    strays: Mutex<BTreeMap<Key, Instant>>,
}

/// What one survey found of one instance.
#[derive(Debug)]
pub(super) struct Found {
    /// Its processes besides the main one: those that run, and those that have ended and are ours to reap.
    pub(super) others: Vec<Row>,
    /// Children of the agent of unknown descent, running or ended.
    pub(super) strays: Vec<Row>,
}

impl Watch {
    fn instances(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Arc<Watched>>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, watched: Arc<Watched>) {
        self.instances().insert(watched.record.instance.clone(), watched);
    }

    pub(super) fn get(&self, instance: &InstanceId) -> Option<Arc<Watched>> {
        self.instances().get(instance).cloned()
    }

    pub(super) fn remove(&self, instance: &InstanceId) {
        self.instances().remove(instance);
    }

    /// Learns which processes each instance has, so that they are known once their parents have ended, and reaps what
    /// strays have ended. True if some have but are not reaped yet. Blocks for a walk through `/proc`.
    pub(super) fn sweep(&self) -> io::Result<bool> {
        self.survey(None, |found| Ok(found.strays.iter().any(|row| row.ended)))
    }

    /// Finds the processes of one instance and has `act` done on them before any other survey. Blocks likewise.
    pub(super) fn with_members<T>(&self, watched: &Watched, act: impl FnOnce(Found) -> io::Result<T>) -> io::Result<T> {
        self.survey(Some(watched), act)
    }

    fn survey<T>(&self, of: Option<&Watched>, act: impl FnOnce(Found) -> io::Result<T>) -> io::Result<T> {
        let mut ended_strays = self.strays.lock().unwrap_or_else(PoisonError::into_inner);
        let table = table::read()?;
        // The register and the instances are read after the table: whatever the table shows as started by us is in them.
        let own = child::register().clone();
        let instances: Vec<Arc<Watched>> = self.instances().values().cloned().collect();
        let me = i32::try_from(std::process::id()).map_err(io::Error::other)?;
        let everywhere = of.is_some_and(|watched| !watched.record.unbroken);
        let marks = read_marks(&table, |row| everywhere || (row.parent == me && !own.contains(&row.key.pid)));
        let scene = Scene { table: &table, me, own: &own, marks: &marks };
        // Of the one that is asked about first, whether it is still in the list or not: "nothing" must mean nothing.
        let own_members = of.map(|of| of.members(&scene)).unwrap_or_default();
        let mut attributed = own_members.clone();
        let rest = instances.iter().filter(|one| of.is_none_or(|of| of.record.instance != one.record.instance));
        rest.for_each(|one| attributed.extend(one.members(&scene)));
        let strays = table.values().filter(|row| scene.is_inherited(row) && !attributed.contains(&row.key));
        let strays = still_there(strays)?;
        reap_old(&mut ended_strays, &strays)?;
        let main = of.map(Watched::leader_key);
        let others =
            own_members.iter().filter(|key| Some(**key) != main).filter_map(|key| table.get(&key.pid)).copied();
        let others = others.filter(|row| !row.ended || row.parent == me).collect();
        act(Found { others, strays })
    }
}

fn read_marks(table: &Table, wanted: impl Fn(&Row) -> bool) -> BTreeMap<i32, InstanceId> {
    let rows = table.values().filter(|row| wanted(row));
    rows.filter_map(|row| Some((row.key.pid, marks::read(row.key.pid)?.instance))).collect()
}

/// Only surveys reap strays, so one that has gone meanwhile was in the register when the table was read.
fn still_there<'a>(strays: impl Iterator<Item = &'a Row>) -> io::Result<Vec<Row>> {
    let mut still = Vec::new();
    for row in strays {
        still.extend(table::row(row.key.pid)?.filter(|now| now.key == row.key));
    }
    Ok(still)
}

fn reap_old(seen: &mut BTreeMap<Key, Instant>, strays: &[Row]) -> io::Result<()> {
    let now = Instant::now();
    let ended: BTreeSet<Key> = strays.iter().filter(|row| row.ended).map(|row| row.key).collect();
    seen.retain(|key, _| ended.contains(key));
    for key in ended {
        if now.duration_since(*seen.entry(key).or_insert(now)) >= STRAY_GRACE {
            reap(key)?;
        }
    }
    Ok(())
}

/// Takes exactly this ended child out of the process table.
pub(super) fn reap(key: Key) -> io::Result<()> {
    match certain(key)? {
        Some(pidfd) => kernel::reap(pidfd).map(|_| ()),
        None => Ok(()),
    }
}

/// Kills one process, and no later one of its number. The handle becomes readable when it has ended.
pub(super) fn kill(key: Key) -> io::Result<Option<OwnedFd>> {
    signal(key, Signal::KILL)
}

/// Signals one process, and no later one of its number.
pub(crate) fn signal(key: Key, signal: Signal) -> io::Result<Option<OwnedFd>> {
    let pidfd = certain(key)?;
    if let Some(pidfd) = &pidfd {
        kernel::send(pidfd, signal)?;
    }
    Ok(pidfd)
}

/// A handle on exactly this process; none if it is no more. The start time is read after the handle was opened: if it
/// fits then, the handle is on the process that was meant.
pub(super) fn certain(key: Key) -> io::Result<Option<OwnedFd>> {
    let pidfd = match kernel::open(key.pid) {
        Ok(pidfd) => pidfd,
        Err(error) if table::is_gone(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(table::row(key.pid)?.filter(|row| row.key == key).map(|_| pidfd))
}
