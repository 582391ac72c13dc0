//! The guard: whatever dies, no process is left behind, not even after `kill -9`.
//!
//! A program that calls [`enter`] becomes three processes, each the parent and *child subreaper* of the next:
//!
//! ```text
//! outer (what the user started) -> middle -> inside (the program proper) -> everything that it starts
//! ```
//! A subreaper adopts the orphans below it, so each of the three can find and end all that is below. Downwards, each
//! notices the end of its child (SIGCHLD); upwards, the end of its parent: its standard input is a pipe that only the
//! parent holds open. Whoever notices ends everything below, verified, then itself. So any one or two of the three may be
//! killed at any moment, and the third cleans up. Three kills at once are beyond it (that takes a PID namespace, and
//! rights that a laptop's user lacks), hence each is in a process group of its own: no `kill -9 -GROUP` meets them all.
//!
//! Whoever cleans up does not kill another of the three, but lets go of its pipe, so that it cleans up too: were it killed
//! first, and then the killer itself, nobody would be left to finish. Only one that is not done in time is killed.
//!
//! Only direct children are ever killed: a pid that we have not reaped cannot belong to anybody else, so no stranger is
//! hit. Their children come to us when they die, until there are none.

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{ChildStdin, Command, ExitCode, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use crate::chain::chain;

/// A process that SIGKILL does not end in this time is stuck in the kernel, and nothing we do will help.
const PATIENCE: Duration = Duration::from_secs(10);
/// So long one of the three may take to clean up before it is killed as well: it may be frozen.
const GRACE: Duration = Duration::from_secs(5);
/// Between two looks at dying children.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// What ties our children to us: their standard inputs, which end when we do. The lock also covers every reaping and
/// killing, so that no thread reaps a pid that another is about to kill.
static TIES: Mutex<Vec<ChildStdin>> = Mutex::new(Vec::new());

fn ties() -> MutexGuard<'static, Vec<ChildStdin>> {
    TIES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the guard could not do.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The kernel refused.
    #[error("{what}")]
    System {
        /// The operation.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// Processes that did not die.
    #[error("still there {PATIENCE:?} after SIGKILL: pids {0:?}; they are stuck in the kernel (see /proc/PID/stack)")]
    Left(Vec<i32>),
}

fn system<E: Into<std::io::Error>>(what: &'static str) -> impl FnOnce(E) -> GuardError {
    move |error| GuardError::System { what, source: error.into() }
}

/// Who this process is after [`enter`].
#[derive(Debug)]
pub enum Entered {
    /// The program proper: go on. When the guard dies, this process ends everything that it started, and itself.
    Inside,
    /// One of the two guards; the program inside has ended with this code, and nothing is left.
    Ended(ExitCode),
}

/// The two processes that a guard starts; known by their `argv[0]`, which no grandchild inherits.
const MIDDLE: &str = "handover-guard-middle";
const INSIDE: &str = "handover-guard-inside";

/// Puts this program under guard. Call it first thing in `main`, before any thread. Standard input is the guard's
/// afterwards.
///
/// # Errors
/// [`GuardError`]; then the program must not start anything.
pub fn enter() -> Result<Entered, GuardError> {
    let role = std::env::args_os().next().unwrap_or_default();
    if role == INSIDE {
        adopt_orphans()?;
        end_with_parent();
        return Ok(Entered::Inside);
    }
    let child = if role == MIDDLE { INSIDE } else { MIDDLE };
    if role == MIDDLE {
        end_with_parent();
    }
    let program = std::env::current_exe().map_err(system("finding our own executable"))?;
    let mut again = Command::new(program);
    again.arg0(child).args(std::env::args_os().skip(1)).process_group(0);
    supervise(again).map(Entered::Ended)
}

/// Runs a command to its end, then ends everything that it left. Signals to stop are passed on to it. Its standard input
/// is a pipe that this process holds open.
///
/// # Errors
/// When it cannot be started, or something cannot be ended.
pub fn supervise(mut command: Command) -> Result<ExitCode, GuardError> {
    adopt_orphans()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let status = runtime.map_err(system("starting a runtime"))?.block_on(async {
        let listen = |kind| signal(kind).map_err(system("listening for signals"));
        // Before the start, so that no early end is missed.
        let (mut child_ended, mut terminate) = (listen(SignalKind::child())?, listen(SignalKind::terminate())?);
        let (mut interrupt, mut hang_up) = (listen(SignalKind::interrupt())?, listen(SignalKind::hangup())?);
        let mut child = command.stdin(Stdio::piped()).spawn().map_err(system("starting the guarded command"))?;
        ties().extend(child.stdin.take());
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        loop {
            let passed_on = tokio::select! {
                _ = child_ended.recv() => match reap(&ties(), Some(pid)) {
                    Reaped::Wanted(status) => return Ok(status),
                    Reaped::SomeLeft => continue,
                    // Only the thread that ends all with us takes our children away; it is at it now.
                    Reaped::NoneLeft => return Ok(ExitStatus::from_raw(Signal::SIGKILL as i32)),
                },
                _ = terminate.recv() => Signal::SIGTERM,
                _ = interrupt.recv() => Signal::SIGINT,
                _ = hang_up.recv() => Signal::SIGHUP,
            };
            // It may have ended in this moment; then its end is on its way to us.
            let _ = kill(pid, passed_on);
        }
    });
    let status = status?;
    end_descendants()?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

fn adopt_orphans() -> Result<(), GuardError> {
    nix::sys::prctl::set_child_subreaper(true).map_err(system("becoming child subreaper"))
}

/// Ends everything below and this process when the parent is gone, which standard input tells.
fn end_with_parent() {
    std::thread::spawn(|| {
        let mut nothing = [0; 64];
        let mut input = std::io::stdin().lock();
        // Whatever is not more input is the end of it: the parent is gone.
        while input.read(&mut nothing).is_ok_and(|read| read > 0) {}
        if let Err(error) = end_descendants() {
            tracing::error!(error = chain(&error), "the guard is gone, and something is left");
        }
        std::process::exit(128 + Signal::SIGKILL as i32);
    });
}

/// What reaping found.
enum Reaped {
    Wanted(ExitStatus),
    SomeLeft,
    NoneLeft,
}

/// Takes the exit status of every child that has ended, until it meets the wanted one. Under the lock.
fn reap(_ties: &MutexGuard<'_, Vec<ChildStdin>>, wanted: Option<Pid>) -> Reaped {
    loop {
        let (pid, raw) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, code << 8),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, signal as i32),
            Err(Errno::EINTR) => continue,
            Ok(_) => return Reaped::SomeLeft,
            Err(_) => return Reaped::NoneLeft,
        };
        if Some(pid) == wanted {
            return Reaped::Wanted(ExitStatus::from_raw(raw));
        }
    }
}

/// Ends every descendant and returns when none is left. A living descendant has a living chain of parents up to us, so
/// "no children" (ECHILD) is the proof.
///
/// # Errors
/// [`GuardError::Left`] names those that did not die.
pub fn end_descendants() -> Result<(), GuardError> {
    let begin = Instant::now();
    loop {
        let mut ties = ties();
        ties.clear();
        if matches!(reap(&ties, None), Reaped::NoneLeft) {
            return Ok(());
        }
        let children = children().map_err(system("listing processes"))?;
        if begin.elapsed() >= PATIENCE {
            return Err(GuardError::Left(children.into_iter().map(Pid::as_raw).collect()));
        }
        for child in children {
            if begin.elapsed() >= GRACE || !is_guard(child) {
                // Only one that has ended by itself cannot be killed.
                let _ = kill(child, Signal::SIGKILL);
            }
        }
        drop(ties);
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Whether a child is one of the three, and will clean up by itself. A dead one has no command line any more.
fn is_guard(child: Pid) -> bool {
    let command = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
    let name = command.split(|byte| *byte == 0).next().unwrap_or_default();
    name == MIDDLE.as_bytes() || name == INSIDE.as_bytes()
}

/// Our direct children, by `/proc/PID/stat`.
fn children() -> std::io::Result<Vec<Pid>> {
    let me = std::process::id().to_string();
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that has just ended has no file any more.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        if parent(&stat) == Some(me.as_str()) {
            children.push(Pid::from_raw(pid));
        }
    }
    Ok(children)
}

/// The parent's pid in a line of `/proc/PID/stat`. The name before it may hold blanks and brackets (proc(5)).
fn parent(stat: &str) -> Option<&str> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parent("12 (sh) S 34 12 12 0"), Some("34"));
        assert_eq!(parent("12 (a) S 1 (b c) R 56 1"), Some("56"));
        assert_eq!(parent(""), None);
    }
}
