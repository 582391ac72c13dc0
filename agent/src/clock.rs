//! The two clocks of the shell. Decisions get their values as arguments.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Time since boot, suspend included (CLOCK_BOOTTIME): what every deadline is counted on.
pub fn boot() -> Duration {
    // The clock exists since Linux 2.6.39; a kernel without it could not have started this process's runtime.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// When this process was started, on CLOCK_BOOTTIME; none: `/proc` does not tell.
pub fn process_began() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // `proc_pid_stat(5)`: field 22, counted from the state, field 3, which follows the name in parentheses.
    let ticks: u64 = stat.rsplit_once(") ")?.1.split(' ').nth(22 - 3)?.parse().ok()?;
    // 100 on every Linux that Rust runs on (USER_HZ).
    Some(Duration::from_millis(ticks * 10))
}

/// Wall clock, Unix milliseconds: for people and records, never for decisions.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A time since boot as people read it: Unix milliseconds. The offset is taken once, so that a report of the same moment
/// always says the same.
pub fn wall_of(moment: Duration) -> u64 {
    static OFFSET_MS: OnceLock<u64> = OnceLock::new();
    let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    OFFSET_MS.get_or_init(|| wall_ms().saturating_sub(millis(boot()))).saturating_add(millis(moment))
}

/// Which boot of the host this is.
///
/// # Errors
/// If /proc is not mounted.
pub fn boot_id() -> std::io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_began_after_the_boot_and_not_long_ago() {
        let began = process_began().expect("proc tells");
        assert!(began > Duration::ZERO && began <= boot() && boot() - began < Duration::from_secs(3600));
    }
}
