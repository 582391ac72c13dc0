//! An instance under watch, and a handle on its main process.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::process::Signal;

use super::child::Child;
use super::members::{Line, Scene};
use super::table::{self, Key};
use super::{ExitStatus, ProcessRecord, kernel};

/// One instance.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) record: ProcessRecord,
    pub(super) leader: Leader,
    /// What surveys have found of it; shortens to what can still matter at each.
    known: Mutex<BTreeSet<Key>>,
}

/// The main process.
#[derive(Debug)]
pub(super) enum Leader {
    /// Our own child, unreaped.
    Own(Child),
    /// Somebody else's child: started by an earlier agent process.
    Adopted(OwnedFd),
    /// It had ended before it could be adopted.
    Gone,
}

impl Watched {
    pub(super) fn new(record: ProcessRecord, leader: Leader) -> Self {
        Self { record, leader, known: Mutex::default() }
    }

    /// Its main process, for the process table.
    pub(super) fn leader_key(&self) -> Key {
        Key { pid: self.record.pid, start_time_ticks: self.record.start_time_ticks }
    }

    /// Finds its processes, and remembers them for the next time.
    pub(super) fn members(&self, scene: &Scene<'_>) -> BTreeSet<Key> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let line = Line {
            instance: &self.record.instance,
            leader: self.leader_key(),
            unbroken: self.record.unbroken,
            known: &known,
        };
        let members = scene.members(&line);
        // The number of one that has ended still matters while it names a group or session.
        let is_named = |key: &Key| scene.table.values().any(|row| row.group == key.pid || row.session == key.pid);
        known.retain(is_named);
        known.extend(&members);
        members
    }
}

impl Leader {
    /// Becomes readable when the process has ended; none if it had ended before.
    pub(super) fn handle(&self) -> io::Result<Option<OwnedFd>> {
        match self {
            Self::Own(child) => child.as_fd().try_clone_to_owned().map(Some),
            Self::Adopted(pidfd) => pidfd.try_clone().map(Some),
            Self::Gone => Ok(None),
        }
    }

    /// Signals it, and its whole group if the group's number is certain to be its own.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        match self {
            // A process may leave its group, which would then not reach it.
            Self::Own(child) if leads_its_group(child.pid())? => child.signal_group(signal),
            Self::Own(child) => kernel::send(child, signal),
            Self::Adopted(pidfd) => kernel::send(pidfd, signal),
            Self::Gone => Ok(()),
        }
    }

    /// How it ended.
    pub(super) fn status(&self) -> io::Result<ExitStatus> {
        let ended = match self {
            Self::Own(child) => child.peek()?,
            Self::Adopted(pidfd) => kernel::peek(pidfd)?,
            Self::Gone => None,
        };
        Ok(ended.unwrap_or(ExitStatus::Unknown))
    }

    /// Takes the ended process out of the table. False if the kernel says that it still runs.
    pub(super) fn reap(&self) -> io::Result<bool> {
        match self {
            Self::Own(child) => Ok(child.reap()?.is_some()),
            Self::Adopted(pidfd) => Ok(kernel::reap(pidfd)?.is_some()),
            Self::Gone => Ok(true),
        }
    }
}

fn leads_its_group(pid: i32) -> io::Result<bool> {
    Ok(table::row(pid)?.is_some_and(|row| row.group == pid))
}
