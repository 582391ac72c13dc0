//! Follows one unit from its start, or its adoption, to its end: looks, decides ([`unit::next`]), acts, and waits for
//! systemd's next signal.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal as Kill;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tracing::{error, warn};
use zbus::OwnedObjectPath;

use super::bus::{Bus, BusError, Signal, Signals};
use super::cgroup::Cgroup;
use super::journal;
use super::unit::{self, Seen, Stage, Step};
use crate::driver::memory::{Judge, Killing, LimitedBy, MemoryMax, OverMemory};
use crate::driver::{Exit, ExitStatus, ProcessRecord, Told, UnitRecord, table};

/// Between two tries to reach systemd again.
const NEXT_TRY: Duration = Duration::from_secs(1);

/// Between two looks at a cgroup whose processes were killed. The kernel says nothing when the last of them has gone.
const NEXT_LOOK: Duration = Duration::from_millis(20);

/// After that long a killed process that is still there hangs in the kernel.
const HANGS_AFTER: Duration = Duration::from_secs(5);

/// An end is told this late at most for the sake of its last lines: whoever may take the lease then waits for it.
const TOLD_AFTER: Duration = Duration::from_secs(2);

/// One instance under watch, for the driver and its follower.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) unit: String,
    now: Mutex<Now>,
}

/// What is known of it at this moment.
#[derive(Debug, Clone)]
struct Now {
    record: ProcessRecord,
    awaits: Option<&'static str>,
    told_to_stop: bool,
}

impl Watched {
    pub(super) fn new(unit: &str, record: ProcessRecord, awaits: Option<&'static str>) -> Self {
        Self { unit: unit.to_owned(), now: Mutex::new(Now { record, awaits, told_to_stop: false }) }
    }

    /// It is being stopped because we want it to be.
    pub(super) fn note_stop(&self) {
        self.now().told_to_stop = true;
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn record(&self) -> ProcessRecord {
        self.now().record.clone()
    }

    /// Its cgroup, once systemd has named it.
    pub(super) fn cgroup(&self) -> Option<Cgroup> {
        let record = &self.now().record;
        let path = record.unit.as_ref().map(|unit| unit.cgroup.as_str()).filter(|path| !path.is_empty());
        path.map(Cgroup::of)
    }

    /// Why systemd does not take it for up.
    pub(super) fn awaits(&self) -> Option<String> {
        self.now().awaits.map(|what| format!("systemd waits for {what} ({})", self.unit))
    }
}

/// What follows one unit.
pub(super) struct Follower {
    pub(super) bus: Arc<Bus>,
    pub(super) watched: Arc<Watched>,
    pub(super) path: OwnedObjectPath,
    pub(super) stage: Stage,
    /// The order to start it, of which systemd tells how it ended.
    pub(super) order: Option<OwnedObjectPath>,
    /// None: it is not heard. A stream that nobody polls would keep the connection from being read.
    pub(super) signals: Option<Signals>,
    pub(super) told: mpsc::Sender<Told>,
    pub(super) wake: Arc<Notify>,
    pub(super) memory: Memory,
}

/// What the unit may use, and what became of that.
#[derive(Debug, Default)]
pub(super) struct Memory {
    max: Option<MemoryMax>,
    /// The last try to kill it.
    killing: Option<Killing>,
}

impl Follower {
    /// To the instance's end, which is told once nothing is left of it.
    pub(super) async fn follow(mut self) {
        let mut judge = Judge::new();
        let status = loop {
            match self.look().await {
                Ok(Some(status)) => break status,
                Ok(None) => {}
                Err(error) => {
                    // What happened meanwhile nobody says again.
                    self.broken(&error.to_string()).await;
                    continue;
                }
            }
            let cgroup = self.watched.cgroup();
            let max = self.memory.max.filter(|_| !self.memory.killing.is_some_and(|killing| killing.taken));
            let pids = move || cgroup.as_ref().zip(max).map_or(Ok(Vec::new()), |(cgroup, max)| judged(cgroup, max));
            let heard = async {
                match &mut self.signals {
                    Some(signals) => signals.next().await,
                    None => None,
                }
            };
            tokio::select! {
                signal = heard => match signal {
                    Some(Signal::Changed) => {}
                    Some(Signal::Ended { order, outcome }) => self.order_ended(&order, outcome),
                    None => self.broken("the connection to the bus has ended").await,
                },
                over = judge.exceeded(max, pids) => self.end(over).await,
            }
        };
        let status = self.memory.killing.map_or(status, |killing| killing.status(status));
        self.finish(status).await;
    }

    /// As the kernel would, if it kept the unit's limit.
    async fn end(&mut self, over: OverMemory) {
        let unit = &self.watched.unit;
        warn!(unit, %over, "killing the unit");
        let direct = self.watched.cgroup().map_or(Ok(false), |cgroup| cgroup.kill());
        let killed = match direct {
            Ok(_) => Ok(()),
            Err(_) => self.bus.kill(unit, Kill::KILL.as_raw()).await,
        };
        if let Err(error) = &killed {
            error!(unit, %error, "the unit cannot be killed; trying again");
        }
        self.memory.killing = Some(Killing { over, taken: killed.is_ok() });
    }

    fn order_ended(&mut self, order: &OwnedObjectPath, ended: String) {
        if let (true, Stage::Ordered { outcome, .. }) = (self.order.as_ref() == Some(order), &mut self.stage) {
            *outcome = Some(ended);
        }
    }

    /// Until systemd is heard again. What it said meanwhile is made up for by looking; only of an order nobody can ask.
    async fn broken(&mut self, reason: &str) {
        self.signals = None;
        let unit = &self.watched.unit;
        warn!(unit, reason, "systemd is not heard; trying again until it is");
        loop {
            tokio::time::sleep(NEXT_TRY).await;
            let heard = async {
                self.bus.keep(unit).await?;
                self.bus.listen(unit, &self.path).await
            };
            match heard.await {
                Ok(signals) => break self.signals = Some(signals),
                Err(error) => warn!(unit, %error, "systemd is still not heard"),
            }
        }
        if let Stage::Ordered { outcome: outcome @ None, .. } = &mut self.stage {
            *outcome = Some(unit::LOST.to_owned());
        }
    }

    /// One look, and all that follows from it. Some: how the instance ended.
    async fn look(&mut self) -> Result<Option<ExitStatus>, BusError> {
        let mut seen = self.bus.look(&self.watched.unit, &self.path).await?;
        self.memory.max = seen.memory_max.map(|bytes| MemoryMax { bytes, by: LimitedBy::Unit });
        loop {
            match unit::next(&self.stage, &seen) {
                Step::Begun => {
                    self.stage = Stage::Begun { invocation: seen.invocation.clone(), was_up: false };
                }
                Step::Runs { awaits } => {
                    if let (None, Stage::Begun { was_up, .. }) = (awaits, &mut self.stage) {
                        *was_up = true;
                    }
                    self.note(&seen, awaits).await;
                    return Ok(None);
                }
                Step::TakeBack => {
                    warn!(
                        unit = self.watched.unit,
                        "nobody knows what became of the order to start the unit; taking it back"
                    );
                    self.bus.stop(&self.watched.unit).await?;
                    if let Stage::Ordered { outcome, .. } = &mut self.stage {
                        *outcome = Some(unit::TAKEN_BACK.to_owned());
                    }
                    seen = self.bus.look(&self.watched.unit, &self.path).await?;
                }
                Step::Foreign => {
                    let (unit, restarts) = (&self.watched.unit, seen.restarts);
                    warn!(unit, restarts, "the unit was started past the agent; stopping what was started so");
                    self.note(&Seen::default(), Some("what was started past the agent to stop")).await;
                    self.bus.stop(unit).await?;
                    return Ok(None);
                }
                Step::Ended(status) => {
                    // Its cgroup and main process may never have been seen by us while it ran.
                    self.note(&seen, Some("it to be put away")).await;
                    return Ok(Some(status));
                }
            }
        }
    }

    /// Keeps what was learned, and tells the agent if it is new.
    async fn note(&self, seen: &Seen, awaits: Option<&'static str>) {
        let (before, after) = {
            let mut now = self.watched.now();
            let before = now.clone();
            now.awaits = awaits;
            if let Stage::Begun { invocation, .. } = &self.stage {
                learn(&mut now.record, invocation, seen);
            }
            (before, now.clone())
        };
        if before.record != after.record {
            self.tell(Told::Began(after.record)).await;
        }
        if before.awaits != after.awaits {
            self.wake.notify_one();
        }
    }

    async fn tell(&self, told: Told) {
        // Only an agent that ends does not listen any more; the next one looks for itself.
        let _nobody_listens = self.told.send(told).await;
    }

    /// The unit is at rest. The instance is dead once nothing is in its cgroup: systemd leaves there what the unit's
    /// `KillMode=` tells it to, and what its own SIGKILL did not end in time.
    async fn finish(mut self, status: ExitStatus) {
        // Nothing that systemd says matters any more.
        self.signals = None;
        let record = self.watched.record();
        let exit =
            |left: Option<String>, proven, tail| Exit { instance: record.instance.clone(), status, left, proven, tail };
        // Whoever is started in its place waits for them: asking the journal takes some ten milliseconds.
        let wants_no_words = unit::is_as_asked(self.watched.now().told_to_stop, status);
        let cgroup = self.watched.cgroup();
        // What may still work as this instance is ended first, and not after the journal has answered.
        let words = async { if wants_no_words { Vec::new() } else { last_lines(&record).await } };
        let (left, tail) = tokio::join!(emptied(cgroup.as_ref(), HANGS_AFTER), words);
        if let Some(left) = left {
            error!(unit = self.watched.unit, left, "what is left of the unit does not end");
            self.tell(Told::Exit(exit(Some(left), false, tail.clone()))).await;
            while emptied(cgroup.as_ref(), HANGS_AFTER).await.is_some() {}
        }
        // A cgroup that we never heard of is none that we saw empty.
        self.tell(Told::Exit(exit(None, cgroup.is_some(), tail))).await;
    }
}

/// The processes whose memory is ours to judge: none where the kernel does. What it charges is less than what they map.
fn judged(cgroup: &Cgroup, max: MemoryMax) -> io::Result<Vec<i32>> {
    if cgroup.is_kept_within(max.bytes) { Ok(Vec::new()) } else { cgroup.processes() }
}

/// What the instance wrote last, if the journal says so in time.
async fn last_lines(record: &ProcessRecord) -> Vec<String> {
    let invocation = record.unit.as_ref().map(|unit| unit.invocation.as_str()).filter(|id| !id.is_empty());
    match invocation {
        Some(invocation) => timeout(TOLD_AFTER, journal::last_lines(invocation)).await.unwrap_or_default(),
        None => Vec::new(),
    }
}

/// Kills what is in the cgroup until nothing is left; after `limit`: what is, in words.
async fn emptied(cgroup: Option<&Cgroup>, limit: Duration) -> Option<String> {
    let began = tokio::time::Instant::now();
    loop {
        let left = cgroup.and_then(kill_rest)?;
        if began.elapsed() >= limit {
            return Some(left);
        }
        tokio::time::sleep(NEXT_LOOK).await;
    }
}

/// Kills what is in the cgroup; what is left then, in words.
fn kill_rest(cgroup: &Cgroup) -> Option<String> {
    match cgroup.kill().and_then(|_| cgroup.processes()) {
        Ok(left) if left.is_empty() => None,
        Ok(left) => Some(format!("processes {left:?} of its cgroup are still there after SIGKILL")),
        Err(error) => Some(format!("its cgroup cannot be looked at: {error}")),
    }
}

/// What a look adds to the record; nothing is forgotten when the unit has ended.
pub(super) fn learn(record: &mut ProcessRecord, invocation: &str, seen: &Seen) {
    let unit = record.unit.get_or_insert_with(UnitRecord::default);
    if seen.invocation == invocation || unit.invocation.is_empty() {
        unit.invocation = invocation.to_owned();
    }
    if seen.invocation != invocation {
        return;
    }
    if !seen.cgroup.is_empty() {
        unit.cgroup.clone_from(&seen.cgroup);
    }
    if seen.main_pid > 0 && seen.main_pid != record.pid {
        record.pid = seen.main_pid;
        let row = table::row(seen.main_pid).ok().flatten();
        record.start_time_ticks = row.map_or(0, |row| row.key.start_time_ticks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_left_is_ended_at_once_and_an_unknown_cgroup_holds_up_nothing() {
        assert_eq!(emptied(None, Duration::ZERO).await, None);
        let gone = Cgroup::of("/no-such.slice/no-such.service");
        assert_eq!(emptied(Some(&gone), Duration::ZERO).await, None, "a cgroup that is no more is empty");
    }

    #[test]
    fn who_is_kept_within_its_limit_by_the_kernel_is_not_judged_by_us() {
        let dir = tempfile::tempdir().expect("a directory");
        let cgroup = Cgroup::at(dir.path().to_owned(), dir.path().join("no-v1"));
        std::fs::write(dir.path().join("cgroup.procs"), "12\n").expect("written");
        let max = MemoryMax { bytes: 1 << 30, by: LimitedBy::Unit };
        assert_eq!(judged(&cgroup, max).expect("read"), [12], "nobody else judges it");
        std::fs::write(dir.path().join("memory.max"), "1073741824\n").expect("written");
        assert!(judged(&cgroup, max).expect("read").is_empty());
    }

    #[tokio::test]
    async fn a_kill_for_memory_that_is_refused_is_not_taken_for_done() {
        let dir = tempfile::tempdir().expect("a directory");
        let procs = dir.path().join("cgroup.procs");
        std::fs::create_dir(&procs).expect("in the way");
        let instance = "0011223344556677".parse().expect("an instance");
        let record = ProcessRecord {
            instance,
            pid: 0,
            start_time_ticks: 0,
            boot_id: String::new(),
            unbroken: false,
            output: std::path::PathBuf::new(),
            output_from_bytes: 0,
            unit: Some(UnitRecord { cgroup: format!("../../../..{}", dir.path().display()), ..UnitRecord::default() }),
            command: None,
        };
        let (told, _) = mpsc::channel(1);
        let mut follower = Follower {
            bus: Arc::default(),
            watched: Arc::new(Watched::new("handover-no-such.service", record, None)),
            path: OwnedObjectPath::try_from("/no/such").expect("a path"),
            stage: Stage::Begun { invocation: String::new(), was_up: true },
            order: None,
            signals: None,
            told,
            wake: Arc::default(),
            memory: Memory::default(),
        };
        let over = OverMemory { used_bytes: 2, max: MemoryMax { bytes: 1, by: LimitedBy::Unit } };
        // Neither the kernel nor systemd, if there is one here, knows such a unit.
        follower.end(over).await;
        assert_eq!(follower.memory.killing, Some(Killing { over, taken: false }), "it is judged again");
        std::fs::remove_dir(&procs).and_then(|()| std::fs::write(&procs, "")).expect("written");
        follower.end(over).await;
        assert_eq!(follower.memory.killing, Some(Killing { over, taken: true }));
    }
}
