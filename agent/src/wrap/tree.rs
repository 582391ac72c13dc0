//! The processes below this one.
//!
//! The wrapper is their subreaper: whoever loses its parent becomes its child. So "no child is left, running or ended",
//! which the kernel itself says (ECHILD), means that no descendant is left.

use std::collections::BTreeSet;
use std::io;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::process::Signal as Sent;

use crate::driver::{survey, table};

/// What one look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaped {
    /// Children that ended: process id, and exit code as a shell tells it (128 + signal).
    pub ended: Vec<(i32, u8)>,
    /// No child is left.
    pub empty: bool,
}

/// Becomes the one to whom orphans below come.
///
/// # Errors
/// When the kernel refuses.
pub fn become_subreaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Takes every ended child out of the process table.
///
/// # Errors
/// When the kernel refuses.
pub fn reap() -> io::Result<Reaped> {
    let mut ended = Vec::new();
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => ended.push((pid.as_raw(), u8::try_from(code & 0xff).unwrap_or(1))),
            Ok(WaitStatus::Signaled(pid, signal, _)) => {
                ended.push((pid.as_raw(), 128_u8.saturating_add(u8::try_from(signal as i32).unwrap_or(127))));
            }
            Ok(WaitStatus::StillAlive) => return Ok(Reaped { ended, empty: false }),
            Err(Errno::ECHILD) => return Ok(Reaped { ended, empty: true }),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends SIGTERM to the group of `leader`, which must not have been reaped, and to every descendant that has left it.
///
/// # Errors
/// When `/proc` cannot be read, or the kernel refuses.
pub fn terminate(leader: Option<i32>) -> io::Result<()> {
    if let Some(leader) = leader {
        gone_is_fine(killpg(Pid::from_raw(leader), Signal::SIGTERM))?;
    }
    signal(Sent::TERM, |row| Some(row.group) != leader)
}

/// Sends SIGKILL to every descendant.
///
/// # Errors
/// As [`terminate`]; whoever could be killed was.
pub fn kill() -> io::Result<()> {
    signal(Sent::KILL, |_| true)
}

fn signal(signal: Sent, wanted: impl Fn(&table::Row) -> bool) -> io::Result<()> {
    let mut refused = Ok(());
    for row in below(&table::read()?)?.iter().filter(|row| !row.ended && wanted(row)) {
        // One that may not be touched must not keep us from the others.
        if let Err(error) = survey::signal(row.key, signal) {
            refused = Err(error);
        }
    }
    refused
}

fn below(table: &table::Table) -> io::Result<Vec<table::Row>> {
    let me = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    let mut family = BTreeSet::from([me]);
    // A child's number may be below its parent's: until a walk finds nobody new.
    loop {
        let size = family.len();
        family.extend(
            table.values().filter(|row| family.contains(&row.parent)).map(|row| row.key.pid).collect::<Vec<_>>(),
        );
        if family.len() == size {
            break;
        }
    }
    family.remove(&me);
    Ok(family.iter().filter_map(|pid| table.get(pid)).copied().collect())
}

fn gone_is_fine(sent: nix::Result<()>) -> io::Result<()> {
    match sent {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
