//! The clocks, read here and nowhere else; whatever decides takes the time as an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Wall clock, Unix milliseconds: for people, and for deadlines that the journal carries from one coordinator to another.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Time since boot, suspend included: for dwell times within one coordinator.
pub(crate) fn boot() -> Duration {
    // Linux has had this clock since 2.6.39, so that there is nothing better to do than to count from zero.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}
