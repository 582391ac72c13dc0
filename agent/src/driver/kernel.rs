//! The few system calls on processes, with plain types.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus};

use super::ExitStatus;

/// A raw pid that no process can have is told as "no such process".
pub(super) fn pid(raw: i32) -> io::Result<Pid> {
    // rustix asserts that the number is not negative.
    Pid::from_raw(raw.max(0)).ok_or_else(|| rustix::io::Errno::SRCH.into())
}

/// A handle that means this process and no later one of the same number.
pub(super) fn open(raw: i32) -> io::Result<OwnedFd> {
    Ok(rustix::process::pidfd_open(pid(raw)?, PidfdFlags::empty())?)
}

/// Sends a signal; a process that has ended is no error.
pub(super) fn send(pidfd: impl AsFd, signal: Signal) -> io::Result<()> {
    gone_is_fine(rustix::process::pidfd_send_signal(pidfd, signal))
}

/// Sends a signal to a whole group; an empty group is no error. The caller must hold the leader unreaped, or the number
/// may have been given to strangers.
pub(super) fn send_group(leader: i32, signal: Signal) -> io::Result<()> {
    gone_is_fine(rustix::process::kill_process_group(pid(leader)?, signal))
}

/// How a child ended, leaving it as a zombie; none if it runs. Not our child: `ExitStatus::Unknown`.
pub(super) fn peek(pidfd: impl AsFd) -> io::Result<Option<ExitStatus>> {
    wait(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::NOWAIT)
}

/// Takes an ended child out of the process table; none if it runs. Not our child: `ExitStatus::Unknown`.
pub(super) fn reap(pidfd: impl AsFd) -> io::Result<Option<ExitStatus>> {
    wait(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::empty())
}

fn wait(id: WaitId<'_>, more: WaitIdOptions) -> io::Result<Option<ExitStatus>> {
    match rustix::process::waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG | more) {
        Ok(status) => Ok(status.as_ref().map(status_of)),
        Err(rustix::io::Errno::CHILD) => Ok(Some(ExitStatus::Unknown)),
        Err(error) => Err(error.into()),
    }
}

fn status_of(status: &WaitIdStatus) -> ExitStatus {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, Some(signal)) => ExitStatus::Signal(signal),
        (None, None) => ExitStatus::Unknown,
    }
}

fn gone_is_fine(sent: rustix::io::Result<()>) -> io::Result<()> {
    match sent {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
