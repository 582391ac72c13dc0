//! What an instance uses of its memory, against the most that it may, judged by `/proc`: for hosts whose kernel does not
//! watch over it. There a unit's `MemoryMax=` is written down and not kept (cgroup v1 holds the controller), and a process
//! of ours has no limit but the host's memory, which all of its neighbours need.
//!
//! A page that several processes map counts once, as where the kernel keeps a limit: what was forked shares most of its
//! memory with what forked it.

use std::fmt;
use std::fs;
use std::io;
use std::pin::pin;
use std::time::Duration;

use rustix::process::Signal;
use serde::{Deserialize, Deserializer, de};
use tokio::task::spawn_blocking;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::ExitStatus;

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

/// A try to end an instance that used too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Killing {
    /// Why.
    pub(super) over: OverMemory,
    /// Whether the kill was taken. One that was refused is tried again, and may have reached some all the same.
    pub(super) taken: bool,
}

impl Killing {
    /// How the instance ended, of which its main process ended so.
    pub(super) fn status(self, own: ExitStatus) -> ExitStatus {
        let ours = self.taken || own == ExitStatus::Signal(Signal::KILL.as_raw());
        if ours { ExitStatus::Memory(self.over) } else { own }
    }
}

/// Watches over an instance until it has ended: kills it if it uses more than it may, and again with each look while that
/// is refused. The last try, if there was one.
pub(super) async fn guard<F, K>(
    max: Option<MemoryMax>,
    pids: F,
    ended: impl Future<Output = io::Result<()>>,
    mut kill: impl FnMut(OverMemory) -> K,
) -> io::Result<Option<Killing>>
where
    F: Fn() -> io::Result<Vec<i32>> + Clone + Send + 'static,
    K: Future<Output = io::Result<()>>,
{
    let (mut judge, mut killing) = (Judge::new(), None);
    let mut ended = pin!(ended);
    loop {
        let over = tokio::select! {
            done = &mut ended => return done.map(|()| killing),
            over = judge.exceeded(max, pids.clone()) => over,
        };
        let taken = kill(over).await.is_ok();
        killing = Some(Killing { over, taken });
        if taken {
            return ended.await.map(|()| killing);
        }
    }
}

/// Looks again and again.
#[derive(Debug)]
pub(super) struct Judge {
    looks: Interval,
}

impl Judge {
    pub(super) fn new() -> Self {
        Self::every(LOOK_EVERY)
    }

    fn every(pause: Duration) -> Self {
        let mut looks = interval(pause);
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
            let used = spawn_blocking(move || pids().map(|pids| used_bytes(&pids, max.bytes))).await;
            match used.map_err(io::Error::other).flatten() {
                Ok(used_bytes) if used_bytes > max.bytes => return OverMemory { used_bytes, max },
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "cannot look at the instance's memory"),
            }
        }
    }
}

/// Memory of these processes that only their end gives back: without files that the kernel may drop at any time. Those that
/// do not run have none. Who shares what is asked only above `enough`, since the kernel walks through all pages for it.
fn used_bytes(pids: &[i32], enough: u64) -> u64 {
    let mapped = |pid: &i32| read(*pid, "status").and_then(|status| mapped(&status));
    let sum = pids.iter().filter_map(mapped).sum();
    if sum <= enough {
        return sum;
    }
    let share = |pid: &i32| read(*pid, "smaps_rollup").and_then(|rollup| share(&rollup)).or_else(|| mapped(pid));
    pids.iter().filter_map(share).sum()
}

fn read(pid: i32, file: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/{file}")).ok()
}

/// What a process maps, also where others map the same: `proc_pid_status(5)`.
fn mapped(status: &str) -> Option<u64> {
    let own = bytes(status, "RssAnon:").and_then(|anonymous| Some(anonymous + bytes(status, "RssShmem:")?));
    own.or_else(|| bytes(status, "VmRSS:"))
}

/// The same divided by those who map it: `proc_pid_smaps_rollup(5)`; none before Linux 5.9.
fn share(rollup: &str) -> Option<u64> {
    Some(bytes(rollup, "Pss_Anon:")? + bytes(rollup, "Pss_Shmem:")?)
}

fn bytes(lines: &str, name: &str) -> Option<u64> {
    let line = lines.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(KIB)
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
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

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
        assert_eq!(mapped(status), Some(150 * KIB));
        assert_eq!(mapped("VmRSS:\t 900 kB\n"), Some(900 * KIB), "a kernel that does not tell them apart");
        assert_eq!(mapped("Name:\tx\n"), None, "a process that has ended");
        let rollup = "Pss:   300 kB\nPss_Anon:   90 kB\nPss_File:   170 kB\nPss_Shmem:   40 kB\nSwapPss: 7 kB\n";
        assert_eq!(share(rollup), Some(130 * KIB));
        assert_eq!(share("Pss:   300 kB\n"), None, "a kernel that does not tell them apart");
    }

    #[tokio::test]
    async fn a_kill_that_is_refused_is_tried_again_with_the_next_look() {
        let me = || Ok(vec![std::process::id().cast_signed()]);
        let max = Some(MemoryMax { bytes: 1, by: LimitedBy::Config });
        let (end, ended) = tokio::sync::oneshot::channel();
        let (mut end, mut tries) = (Some(end), 0);
        let kill = |_| {
            tries += 1;
            if tries < 2 {
                return std::future::ready(Err(io::ErrorKind::TimedOut.into()));
            }
            end.take().expect("once").send(()).expect("waited for");
            std::future::ready(Ok(()))
        };
        let ended = async { ended.await.map_err(io::Error::other) };
        let guarded = tokio::time::timeout(Duration::from_secs(30), guard(max, me, ended, kill)).await;
        let killing = guarded.expect("tried again").expect("ended").expect("killed");
        assert!(killing.taken && tries == 2, "{killing:?}");
    }

    #[test]
    fn an_end_is_for_lack_of_memory_only_if_we_have_killed_it() {
        let max = MemoryMax { bytes: 1, by: LimitedBy::Unit };
        let over = OverMemory { used_bytes: 2, max };
        let of = |taken, own| Killing { over, taken }.status(own);
        let killed = ExitStatus::Signal(Signal::KILL.as_raw());
        assert_eq!(of(true, ExitStatus::Unknown), ExitStatus::Memory(over));
        assert_eq!(of(false, killed), ExitStatus::Memory(over), "the refusal came late");
        assert_eq!(of(false, ExitStatus::Code(0)), ExitStatus::Code(0), "it was stopped weeks later");
    }

    #[test]
    fn the_sentence_names_both_numbers_and_where_the_limit_stands() {
        let max = MemoryMax { bytes: 256 * MIB, by: LimitedBy::Unit };
        let over = OverMemory { used_bytes: 300 * MIB, max };
        assert_eq!(over.to_string(), "out of memory: it used 300 MiB, and MemoryMax= of its unit is 256 MiB");
        let max = MemoryMax { by: LimitedBy::Config, ..max };
        assert!(OverMemory { max, ..over }.to_string().contains("memory_max in [driver] is 256 MiB"));
    }

    /// A shell that has filled 60 MB, and four that it forked after that, each in the other's pages.
    struct Family {
        shell: Child,
        pids: Vec<i32>,
    }

    impl Family {
        fn start() -> Self {
            let script = "filled=$(head -c 60000000 /dev/zero | tr '\\0' a)
                for one in 1 2 3 4; do (echo up; read -r _; : $filled) <&3 & done; echo $$; wait";
            let mut command = Command::new("sh");
            command.args(["-c", &format!("exec 3<&0; {script}")]).process_group(0);
            let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sh");
            let said = BufReader::new(shell.stdout.take().expect("its output"));
            // Its number and four children's words, in any order.
            assert_eq!(said.lines().take(5).filter_map(Result::ok).count(), 5, "all are up");
            let me = shell.id().cast_signed();
            let children = read(me, &format!("task/{me}/children")).expect("its children");
            let pids = children.split_whitespace().map(|pid| pid.parse().expect("a pid")).chain([me]).collect();
            Self { shell, pids }
        }
    }

    impl Drop for Family {
        fn drop(&mut self) {
            let group = nix::unistd::Pid::from_raw(self.shell.id().cast_signed());
            nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).expect("killed");
            self.shell.wait().expect("reaped");
        }
    }

    #[test]
    fn pages_that_forked_processes_share_count_once() {
        let family = Family::start();
        let status = |pid: &i32| mapped(&read(*pid, "status").expect("it runs")).expect("told");
        let sum: u64 = family.pids.iter().map(status).sum();
        let max = MemoryMax { bytes: 200 * MIB, by: LimitedBy::Config };
        assert!(family.pids.len() == 5 && sum > max.bytes, "each maps the whole: {sum}");
        let used = used_bytes(&family.pids, max.bytes);
        assert!((50_000_000..max.bytes).contains(&used), "{used} of {sum}");
    }

    /// Above this, three looks have been taken, and two of them judged.
    const LOOKS: usize = 3;

    #[tokio::test]
    async fn who_stays_below_the_limit_is_left_alone_and_who_does_not_is_found() {
        let looks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&looks);
        let me = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(vec![std::process::id().cast_signed()])
        };
        let seen = async |at_least| {
            while looks.load(Ordering::SeqCst) < at_least {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let max = |bytes| Some(MemoryMax { bytes, by: LimitedBy::Config });
        let mut judge = Judge::every(Duration::from_millis(1));
        tokio::select! {
            over = judge.exceeded(max(1 << 40), me.clone()) => panic!("{over:?}"),
            () = seen(LOOKS) => {}
        }
        let over = judge.exceeded(max(1), me).await;
        assert!(over.used_bytes > 100 * KIB, "{over:?}");
        let nobody = || -> io::Result<Vec<i32>> { panic!("without a limit nobody looks") };
        let unlimited = tokio::time::timeout(Duration::from_millis(10), judge.exceeded(None, nobody)).await;
        assert!(unlimited.is_err());
    }
}
