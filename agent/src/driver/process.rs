//! The `process` driver: the agent runs the command itself, in a process group of its own.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use handover_proto::ids::InstanceId;
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tokio_util::task::AbortOnDropHandle;

use super::clear::{Cleared, clear};
use super::ended::Ended;
use super::memory::{Killing, LimitedBy, MemoryMax, guard};
use super::survey::{self, Watch};
use super::watched::{Leader, Watched};
use super::{Adopted, DriverError, Exit, ExitStatus, Found, Owner, ProcessRecord, StartSpec, Told};
use super::{found, spawn, table, tail, trial};

/// Room for exits that the agent has not yet looked at; more than a host has slots.
const EXITS: usize = 64;

/// Between two rounds of killing what hangs in the kernel; each round itself takes seconds.
const AGAIN: Duration = Duration::from_secs(1);

/// The least time between two sweeps, and the most. Each walks through `/proc`, some milliseconds on a busy host.
const SWEEP_EVERY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Starts, adopts, watches and stops instances. Dropping it leaves them running, for the next agent process to adopt.
#[derive(Debug)]
pub struct ProcessDriver {
    owner: Owner,
    boot_id: String,
    /// Whether a walk through `/proc` shows every descendant: nothing is proven otherwise.
    sees_all: bool,
    watch: Arc<Watch>,
    told: mpsc::Sender<Told>,
    memory_max: Option<MemoryMax>,
    watchers: Mutex<JoinSet<()>>,
    _sweeper: AbortOnDropHandle<()>,
}

impl ProcessDriver {
    /// Makes this process the subreaper of all that it starts from now on. One per process; exits arrive on the
    /// receiver. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When the kernel refuses one of the means.
    pub fn open(owner: Owner) -> Result<(Self, mpsc::Receiver<Told>), DriverError> {
        nix::sys::prctl::set_child_subreaper(true)
            .map_err(DriverError::system("become the subreaper of the instances (PR_SET_CHILD_SUBREAPER)"))?;
        let boot_id = table::boot_id().map_err(DriverError::system("read /proc/sys/kernel/random/boot_id"))?;
        let sees_all = table::is_complete().map_err(DriverError::system("read how /proc is mounted"))?;
        if !sees_all {
            tracing::warn!("/proc hides processes (hidepid): no stop will be proven; give the agent CAP_SYS_PTRACE");
        }
        let watch = Arc::new(Watch::default());
        let child_ended = signal(SignalKind::child()).map_err(DriverError::system("listen for SIGCHLD"))?;
        let sweeper = AbortOnDropHandle::new(tokio::spawn(sweep(Arc::clone(&watch), child_ended)));
        let (told, receiver) = mpsc::channel(EXITS);
        let (watchers, memory_max) = (Mutex::default(), None);
        let driver = Self { owner, boot_id, sees_all, watch, told, memory_max, watchers, _sweeper: sweeper };
        Ok((driver, receiver))
    }

    pub(super) fn told(&self) -> &mpsc::Sender<Told> {
        &self.told
    }

    /// An instance that uses more memory than so many bytes, with all its processes, is killed.
    /// Counts for those that are started or adopted from now on.
    pub fn limit_memory(&mut self, bytes: Option<u64>) {
        self.memory_max = bytes.map(|bytes| MemoryMax { bytes, by: LimitedBy::Config });
    }

    /// Starts an instance and watches it. The record is for the agent's state file; one [`Exit`] will follow.
    ///
    /// # Errors
    /// When the version or its program is missing, or the kernel refuses. Nothing runs then.
    pub fn start(&self, spec: &StartSpec) -> Result<ProcessRecord, DriverError> {
        let spawned = spawn::spawn(spec, &self.owner)?;
        let record = self.record(spec, &spawned).inspect_err(|_| abandon(&spawned.child))?;
        // The agent's own protection from the out-of-memory killer is not its services'. That it may not be raised is no
        // reason not to serve.
        let _best_effort = std::fs::write(format!("/proc/{}/oom_score_adj", record.pid), "0");
        self.take_up(Watched::new(record.clone(), Leader::Own(spawned.child)))?;
        Ok(record)
    }

    fn record(&self, spec: &StartSpec, spawned: &spawn::Spawned) -> Result<ProcessRecord, DriverError> {
        let pid = spawned.child.pid();
        let row = table::row(pid).map_err(DriverError::system(format!("read /proc/{pid}/stat")))?;
        // The child is not reaped yet, so that a missing line means that /proc is not what it seems.
        let row = row.ok_or_else(|| {
            DriverError::system(format!("find process {pid} in /proc"))(io::Error::from(io::ErrorKind::NotFound))
        })?;
        Ok(ProcessRecord {
            instance: spec.instance.clone(),
            pid,
            start_time_ticks: row.key.start_time_ticks,
            boot_id: self.boot_id.clone(),
            unbroken: self.sees_all,
            output: spec.output.clone(),
            output_from_bytes: spawned.output_from_bytes,
            unit: None,
            command: None,
        })
    }

    /// Takes up an instance that an earlier agent process started. A process that merely has the same number is left
    /// alone. If the main process has ended, what it left behind is killed before this returns (up to 5 s).
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub async fn adopt(&self, record: &ProcessRecord) -> Result<Adopted, DriverError> {
        let record = ProcessRecord { unbroken: false, ..record.clone() };
        if record.boot_id != self.boot_id {
            return Ok(Adopted::Gone { empty: true, proven: false });
        }
        if let Some(known) = self.watch.get(&record.instance) {
            return Ok(Adopted::Running(known.record.clone()));
        }
        let watched = Watched::new(record.clone(), Leader::Gone);
        let operation = format!("open process {} of instance {}", record.pid, record.instance);
        match survey::certain(watched.leader_key()).map_err(DriverError::system(operation))? {
            Some(pidfd) => {
                self.take_up(Watched::new(record.clone(), Leader::Adopted(pidfd)))?;
                Ok(Adopted::Running(record))
            }
            None => {
                let empty = self.clear_now(Arc::new(watched)).await.is_empty();
                Ok(Adopted::Gone { empty, proven: false })
            }
        }
    }

    /// The instances of this agent that run but are not watched, found by the marks in their environment. For an agent
    /// without its state file.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub async fn find_running(&self) -> Result<Vec<Found>, DriverError> {
        let (owner, boot_id) = (self.owner.clone(), self.boot_id.clone());
        let looked = spawn_blocking(move || found::find(&owner, &boot_id)).await.map_err(io::Error::other);
        let mut found = looked.flatten().map_err(DriverError::system("look for running instances in /proc"))?;
        found.retain(|found| self.watch.get(&found.instance).is_none());
        Ok(found)
    }

    /// Kills what is left of an instance whose main process has ended, which [`Found::main`] tells. True if nothing is
    /// left then; never a proof of stop. An instance that
    /// is watched is left alone: false.
    pub async fn clear_leftovers(&self, instance: &InstanceId) -> bool {
        if self.watch.get(instance).is_some() {
            return false;
        }
        let record = ProcessRecord {
            instance: instance.clone(),
            // No process has this number: only marks tell what belongs to the instance.
            pid: 0,
            start_time_ticks: 0,
            boot_id: self.boot_id.clone(),
            unbroken: false,
            output: std::path::PathBuf::new(),
            output_from_bytes: 0,
            unit: None,
            command: None,
        };
        self.clear_now(Arc::new(Watched::new(record, Leader::Gone))).await.is_empty()
    }

    /// Asks the instance to end: SIGTERM to its process group. When to lose patience is the caller's decision. A stopped
    /// (SIGSTOP) process is not woken, since it might go on with work that it no longer may do; [`Self::kill`] ends it.
    ///
    /// # Errors
    /// When the instance is not watched, or the kernel refuses.
    pub async fn signal_stop(&self, instance: &InstanceId) -> Result<(), DriverError> {
        self.signal(instance, Signal::TERM).await
    }

    /// Ends the instance: SIGKILL to its process group and every descendant, which also ends stopped ones.
    ///
    /// # Errors
    /// When the instance is not watched, or the kernel refuses.
    pub async fn kill(&self, instance: &InstanceId) -> Result<(), DriverError> {
        self.signal(instance, Signal::KILL).await
    }

    /// Memory of the instance's main process that is in RAM, in bytes; none if it is not watched or has just ended.
    pub fn resident_bytes(&self, instance: &InstanceId) -> Option<u64> {
        table::resident_bytes(self.watch.get(instance)?.record.pid)
    }

    /// How long it takes on this host to end a tree of processes and to prove that nothing of it is left: the longest of
    /// 20 tries with `command`, which must write one line once all its processes run, and go on. Blocks.
    ///
    /// # Errors
    /// When it cannot be tried, or a try ends without a proof.
    pub fn kill_time(&self, command: &[String]) -> Result<Duration, DriverError> {
        if !self.sees_all {
            let hidden = io::Error::other("/proc hides processes (hidepid); give the agent CAP_SYS_PTRACE");
            return Err(DriverError::system("prove the end of a tree of processes")(hidden));
        }
        let operation = format!("try how long a kill takes, with {}", command.join(" "));
        trial::kill_time(&self.watch, &self.owner, &self.boot_id, command).map_err(DriverError::system(operation))
    }

    async fn signal(&self, instance: &InstanceId, signal: Signal) -> Result<(), DriverError> {
        let watched = self.watch.get(instance);
        let watched = watched.ok_or_else(|| DriverError::NotWatched { instance: instance.clone() })?;
        let operation = format!("send {signal:?} to instance {instance}");
        let watch = Arc::clone(&self.watch);
        let sent = spawn_blocking(move || signal_all(&watch, &watched, signal)).await;
        sent.map_err(io::Error::other).flatten().map_err(DriverError::system(operation))
    }

    /// Watches from now on.
    fn take_up(&self, watched: Watched) -> Result<(), DriverError> {
        let instance = watched.record.instance.clone();
        let ended = watched.leader.handle().and_then(|handle| handle.map(Ended::of).transpose());
        let ended = ended.map_err(DriverError::system(format!("watch instance {instance}"))).inspect_err(|_| {
            if let Leader::Own(child) = &watched.leader {
                abandon(child);
            }
        })?;
        let watched = Arc::new(watched);
        self.watch.add(Arc::clone(&watched));
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        while watchers.try_join_next().is_some() {}
        watchers.spawn(watch_one(Arc::clone(&self.watch), watched, (ended, self.memory_max), self.told.clone()));
        Ok(())
    }

    async fn clear_now(&self, watched: Arc<Watched>) -> Cleared {
        let instance = watched.record.instance.clone();
        self.watch.add(Arc::clone(&watched));
        let cleared = clear_away(&self.watch, watched).await;
        self.watch.remove(&instance);
        cleared
    }
}

/// A start that failed half-way must leave nothing that runs. The sweep reaps it.
fn abandon(child: &super::child::Child) {
    if let Err(error) = child.kill_group() {
        tracing::error!(pid = child.pid(), %error, "cannot kill a process whose start failed");
    }
}

/// Surveys before it signals: once the main process has ended, where its descendants came from is harder to tell.
pub(super) fn signal_all(watch: &Watch, watched: &Watched, signal: Signal) -> io::Result<()> {
    // SIGTERM goes to the whole group at once if the group is certain, one by one if not; descendants outside it are for
    // the instance to end. SIGKILL goes to all.
    let adopted = matches!(watched.leader, Leader::Adopted(_));
    let group = watched.record.pid;
    let reaches = |row: &table::Row| !row.ended && (signal == Signal::KILL || (adopted && row.group == group));
    let surveyed = watch.with_members(watched, |found| {
        watched.leader.signal(signal)?;
        for row in found.others.iter().filter(|row| reaches(row)) {
            survey::signal(row.key, signal)?;
        }
        Ok(())
    });
    // Without a survey the main process is to be reached all the same; twice does no harm where the first try failed.
    surveyed.or_else(|error| watched.leader.signal(signal).and(Err(error)))
}

/// Waits for the end of the main process; whether it was killed for using too much memory.
async fn until_ended(
    (watch, watched): (&Arc<Watch>, &Arc<Watched>),
    mut ended: Ended,
    max: Option<MemoryMax>,
) -> io::Result<Option<Killing>> {
    let (all, all_of_it) = ((Arc::clone(watch), Arc::clone(watched)), (Arc::clone(watch), Arc::clone(watched)));
    let pids = move || {
        let (watch, watched) = &all;
        let running = |others: Vec<table::Row>| others.into_iter().filter(|row| !row.ended).map(|row| row.key.pid);
        watch.with_members(watched, |found| Ok(running(found.others).chain([watched.record.pid]).collect()))
    };
    let kill = move |over| {
        let (watch, watched) = all_of_it.clone();
        tracing::warn!(instance = %watched.record.instance, %over, "killing the instance");
        kill_all(watch, watched)
    };
    guard(max, pids, ended.wait(), kill).await
}

async fn kill_all(watch: Arc<Watch>, watched: Arc<Watched>) -> io::Result<()> {
    let instance = watched.record.instance.clone();
    let killed = spawn_blocking(move || signal_all(&watch, &watched, Signal::KILL)).await;
    let killed = killed.map_err(io::Error::other).flatten();
    killed.inspect_err(|error| tracing::error!(%instance, %error, "cannot kill the instance; trying again"))
}

async fn watch_one(
    watch: Arc<Watch>,
    watched: Arc<Watched>,
    (ended, max): (Option<Ended>, Option<MemoryMax>),
    driver: mpsc::Sender<Told>,
) {
    let instance = watched.record.instance.clone();
    let killing = match ended {
        Some(ended) => until_ended((&watch, &watched), ended, max).await,
        None => Ok(None),
    };
    let killing = match killing {
        Ok(killing) => killing,
        Err(error) => {
            tracing::error!(%instance, %error, "cannot watch the instance any more");
            return;
        }
    };
    let status = watched.leader.status().unwrap_or_else(|error| {
        tracing::error!(%instance, %error, "cannot learn how the instance ended");
        ExitStatus::Unknown
    });
    let status = killing.map_or(status, |killing| killing.status(status));
    let record = watched.record.clone();
    let mut told = None;
    let proven = loop {
        match clear_away(&watch, Arc::clone(&watched)).await {
            Cleared::Empty { proven } => break proven,
            Cleared::Left(what) if told.as_ref() != Some(&what) => {
                told = Some(what.clone());
                let (instance, tail) = (instance.clone(), Vec::new());
                say(&driver, Exit { instance, status, left: Some(what), proven: false, tail }).await;
            }
            // A kill that did not work is repeated for as long as it takes.
            Cleared::Left(_) => tokio::time::sleep(AGAIN).await,
        }
    };
    watch.remove(&instance);
    let tail = last_lines(record).await;
    tracing::info!(%instance, %status, proven, "instance ended");
    say(&driver, Exit { instance, status, left: None, proven, tail }).await;
}

async fn say(told: &mpsc::Sender<Told>, exit: Exit) {
    if told.send(Told::Exit(exit)).await.is_err() {
        tracing::warn!("nobody listens to exits any more");
    }
}

async fn clear_away(watch: &Arc<Watch>, watched: Arc<Watched>) -> Cleared {
    let instance = watched.record.instance.clone();
    let shared = Arc::clone(watch);
    spawn_blocking(move || clear(&shared, &watched)).await.unwrap_or_else(|error| {
        tracing::error!(%instance, %error, "clearing away what the instance left behind was cut short");
        Cleared::Left(format!("clearing it away was cut short: {error}"))
    })
}

async fn last_lines(record: ProcessRecord) -> Vec<String> {
    let path = record.output.clone();
    let read = spawn_blocking(move || tail::tail(&record.output, record.output_from_bytes)).await;
    read.map_err(io::Error::other).flatten().unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "cannot read the instance's last lines");
        Vec::new()
    })
}

async fn sweep(watch: Arc<Watch>, mut child_ended: tokio::signal::unix::Signal) {
    let (least, most) = SWEEP_EVERY;
    let mut unfinished = false;
    loop {
        tokio::time::sleep(least).await;
        if !unfinished {
            // Either is a reason to look; that none came is one as well, since instances fork without telling.
            let _ = tokio::time::timeout(most - least, child_ended.recv()).await;
        }
        let watch = Arc::clone(&watch);
        let swept = spawn_blocking(move || watch.sweep()).await.map_err(io::Error::other).flatten();
        unfinished = swept.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot survey the instances' processes");
            false
        });
    }
}
