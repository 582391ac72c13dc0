//! Whether this host has just been away: suspended, stopped, stalled, cloned, or set to another time (`SAFETY.md` §1.8).
//!
//! Values in, suspicion out. It reduces exposure and proves nothing: a guest that is paused without any clock noticing is
//! not seen here, and only the fence at the resource covers that.

use std::time::Duration;

use super::deadline::Boot;

/// From one look at the clocks to the next.
pub const TICK: Duration = Duration::from_millis(50);
/// A look that comes later than this after the one before was held up. Ten ticks: a busy host misses some.
const LATE: Duration = Duration::from_millis(500);
/// The wall clock may move so far against the others between two looks. Slewing, at most 83 333 ppm, moves it by 42 ms
/// within [`LATE`].
const STEP: Duration = Duration::from_millis(500);
/// CLOCK_BOOTTIME and CLOCK_MONOTONIC are read one after the other, so they never differ by exactly the same. No suspend
/// is as short as this.
const SLACK: Duration = Duration::from_millis(20);

/// All clocks at one moment, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// CLOCK_BOOTTIME: goes on while the host is suspended.
    pub boot: Boot,
    /// CLOCK_MONOTONIC: stands still while the host is suspended.
    pub awake_ns: u64,
    /// CLOCK_REALTIME, since 1970.
    pub wall_ns: u64,
}

/// What may have happened to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Suspicion {
    /// Suspended and resumed.
    #[error("this host was suspended for {0:?}")]
    Suspended(Duration),
    /// Stopped (SIGSTOP), starved, or its guest paused.
    #[error("the agent stood still for {0:?}")]
    Stalled(Duration),
    /// The wall clock was set, perhaps after a pause that no other clock noticed.
    #[error("the wall clock moved by {0:?} against the clock that deadlines are counted on")]
    Stepped(Duration),
    /// Another boot id or VM generation: this is a copy of the host that the turn was given to, or may be one.
    #[error("this host was restored from a snapshot or cloned")]
    Copied,
}

/// Looks at the clocks, while there is something to lose.
#[derive(Debug, Clone, Default)]
pub struct Vigil {
    watching: bool,
    last: Option<Reading>,
}

impl Vigil {
    /// Begins or ends. Time that passes while nobody watches is not suspicious.
    pub fn watch(&mut self, watching: bool) {
        if self.watching != watching {
            *self = Self { watching, last: None };
        }
    }

    /// Takes in what the clocks show now.
    pub fn look(&mut self, now: Reading) -> Option<Suspicion> {
        if !self.watching {
            return None;
        }
        self.last.replace(now).and_then(|before| judge(before, now))
    }
}

fn judge(before: Reading, now: Reading) -> Option<Suspicion> {
    let passed = now.boot.since(before.boot);
    let asleep = passed.saturating_sub(span(before.awake_ns, now.awake_ns));
    // Between the two the wall clock should have moved as far as the others.
    let moved = (i128::from(now.wall_ns) - i128::from(before.wall_ns)) - nanos(passed);
    let moved = Duration::from_nanos(u64::try_from(moved.unsigned_abs()).unwrap_or(u64::MAX));
    if asleep > SLACK {
        Some(Suspicion::Suspended(asleep))
    } else if passed > LATE {
        Some(Suspicion::Stalled(passed))
    } else if moved > STEP {
        Some(Suspicion::Stepped(moved))
    } else {
        None
    }
}

fn span(from_ns: u64, to_ns: u64) -> Duration {
    Duration::from_nanos(to_ns.saturating_sub(from_ns))
}

fn nanos(span: Duration) -> i128 {
    i128::try_from(span.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests;
