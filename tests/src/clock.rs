//! CLOCK_BOOTTIME, the one clock on which the right to schedule is measured (`SAFETY.md` §1.8).

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment on CLOCK_BOOTTIME in nanoseconds. All processes of one host and one time namespace read the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootNs(pub u64);

impl BootNs {
    /// This moment.
    pub fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        // Both parts are never negative for this clock: it starts at 0 and tv_nsec is below 10^9.
        Self(time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs())
    }

    /// The moment `span` later; the end of time if that is beyond it.
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for BootNs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "boot+{:.3}s", Duration::from_nanos(self.0).as_secs_f64())
    }
}

/// Which CLOCK_BOOTTIME a process reads: two processes may compare absolute deadlines only if both parts are equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockName {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// What `/proc/self/ns/time` links to, as `time:[4026531834]`; empty on a kernel without time namespaces.
    pub time_ns: String,
}

impl ClockName {
    /// The clock of this process.
    ///
    /// # Errors
    /// When the boot id cannot be read.
    pub fn ours() -> std::io::Result<Self> {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        let time_ns = std::fs::read_link("/proc/self/ns/time").map(|link| link.to_string_lossy().into_owned());
        Ok(Self { boot_id, time_ns: time_ns.unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_does_not_go_back_and_a_deadline_beyond_time_is_the_end_of_time() {
        let (a, b) = (BootNs::now(), BootNs::now());
        assert!(a <= b);
        assert_eq!(a.after(Duration::MAX), BootNs(u64::MAX));
        assert_eq!(a.since(b.after(Duration::from_secs(1))), Duration::ZERO);
        assert_eq!(a.after(Duration::from_millis(3)).since(a), Duration::from_millis(3));
    }

    #[test]
    fn our_clock_has_a_boot_id() {
        let ours = ClockName::ours().expect("boot id");
        assert_eq!(ours.boot_id.len(), 36, "{ours:?}");
    }
}
