//! What an instance uses of its memory, against the most that it may, judged by `/proc`: for hosts whose kernel does not
//! watch over it. There a unit's `MemoryMax=` is written down and not kept (cgroup v1 holds the controller), and a process
//! of ours has no limit but the host's memory, which all of its neighbours need.

use std::fmt;
use std::fs;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};
use tokio::task::spawn_blocking;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Between two looks. What grows faster than the host's free memory in a second is the kernel's to end.
const LOOK_EVERY: Duration = Duration::from_secs(1);

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// The sizes' units, as people write them.
const UNITS: [(&str, u64); 3] = [("KiB", KIB), ("MiB", MIB), ("GiB", 1024 * MIB)];

/// The most that an instance may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryMax {
    /// In bytes.
    pub bytes: u64,
    /// Who says so.
    pub by: LimitedBy,
}

/// Where a limit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitedBy {
    /// In the agent's config.
    Config,
    /// In the unit.
    Unit,
}

/// An instance used more than it may, and was killed for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverMemory {
    /// What it used, in bytes.
    pub used_bytes: u64,
    /// What it may.
    pub max: MemoryMax,
}

impl fmt::Display for OverMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.max.by {
            LimitedBy::Config => "memory_max in [driver]",
            LimitedBy::Unit => "MemoryMax= of its unit",
        };
        let [used, max] = [self.used_bytes, self.max.bytes].map(|bytes| bytes / MIB);
        write!(f, "out of memory: it used {used} MiB, and {by} is {max} MiB")
    }
}

/// Looks again and again.
#[derive(Debug)]
pub(super) struct Judge {
    looks: Interval,
}

impl Judge {
    pub(super) fn new() -> Self {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { looks }
    }

    /// Returns once the processes that `pids` finds, which may block, use more than they may; never without a limit.
    /// Cancel safe: what is lost is one look.
    pub(super) async fn exceeded<F>(&mut self, max: Option<MemoryMax>, pids: F) -> OverMemory
    where
        F: Fn() -> io::Result<Vec<i32>> + Clone + Send + 'static,
    {
        let Some(max) = max else { return std::future::pending().await };
        loop {
            self.looks.tick().await;
            let pids = pids.clone();
            let used = spawn_blocking(move || pids().map(|pids| pids.into_iter().filter_map(used_bytes).sum())).await;
            match used.map_err(io::Error::other).flatten() {
                Ok(used_bytes) if used_bytes > max.bytes => return OverMemory { used_bytes, max },
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "cannot look at the instance's memory"),
            }
        }
    }
}

/// Memory of a process that only its end gives back: without files that the kernel may drop at any time. None if it does
/// not run.
fn used_bytes(pid: i32) -> Option<u64> {
    own(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
}

/// `proc_pid_status(5)`.
fn own(status: &str) -> Option<u64> {
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let own = kib("RssAnon:").and_then(|anonymous| Some(anonymous + kib("RssShmem:")?));
    own.or_else(|| kib("VmRSS:")).and_then(|kib| kib.checked_mul(KIB))
}

/// A size in bytes, of `"512MiB"`; for `deserialize_with`.
pub(super) fn optional_size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    size(&String::deserialize(from)?).map(Some).map_err(de::Error::custom)
}

fn size(text: &str) -> Result<u64, String> {
    let read =
        |(unit, bytes): &(&str, u64)| text.strip_suffix(unit)?.trim_end().parse::<u64>().ok()?.checked_mul(*bytes);
    match UNITS.iter().find_map(read) {
        Some(bytes) if bytes >= MIB => Ok(bytes),
        Some(_) => Err(format!("{text:?} is less than any service needs; write 1MiB or more")),
        None => Err(format!("{text:?} is not a size: write a whole number and KiB, MiB or GiB, such as \"512MiB\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_whole_number_with_a_unit_and_at_least_a_mebibyte() {
        assert_eq!(size("512MiB"), Ok(512 * MIB));
        assert_eq!((size("2 GiB"), size("2048KiB")), (Ok(2048 * MIB), Ok(2 * MIB)));
        for bad in ["512", "512MB", "1.5GiB", "-1MiB", "MiB", "", "99999999999999999999GiB"] {
            assert!(size(bad).expect_err(bad).contains("512MiB"), "{bad}");
        }
        assert!(size("1023KiB").expect_err("small").contains("1MiB or more"));
    }

    #[test]
    fn memory_of_files_that_the_kernel_may_drop_does_not_count() {
        let status = "Name:\tx\nVmRSS:\t   900 kB\nRssAnon:\t   100 kB\nRssFile:\t   750 kB\nRssShmem:\t    50 kB\n";
        assert_eq!(own(status), Some(150 * KIB));
        assert_eq!(own("VmRSS:\t 900 kB\n"), Some(900 * KIB), "a kernel that does not tell them apart");
        assert_eq!(own("Name:\tx\n"), None, "a process that has ended");
    }

    #[test]
    fn the_sentence_names_both_numbers_and_where_the_limit_stands() {
        let max = MemoryMax { bytes: 256 * MIB, by: LimitedBy::Unit };
        let over = OverMemory { used_bytes: 300 * MIB, max };
        assert_eq!(over.to_string(), "out of memory: it used 300 MiB, and MemoryMax= of its unit is 256 MiB");
        let max = MemoryMax { by: LimitedBy::Config, ..max };
        assert!(OverMemory { max, ..over }.to_string().contains("memory_max in [driver] is 256 MiB"));
    }

    #[tokio::test]
    async fn who_stays_below_the_limit_is_left_alone_and_who_does_not_is_found() {
        let me = || Ok(vec![std::process::id().cast_signed()]);
        let max = |bytes| Some(MemoryMax { bytes, by: LimitedBy::Config });
        let mut judge = Judge::new();
        let long = LOOK_EVERY * 2;
        assert!(tokio::time::timeout(long, judge.exceeded(None, me)).await.is_err());
        assert!(tokio::time::timeout(long, judge.exceeded(max(1 << 40), me)).await.is_err());
        let over = judge.exceeded(max(1), me).await;
        assert!(over.used_bytes > 100 * KIB, "{over:?}");
    }
}
