//! The `systemd` driver: each slot is a unit of the operator's, started and stopped over D-Bus.
//!
//! Before each start the agent writes what the unit finds ([`files`]): the variables of the slot, with the instance's id
//! among them, and the link to the version. Then one [`watch::Follower`] per instance follows the unit by systemd's signals
//! to its end; [`mod@unit`] decides what they mean. Units outlive the agent: the next one finds them by the same variables. What
//! is not started by an agent is no instance, and no unit may restart by itself ([`check`]).

mod bus;
mod cgroup;
mod check;
mod files;
mod found;
mod journal;
mod settings;
mod trial;
mod unit;
mod watch;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use handover_proto::ids::InstanceId;
use rustix::process::Signal;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use zbus::OwnedObjectPath;

use super::{Adopted, DriverError, Found, Opening, Place, ProcessRecord, Told, UnitRecord, table};
use bus::{Bus, Signals};
use check::Need;
use unit::{Seen, Stage, State, Step};
use watch::{Follower, Memory, Watched};

pub use bus::BusError;
pub use check::UnitError;
pub use settings::SystemdSettings;

/// How long adoption waits for what was started past the agent to stop, before it kills it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Starts, adopts, watches and stops units. Dropping it leaves them running, for the next agent process to adopt.
#[derive(Debug)]
pub struct SystemdDriver {
    settings: SystemdSettings,
    opening: Opening,
    boot_id: String,
    bus: Arc<Bus>,
    runtime: Handle,
    watched: Arc<Mutex<BTreeMap<InstanceId, Arc<Watched>>>>,
    told: mpsc::Sender<Told>,
    followers: Mutex<JoinSet<()>>,
}

impl SystemdDriver {
    /// Connects to systemd, and makes sure that every slot's unit can be one.
    ///
    /// # Errors
    /// When systemd cannot be reached, or a unit does not fit; with the line to write.
    pub(super) async fn open(
        settings: &SystemdSettings,
        opening: Opening,
        told: mpsc::Sender<Told>,
    ) -> Result<Self, DriverError> {
        let boot_id = table::boot_id().map_err(DriverError::system("read /proc/sys/kernel/random/boot_id"))?;
        let driver = Self {
            settings: settings.clone(),
            opening,
            boot_id,
            bus: Arc::default(),
            runtime: Handle::current(),
            watched: Arc::default(),
            told,
            followers: Mutex::default(),
        };
        for slot in &driver.opening.slots {
            let unit = settings.unit(slot);
            let path = driver.bus.load(&unit).await?;
            let variables = settings::variables_file(&driver.opening.runtime_dir, slot);
            let (field, needed) = &driver.opening.finish;
            check::fits(
                &driver.bus.file(&unit, &path).await?,
                &Need { variables: &variables, finish: (field, *needed) },
            )?;
        }
        Ok(driver)
    }

    fn watched(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Arc<Watched>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn told(&self) -> &mpsc::Sender<Told> {
        &self.told
    }

    fn get(&self, instance: &InstanceId) -> Result<Arc<Watched>, DriverError> {
        let watched = self.watched().get(instance).cloned();
        watched.ok_or_else(|| DriverError::NotWatched { instance: instance.clone() })
    }

    /// Orders the start of a slot's unit, and follows it. One `Exit` will follow, also if it cannot be started after all.
    pub(super) async fn start(
        &self,
        place: &Place<'_>,
        variables: Vec<(String, String)>,
    ) -> Result<ProcessRecord, DriverError> {
        let (unit, build) = (self.settings.unit(place.slot), self.settings.builds.join(place.version.as_str()));
        if !build.is_dir() {
            return Err(DriverError::NoDirectory { version: place.version.clone(), path: build });
        }
        let path = self.bus.load(&unit).await?;
        self.bus.keep(&unit).await?;
        let signals = self.bus.listen(&unit, &path).await?;
        let before = self.bus.look(&unit, &path).await?;
        if !before.at_rest() {
            return Err(DriverError::UnitBusy { unit, pid: before.main_pid });
        }
        self.prepare(place, &build, variables)?;
        let (order, outcome) = match self.bus.start(&unit).await {
            Ok(order) => (Some(order), None),
            Err(refused) if refused.is_refusal() => return Err(refused.into()),
            // It may have begun, or begin yet: it is followed, and ends if it does not.
            Err(error) => {
                tracing::warn!(unit, %error, "systemd did not answer the order to start the unit");
                (None, Some(unit::LOST.to_owned()))
            }
        };
        let mut record = self.record(place.instance);
        record.unit = Some(UnitRecord { name: unit.clone(), ..UnitRecord::default() });
        let stage = Stage::Ordered { before: before.invocation, outcome };
        self.follow(record.clone(), &unit, path, (stage, order), (Some("its turn to be started"), signals));
        Ok(record)
    }

    /// What the unit finds when it is started.
    fn prepare(&self, place: &Place<'_>, build: &Path, more: Vec<(String, String)>) -> Result<(), DriverError> {
        let link = self.settings.link(place.slot);
        let linked = files::link(&link, build);
        linked.map_err(DriverError::system(format!("point {} at {}", link.display(), build.display())))?;
        let mut variables = self.settings.variables(place);
        variables.extend(more);
        let marks = self.opening.owner.marks_of(place.instance, place.slot, place.version);
        variables.extend(marks.map(|(name, value)| (name.to_owned(), value)));
        let file = settings::variables_file(&self.opening.runtime_dir, place.slot);
        files::write_variables(&file, &variables).map_err(DriverError::system(format!("write {}", file.display())))
    }

    /// A record that knows no process yet.
    fn record(&self, instance: &InstanceId) -> ProcessRecord {
        ProcessRecord {
            instance: instance.clone(),
            pid: 0,
            start_time_ticks: 0,
            boot_id: self.boot_id.clone(),
            unbroken: false,
            output: std::path::PathBuf::new(),
            output_from_bytes: 0,
            unit: None,
            command: None,
        }
    }

    fn follow(
        &self,
        record: ProcessRecord,
        unit: &str,
        path: OwnedObjectPath,
        (stage, order): (Stage, Option<OwnedObjectPath>),
        (awaits, signals): (Option<&'static str>, Signals),
    ) {
        let instance = record.instance.clone();
        let watched = Arc::new(Watched::new(unit, record, awaits));
        self.watched().insert(instance.clone(), Arc::clone(&watched));
        let (bus, told, wake) = (Arc::clone(&self.bus), self.told.clone(), Arc::clone(&self.opening.wake));
        let (signals, memory) = (Some(signals), Memory::default());
        let follower = Follower { bus, watched, path, stage, order, signals, told, wake, memory };
        let all = Arc::clone(&self.watched);
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        while followers.try_join_next().is_some() {}
        followers.spawn(async move {
            follower.follow().await;
            all.lock().unwrap_or_else(PoisonError::into_inner).remove(&instance);
        });
    }

    /// Takes up a unit that an earlier agent process started. If another invocation of it runs by now, that is stopped
    /// first, since the lease knows nothing of it.
    pub(super) async fn adopt(&self, record: &ProcessRecord) -> Result<Adopted, DriverError> {
        let gone = |proven| Adopted::Gone { empty: proven, proven };
        let Some(about) = record.unit.as_ref().filter(|_| record.boot_id == self.boot_id) else {
            // A boot ends every process of a host, but whether this is the same host nobody can tell.
            return Ok(Adopted::Gone { empty: true, proven: false });
        };
        if let Some(known) = self.watched().get(&record.instance) {
            return Ok(Adopted::Running(known.record()));
        }
        let path = self.bus.load(&about.name).await?;
        self.bus.keep(&about.name).await?;
        let signals = self.bus.listen(&about.name, &path).await?;
        let seen = self.settled(&about.name, &path).await?;
        let ours = seen.invocation == about.invocation || self.bears_marks_of(&seen, record);
        if seen.at_rest() {
            let cgroup = Some(about.cgroup.as_str()).filter(|path| !path.is_empty()).map(cgroup::Cgroup::of);
            let empty = cgroup.map(|cgroup| cgroup.is_empty().unwrap_or(false));
            if empty != Some(false) {
                return Ok(gone(empty.is_some()));
            }
            // Its main process ended while no agent watched, and left others (`KillMode=`): the follower ends them, and tells.
            let stage = Stage::Begun { invocation: about.invocation.clone(), was_up: true };
            self.follow(record.clone(), &about.name, path, (stage, None), (Some("it to be put away"), signals));
            return Ok(Adopted::Running(record.clone()));
        }
        if !ours {
            return Ok(gone(self.end_foreign(&about.name, &path, signals).await?));
        }
        let mut record = record.clone();
        watch::learn(&mut record, &seen.invocation, &seen);
        let stage = Stage::Begun { invocation: seen.invocation.clone(), was_up: seen.active == State::Up };
        // What serves goes on serving: nothing is awaited of a unit that is up.
        let awaits = match unit::next(&stage, &seen) {
            Step::Runs { awaits } => awaits,
            Step::Begun | Step::TakeBack | Step::Foreign | Step::Ended(_) => Some("the agent to look again"),
        };
        self.follow(record.clone(), &about.name, path, (stage, None), (awaits, signals));
        Ok(Adopted::Running(record))
    }

    /// How a unit is for which no start waits. An order that an earlier agent gave, or somebody past it, may wait still: what
    /// it began later nobody would know of, so that it is taken back.
    async fn settled(&self, unit: &str, path: &OwnedObjectPath) -> Result<Seen, DriverError> {
        let seen = self.bus.look(unit, path).await?;
        if !seen.awaits_its_turn() {
            return Ok(seen);
        }
        tracing::warn!(unit, "an order that no agent knows of waits for its turn; taking it back");
        let mut signals = self.bus.listen(unit, path).await?;
        self.bus.stop(unit).await?;
        let settled = async {
            loop {
                let seen = self.bus.look(unit, path).await?;
                if !seen.awaits_its_turn() || signals.next().await.is_none() {
                    return Ok::<_, BusError>(seen);
                }
            }
        };
        match tokio::time::timeout(PATIENCE, settled).await {
            Ok(seen) => Ok(seen?),
            Err(_) => Ok(self.bus.look(unit, path).await?),
        }
    }

    /// An agent that died right after the order to start never learned which invocation it began.
    fn bears_marks_of(&self, seen: &Seen, record: &ProcessRecord) -> bool {
        let unknown = record.unit.as_ref().is_some_and(|unit| unit.invocation.is_empty());
        let marks = super::marks::read(seen.main_pid).filter(|marks| marks.are_of(&self.opening.owner));
        unknown && marks.is_some_and(|marks| marks.instance == record.instance)
    }

    /// True if nothing of it is left.
    async fn end_foreign(&self, unit: &str, path: &OwnedObjectPath, mut signals: Signals) -> Result<bool, DriverError> {
        tracing::warn!(unit, "the unit was started past the agent; stopping it");
        let cgroup = self.bus.look(unit, path).await?.cgroup;
        self.bus.stop(unit).await?;
        let stopped = async {
            while !self.bus.look(unit, path).await?.at_rest() && signals.next().await.is_some() {}
            Ok::<_, BusError>(())
        };
        if tokio::time::timeout(PATIENCE, stopped).await.is_err() {
            self.bus.kill(unit, Signal::KILL.as_raw()).await?;
        }
        let cgroup = cgroup::Cgroup::of(&cgroup);
        cgroup
            .kill()
            .and_then(|_| cgroup.is_empty())
            .map_err(DriverError::system(format!("empty the cgroup of {unit}")))
    }

    /// Units of our slots that run, and whose they are.
    pub(super) async fn find_running(&self) -> Result<Vec<Found>, DriverError> {
        let mut all = Vec::new();
        for slot in &self.opening.slots {
            let unit = self.settings.unit(slot);
            let path = self.bus.load(&unit).await?;
            let seen = self.settled(&unit, &path).await?;
            if seen.at_rest() {
                continue;
            }
            let found = found::of(slot, &unit, &seen, &self.settings.link(slot), &self.opening.owner)?;
            if self.watched().contains_key(&found.instance) {
                continue;
            }
            let mut record = self.record(&found.instance);
            record.unit = Some(UnitRecord { name: unit, ..UnitRecord::default() });
            watch::learn(&mut record, &seen.invocation, &seen);
            all.push(Found { main: Some(record), ..found });
        }
        Ok(all)
    }

    /// Orders the unit's stop: its own `ExecStop=`, then SIGTERM.
    pub(super) async fn signal_stop(&self, instance: &InstanceId) -> Result<(), DriverError> {
        let watched = self.get(instance)?;
        watched.note_stop();
        Ok(self.bus.stop(&watched.unit).await?)
    }

    /// SIGKILL to everything in the unit's cgroup, past D-Bus: nothing may delay the end of a holder (`SAFETY.md` §1.10).
    pub(super) async fn kill(&self, instance: &InstanceId) -> Result<(), DriverError> {
        let watched = self.get(instance)?;
        let direct = match watched.cgroup() {
            Some(cgroup) => spawn_blocking(move || cgroup.kill()).await.map_err(io::Error::other).flatten(),
            None => Err(io::Error::other("its cgroup is not known")),
        };
        match direct {
            Ok(_) => Ok(()),
            // An agent that is not root may still ask systemd.
            Err(error) => {
                tracing::warn!(unit = watched.unit, %error, "the cgroup cannot be killed directly; asking systemd");
                Ok(self.bus.kill(&watched.unit, Signal::KILL.as_raw()).await?)
            }
        }
    }

    /// Why systemd does not take an instance for up; none if it does.
    pub(super) fn awaits(&self, instance: &InstanceId) -> Option<String> {
        self.watched().get(instance).and_then(|watched| watched.awaits())
    }

    /// How long a kill takes on this host, up to the empty cgroup; see the process driver's. Blocks.
    pub(super) fn kill_time(&self) -> Result<Duration, DriverError> {
        self.runtime.block_on(trial::kill_time(&self.bus, &self.opening.owner))
    }
}
