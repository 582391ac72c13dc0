//! Children that the agent starts itself: instances, exec probes, hooks.
//!
//! The agent is a subreaper, so processes that it never started become its children too. To tell the two apart, **every**
//! process that the agent starts is started through [`spawn`], which enters it in a register; any other child is a stray
//! that an instance left behind. A process that was started past this function, or that a child of ours leaves behind,
//! denies every proof of stop while it runs, and its exit status is taken away once it has ended.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::process::Signal;

use super::{ExitStatus, kernel};

/// The pids of the agent's own, unreaped children. A process has one set of children, so there is one register.
static REGISTER: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Variables that are meant for the agent itself and would mislead its children.
const NOT_INHERITED: [&str; 7] =
    ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "JOURNAL_STREAM"];

/// A child of the agent. Dropping it does not end it: when it ends, the sweep for strays takes it away.
#[derive(Debug)]
pub struct Child {
    pid: i32,
    pidfd: OwnedFd,
    /// Once true the number may belong to a stranger. Changed under the register's lock only.
    reaped: AtomicBool,
}

/// The register, locked: no child of the agent is started or reaped meanwhile.
pub(super) fn register() -> MutexGuard<'static, BTreeSet<i32>> {
    REGISTER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a child and enters it in the register. Pipes are to be made by the caller (`std::io::pipe`).
///
/// # Errors
/// When the program cannot be run, or no handle on it is to be had (it is then killed again).
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    let mut register = register();
    let mut started = command.spawn()?;
    let pid = i32::try_from(started.id()).map_err(io::Error::other)?;
    match kernel::open(pid) {
        Ok(pidfd) => {
            register.insert(pid);
            Ok(Child { pid, pidfd, reaped: AtomicBool::new(false) })
        }
        Err(error) => {
            started.kill().and_then(|()| started.wait()).map_err(io::Error::other)?;
            Err(error)
        }
    }
}

/// Removes what the agent's environment holds for the agent alone.
pub fn clean_env(command: &mut Command) {
    for name in NOT_INHERITED {
        command.env_remove(name);
    }
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HANDOVER_")) {
        command.env_remove(name);
    }
}

impl Child {
    /// Its process id; stays its own until [`Child::reap`] or drop.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// How it ended, without taking it away; none while it runs.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn peek(&self) -> io::Result<Option<ExitStatus>> {
        kernel::peek(&self.pidfd)
    }

    /// Takes it out of the process table once it has ended; none while it runs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn reap(&self) -> io::Result<Option<ExitStatus>> {
        let mut register = register();
        let status = kernel::reap(&self.pidfd)?;
        if status.is_some() && !self.reaped.swap(true, Ordering::Relaxed) {
            register.remove(&self.pid);
        }
        Ok(status)
    }

    /// Kills its whole process group and reaps it in the background; the command must have asked for a group of its own.
    pub fn end(self) {
        let pid = self.pid;
        if let Err(error) = self.kill_group() {
            tracing::error!(pid, %error, "cannot kill a child of the agent");
        }
        let reaper = move || match super::ended::wait(&self.pidfd, None).and_then(|()| self.reap()) {
            Ok(_) => {}
            Err(error) => tracing::error!(pid, %error, "cannot reap a child of the agent"),
        };
        if let Err(error) = thread::Builder::new().name("reaper".to_owned()).spawn(reaper) {
            // The child was dropped with the closure: the sweep for strays reaps it.
            tracing::warn!(pid, %error, "cannot reap a child of the agent in the background");
        }
    }

    /// Sends SIGKILL to its whole process group; the command must have asked for one of its own.
    ///
    /// # Errors
    /// When the kernel refuses; an empty group is no error.
    pub fn kill_group(&self) -> io::Result<()> {
        self.signal_group(Signal::KILL)
    }

    /// Sends a signal to its whole process group; the command must have asked for one of its own.
    pub(super) fn signal_group(&self, signal: Signal) -> io::Result<()> {
        // Under the lock the child cannot be reaped, so that the group's number is still its own.
        let _register = register();
        if self.reaped.load(Ordering::Relaxed) { Ok(()) } else { kernel::send_group(self.pid, signal) }
    }
}

impl AsFd for Child {
    /// Becomes readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let mut register = register();
        if !self.reaped.load(Ordering::Relaxed) {
            register.remove(&self.pid);
        }
    }
}
