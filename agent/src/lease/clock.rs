//! The clock that deadlines are counted on, and who shares it.

use std::fs;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use super::deadline::Boot;

/// What a reader must compare before it trusts an absolute deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockIdentity {
    /// Changes with every boot.
    pub boot_id: String,
    /// The time namespace, as `time:[4026531834]`: namespaces shift CLOCK_BOOTTIME. Empty on kernels without them.
    pub time_ns: String,
}

/// The clock cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// CLOCK_BOOTTIME.
    #[error("cannot read CLOCK_BOOTTIME; the lease cannot be held on this kernel")]
    BootTime(#[source] nix::Error),
    /// The boot's id.
    #[error("cannot read /proc/sys/kernel/random/boot_id; is /proc mounted?")]
    BootId(#[source] io::Error),
}

/// The present moment on CLOCK_BOOTTIME.
///
/// # Errors
/// If the kernel has no such clock.
pub fn boot_now() -> Result<Boot, ClockError> {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).map_err(ClockError::BootTime)?;
    Ok(Boot::default().plus(Duration::from(time)))
}

/// Who shares this clock.
///
/// # Errors
/// If the boot id cannot be read.
pub fn identity() -> Result<ClockIdentity, ClockError> {
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(ClockError::BootId)?;
    let time_ns = fs::read_link("/proc/self/ns/time").map(|path| path.to_string_lossy().into_owned());
    // Without time namespaces nobody can be in another one.
    Ok(ClockIdentity { boot_id: boot_id.trim().to_owned(), time_ns: time_ns.unwrap_or_default() })
}

/// Wall clock, Unix milliseconds: for people, never for decisions.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_goes_forward_and_has_a_boot() {
        let first = boot_now().expect("a clock");
        assert!(first > Boot::default() && boot_now().expect("a clock") >= first);
        assert_eq!(identity().expect("an identity").boot_id.len(), 36);
    }
}
