//! Kills what an instance leaves behind, until nothing is left, and says whether that is proven.
//!
//! Why one clean survey proves it, for an instance whose subreaper we were all the time: every process of it descends
//! from the agent, and none of its parents but the agent is left, so each is a child of the agent or below one. A process
//! that lives through the whole walk is seen. One that was forked behind the walk's back and whose parent ended before
//! the walk came to it leaves that parent as a zombie, which only we reap, and not during a survey: it is seen. So a
//! survey without members and without children of unknown descent, running or ended, has missed nothing.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::survey::{self, Found, Watch};
use super::watched::Watched;

/// After that long a killed process that is still there hangs in the kernel (a dead network disk, mostly).
const LIMIT: Duration = Duration::from_secs(5);

/// How long running strays may take to end. A probe's command that was cut off is one for a moment.
const STRAY_PATIENCE: Duration = Duration::from_millis(500);

/// Between two surveys if none of the killed ends earlier.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// What is left of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cleared {
    /// No process of it.
    Empty {
        /// And that is proven.
        proven: bool,
    },
    /// Processes that were killed and are still there, or nobody could be looked at.
    Left(String),
}

impl Cleared {
    /// Nothing is left of it, proven or not.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Empty { .. })
    }
}

/// What one lap found.
enum Lap {
    /// No process of the instance, and nobody who might be.
    Clean,
    /// No process of the instance, but running strays, which may be its own.
    Strays(Vec<i32>),
    /// Killed or reaped something: look again. The handles become readable when the killed have ended.
    Again(Vec<OwnedFd>, Vec<i32>),
}

/// Kills and reaps everything but the main process, which must have ended, then reaps that. Blocks up to [`LIMIT`].
pub(super) fn clear(watch: &Watch, watched: &Watched) -> Cleared {
    let instance = &watched.record.instance;
    let began = Instant::now();
    let cleared = loop {
        match watch.with_members(watched, lap) {
            Ok(Lap::Clean) => break Cleared::Empty { proven: watched.record.unbroken },
            Ok(Lap::Strays(pids)) if began.elapsed() >= STRAY_PATIENCE => {
                tracing::warn!(%instance, ?pids, "children of unknown descent run: the stop is not proven");
                break Cleared::Empty { proven: false };
            }
            Ok(Lap::Again(_, pids)) if began.elapsed() >= LIMIT => {
                tracing::error!(%instance, ?pids, "processes of the instance are still there {LIMIT:?} after SIGKILL");
                break Cleared::Left(format!(
                    "processes {pids:?} are still there after SIGKILL; they hang in the kernel"
                ));
            }
            Ok(Lap::Again(killed, _)) => pause(&killed),
            Ok(Lap::Strays(_)) => pause(&[]),
            Err(error) if began.elapsed() >= LIMIT => {
                tracing::error!(%instance, %error, "cannot clear away what the instance left behind");
                break Cleared::Left(format!("its processes cannot be ended: {error}"));
            }
            Err(_) => pause(&[]),
        }
    };
    match watched.leader.reap() {
        Ok(true) => cleared,
        Ok(false) => Cleared::Left("the main process is still there".to_owned()),
        Err(error) => {
            tracing::error!(%instance, %error, "cannot reap the main process");
            Cleared::Left(format!("the main process cannot be reaped: {error}"))
        }
    }
}

fn lap(found: Found) -> io::Result<Lap> {
    let mut killed = Vec::new();
    let mut refused = Ok(());
    for row in &found.others {
        // One that we may not touch must not keep us from the others.
        let done = if row.ended { survey::reap(row.key).map(|()| None) } else { survey::kill(row.key) };
        match done {
            Ok(handle) => killed.extend(handle),
            Err(error) => refused = Err(error),
        }
    }
    refused?;
    if !found.others.is_empty() {
        return Ok(Lap::Again(killed, found.others.iter().map(|row| row.key.pid).collect()));
    }
    let running: Vec<i32> = found.strays.iter().filter(|row| !row.ended).map(|row| row.key.pid).collect();
    Ok(match (found.strays.is_empty(), running.is_empty()) {
        (true, _) => Lap::Clean,
        (false, false) => Lap::Strays(running),
        (false, true) => Lap::Again(killed, Vec::new()),
    })
}

fn pause(killed: &[OwnedFd]) {
    let mut fds: Vec<PollFd<'_>> = killed.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    // Interrupted or refused, the next survey comes early; it is bounded by the limit either way.
    let _ = rustix::event::poll(&mut fds, Some(&PAUSE));
}
