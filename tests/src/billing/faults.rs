//! Faults that billing has on purpose, from flags and from a file that may change while it runs.
//!
//! The same words in both: `--fault bad-after=2s`, and in the file `bad-after = "2s"`. The file wins where both name one.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::span;

/// How often the file is read again: short beside every probe interval in use.
const REREAD: Duration = Duration::from_millis(20);
/// Where memory growth ends, so that a forgotten instance does not take its host down.
const GROWTH_LIMIT_MIB: u64 = 512;

/// What is wrong with billing. All are off by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Faults {
    /// `/ready` answers 503 for ever.
    pub never_ready: bool,
    /// `/ready` reports the schema gate as closed.
    pub schema_gate_closed: bool,
    /// `/ready` reports a running test clock.
    pub test_clock_running: bool,
    /// `/ready` answers 503 from this long after its first 200.
    #[serde(deserialize_with = "span::optional")]
    pub unready_after: Option<Duration>,
    /// Reads and writes are answered with 500 from this long after the first of them; `/ready` stays as it is.
    #[serde(deserialize_with = "span::optional")]
    pub bad_after: Option<Duration>,
    /// The same once so many were answered well.
    pub bad_after_requests: Option<u64>,
    /// Reads and writes are answered so much later.
    #[serde(deserialize_with = "span::optional")]
    pub slow: Option<Duration>,
    /// Memory grows, up to 512 MiB.
    pub grow_mib_per_s: Option<u64>,
    /// Exit 3 before listening.
    pub crash_at_start: bool,
    /// Exit 3 so long after the start.
    #[serde(deserialize_with = "span::optional")]
    pub crash_after: Option<Duration>,
    /// systemd is never told READY=1.
    pub never_notify: bool,
    /// systemd's watchdog hears nothing any more.
    pub mute_watchdog: bool,
    /// SIGTERM is ignored.
    pub hang_on_sigterm: bool,
    /// A QUIESCE is neither obeyed nor answered.
    pub ignore_quiesce: bool,
    /// A QUIESCE is acknowledged and not obeyed: a lie.
    pub quiesce_lie: bool,
    /// The scheduler hangs in its next unit, for as long as this stays.
    pub hang_in_unit: bool,
    /// Exit 3 in the middle of the next unit.
    pub crash_in_unit: bool,
    /// A process is left behind, once.
    pub leak: Option<Leak>,
    /// The same at the beginning of each turn.
    pub leak_in_turn: Option<Leak>,
    /// Each unit of the scheduler takes so much longer.
    #[serde(deserialize_with = "span::optional")]
    pub unit: Option<Duration>,
}

/// A process that billing starts and forgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leak {
    /// In billing's own process group.
    Child,
    /// Forked twice, in a session of its own: nobody's child and in nobody's group.
    Daemon,
}

impl Leak {
    /// Leaves it behind.
    pub(crate) fn start(self) {
        let (program, args): (_, &[&str]) = match self {
            Self::Child => ("sleep", &["300"]),
            Self::Daemon => ("setsid", &["--fork", "sleep", "300"]),
        };
        match std::process::Command::new(program).args(args).spawn() {
            Ok(child) => tracing::warn!(pid = child.id(), ?self, "left a process behind, as the fault leak asks"),
            Err(error) => tracing::error!(%error, ?self, "could not leave a process behind"),
        }
    }
}

impl Faults {
    /// What is wrong with a unit while it runs; returns once it may go on.
    pub fn in_unit(watched: &Watched) {
        let faults = watched.now();
        if faults.crash_in_unit {
            if let Some(leak) = faults.leak {
                leak.start();
            }
            tracing::error!("crashing in a unit, as the fault crash-in-unit asks");
            std::process::exit(3);
        }
        std::thread::sleep(faults.unit.unwrap_or_default());
        while watched.now().hang_in_unit {
            std::thread::sleep(REREAD);
        }
    }
}

/// Flags or a file that do not name faults.
#[derive(Debug, thiserror::Error)]
#[error("reading faults from {source_name}: {detail}")]
pub struct FaultError {
    source_name: String,
    detail: String,
}

/// Turns `bad-after=2s`, `bad-after-requests=100` or `never-ready` into a table entry.
fn flag_entry(flag: &str) -> (String, toml::Value) {
    let Some((name, value)) = flag.split_once('=') else { return (flag.to_owned(), true.into()) };
    let value = value.parse::<i64>().map_or_else(|_| value.into(), toml::Value::from);
    (name.to_owned(), value)
}

/// The faults of the flags, overlaid with those of the file's text.
fn combine(flags: &[String], file: Option<(&Path, &str)>) -> Result<Faults, FaultError> {
    let mut table: toml::Table = flags.iter().map(|flag| flag_entry(flag)).collect();
    let mut source_name = "--fault".to_owned();
    if let Some((path, text)) = file {
        source_name = path.display().to_string();
        let named = |error: toml::de::Error| FaultError { source_name: source_name.clone(), detail: error.to_string() };
        table.extend(text.parse::<toml::Table>().map_err(named)?);
    }
    table.try_into().map_err(|error: toml::de::Error| FaultError { source_name, detail: error.to_string() })
}

/// The faults as they are now, shared.
#[derive(Debug, Clone, Default)]
pub struct Watched(Arc<Mutex<Arc<Faults>>>);

impl Watched {
    /// The faults at this moment.
    pub fn now(&self) -> Arc<Faults> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, faults: Faults) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(faults);
    }
}

/// Ends the watching thread when dropped.
#[derive(Debug)]
pub struct Watch {
    _alive: Sender<()>,
}

/// Reads the faults, then keeps a thread that reads the file again, grows memory and crashes when told to. A file that
/// is not there has no faults in it; one that cannot be understood later on leaves the last faults as they were.
///
/// # Errors
/// When flags or file cannot be understood at the start.
pub fn watch(flags: Vec<String>, file: Option<PathBuf>) -> Result<(Watched, Watch), FaultError> {
    let watched = Watched::default();
    let mut text = String::new();
    if let Some(path) = &file {
        text = std::fs::read_to_string(path).unwrap_or_default();
    }
    watched.set(combine(&flags, file.as_deref().map(|path| (path, text.as_str())))?);
    let (alive, ended) = channel();
    let shared = watched.clone();
    std::thread::spawn(move || follow(&shared, &flags, file.as_deref(), text, &ended));
    Ok((watched, Watch { _alive: alive }))
}

fn follow(watched: &Watched, flags: &[String], file: Option<&Path>, mut text: String, ended: &Receiver<()>) {
    let started = Instant::now();
    let mut grown: Vec<Vec<u8>> = Vec::new();
    let mut leaked = false;
    while ended.recv_timeout(REREAD) == Err(RecvTimeoutError::Timeout) {
        if let Some(path) = file {
            reread(watched, flags, path, &mut text);
        }
        let faults = watched.now();
        if faults.crash_after.is_some_and(|after| started.elapsed() >= after) {
            tracing::error!("crashing, as the fault crash-after asks");
            std::process::exit(3);
        }
        if let Some(leak) = faults.leak.filter(|_| !leaked) {
            leak.start();
            leaked = true;
        }
        let wanted = faults.grow_mib_per_s.unwrap_or(0).saturating_mul(started.elapsed().as_secs());
        while (grown.len() as u64) < wanted.min(GROWTH_LIMIT_MIB) {
            grown.push(vec![1; 1 << 20]);
        }
    }
}

fn reread(watched: &Watched, flags: &[String], path: &Path, text: &mut String) {
    let now = std::fs::read_to_string(path).unwrap_or_default();
    if now == *text {
        return;
    }
    match combine(flags, Some((path, &now))) {
        Ok(faults) => {
            tracing::info!(?faults, "faults changed");
            watched.set(faults);
        }
        Err(error) => tracing::warn!(%error, "faults stay as they were"),
    }
    *text = now;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(flags: &[&str]) -> Vec<String> {
        flags.iter().map(|flag| (*flag).to_owned()).collect()
    }

    #[test]
    fn flags_and_file_use_the_same_words_and_the_file_wins() {
        let path = Path::new("b.toml");
        let flags = flags(&["bad-after=2s", "bad-after-requests=100", "never-ready"]);
        let faults = combine(&flags, Some((path, "bad-after = '5s'\nnever-ready = false"))).expect("faults");
        assert_eq!(faults.bad_after, Some(Duration::from_secs(5)));
        assert_eq!((faults.bad_after_requests, faults.never_ready), (Some(100), false));
    }

    #[test]
    fn an_unknown_fault_and_a_span_without_unit_are_refused_with_their_source() {
        let error = combine(&flags(&["no-such-fault"]), None).expect_err("unknown").to_string();
        assert!(error.contains("--fault") && error.contains("no-such-fault"), "{error}");
        let error = combine(&[], Some((Path::new("b.toml"), "slow = 5"))).expect_err("unit").to_string();
        assert!(error.contains("b.toml"), "{error}");
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_changes_nothing() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("b.toml");
        let (watched, _watch) = watch(flags(&["slow=1ms"]), Some(path.clone())).expect("watch");
        assert!(!watched.now().never_ready);
        let wait_for = |ready: bool| {
            let until = Instant::now() + Duration::from_secs(10);
            while watched.now().never_ready != ready {
                assert!(Instant::now() < until, "never became {ready}");
                std::thread::yield_now();
            }
        };
        std::fs::write(&path, "never-ready = true").expect("write");
        wait_for(true);
        let mut text = "never-ready = true".to_owned();
        std::fs::write(&path, "never-ready = maybe").expect("write");
        reread(&watched, &flags(&["slow=1ms"]), &path, &mut text);
        assert!(watched.now().never_ready);
        std::fs::remove_file(&path).expect("remove");
        wait_for(false);
        assert_eq!(watched.now().slow, Some(Duration::from_millis(1)), "the flag is still there");
    }
}
