//! The `exec` driver: commands of the operator's start, stop and watch instances, in whatever they run.
//!
//! What is known of an instance is what the status command says ([`judge`]): nothing here sees a process. So no stop is
//! proven by this driver, unless the operator vouches for the status command (`stopped_is_proof`): then the proof is that
//! command's word, given after the instance's end. Commands that take long are run by a [`follow::Follower`] for each
//! instance, and never hold up the agent's loop; only a kill is carried out by whoever asks for it, within its limit.

mod follow;
mod judge;
mod settings;
mod slot;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use handover_proto::ids::{InstanceId, SlotId};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::warn;

use super::{Adopted, DriverError, Found, Opening, Place, ProcessRecord, Told, table};
use follow::{Follower, Watched};
use judge::{Said, Step, next};
use slot::{Occupant, Slot};

pub use settings::ExecSettings;

/// Starts, adopts, watches and stops instances by commands. Dropping it leaves them running, for the next agent process to
/// adopt.
#[derive(Debug)]
pub struct ExecDriver {
    settings: ExecSettings,
    opening: Opening,
    boot_id: String,
    watched: Arc<Mutex<BTreeMap<InstanceId, Arc<Watched>>>>,
    told: mpsc::Sender<Told>,
    followers: Mutex<JoinSet<()>>,
}

impl ExecDriver {
    /// Must be called within a tokio runtime.
    pub(super) fn open(
        settings: &ExecSettings,
        opening: Opening,
        told: mpsc::Sender<Told>,
    ) -> Result<Self, DriverError> {
        let boot_id = table::boot_id().map_err(DriverError::system("read /proc/sys/kernel/random/boot_id"))?;
        let (watched, followers) = (Arc::default(), Mutex::default());
        Ok(Self { settings: settings.clone(), opening, boot_id, watched, told, followers })
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

    /// Has an instance started, and follows it. One `Exit` will follow, also if it cannot be started after all.
    pub(super) fn start(
        &self,
        place: &Place<'_>,
        variables: Vec<(String, String)>,
    ) -> Result<ProcessRecord, DriverError> {
        let build = self.settings.builds.join(place.version.as_str());
        if !build.is_dir() {
            return Err(DriverError::NoDirectory { version: place.version.clone(), path: build });
        }
        let occupant = Occupant::new(place.instance.clone(), place.version.clone(), place.port);
        let slot = Slot::of(&self.settings, &self.opening.owner, place.slot, &occupant, variables);
        let record = self.record(place.instance);
        let (follower, watched) = self.follower(slot, record.clone(), Some("its start command to end"));
        self.spawn(&watched, follower.begin());
        Ok(record)
    }

    fn record(&self, instance: &InstanceId) -> ProcessRecord {
        ProcessRecord {
            instance: instance.clone(),
            pid: 0,
            start_time_ticks: 0,
            boot_id: self.boot_id.clone(),
            unbroken: false,
            output: PathBuf::new(),
            output_from_bytes: 0,
            unit: None,
            command: Some(String::new()),
        }
    }

    fn follower(&self, slot: Slot, record: ProcessRecord, awaits: Option<&'static str>) -> (Follower, Arc<Watched>) {
        let (stop, stops) = mpsc::unbounded_channel();
        let watched = Arc::new(Watched::new(slot, stop, record, awaits));
        let (told, wake) = (self.told.clone(), Arc::clone(&self.opening.wake));
        let (settings, state_dir) = (self.settings.clone(), self.opening.owner.state_dir.clone());
        (Follower { watched: Arc::clone(&watched), settings, state_dir, stops, told, wake }, watched)
    }

    fn spawn(&self, watched: &Arc<Watched>, following: impl Future<Output = ()> + Send + 'static) {
        let instance = watched.record().instance;
        self.watched().insert(instance.clone(), Arc::clone(watched));
        let all = Arc::clone(&self.watched);
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        while followers.try_join_next().is_some() {}
        followers.spawn(async move {
            following.await;
            all.lock().unwrap_or_else(PoisonError::into_inner).remove(&instance);
        });
    }

    /// Takes up what an earlier agent process started. If the status command cannot tell, it is taken for running: what
    /// serves goes on serving, and is asked about again.
    pub(super) async fn adopt(&self, record: &ProcessRecord) -> Result<Adopted, DriverError> {
        if let Some(known) = self.watched().get(&record.instance) {
            return Ok(Adopted::Running(known.record()));
        }
        let Some((id, occupant)) = self.slot_of(&record.instance)? else {
            // Its start command was never run, or its end was noted by an agent that could not say so any more.
            return Ok(Adopted::Gone { empty: false, proven: false });
        };
        let slot = Slot::of(&self.settings, &self.opening.owner, &id, &occupant, Vec::new());
        let mut record = record.clone();
        let name = record.command.clone().filter(|name| !name.is_empty()).or(occupant.name).unwrap_or_default();
        record.command = Some(name.clone());
        match next(&name, slot.status_at_start().await) {
            Step::Ended => {
                // A boot ends every process of a host, but whether this is the same host nobody can tell.
                let proven = self.settings.stopped_is_proof && record.boot_id == self.boot_id;
                follow::forget(&self.opening.owner.state_dir, &slot);
                return Ok(Adopted::Gone { empty: true, proven });
            }
            Step::Named(name) => record.command = Some(name),
            // The follower ends what is not ours, and tells.
            Step::Runs | Step::Foreign(_) => {}
            Step::Unknown(why) => warn!(slot = %id, why, "whether the instance runs cannot be told; taken for running"),
        }
        let (follower, watched) = self.follower(slot, record.clone(), None);
        self.spawn(&watched, follower.follow());
        Ok(Adopted::Running(record))
    }

    fn occupant(&self, slot: &SlotId) -> Result<Option<Occupant>, DriverError> {
        let occupant = slot::recorded(&self.opening.owner.state_dir, slot);
        occupant.map_err(|error| DriverError::system(format!("read what runs in slot {slot}"))(io::Error::other(error)))
    }

    fn slot_of(&self, instance: &InstanceId) -> Result<Option<(SlotId, Occupant)>, DriverError> {
        for slot in &self.opening.slots {
            if let Some(occupant) = self.occupant(slot)?.filter(|occupant| occupant.instance == *instance) {
                return Ok(Some((slot.clone(), occupant)));
            }
        }
        Ok(None)
    }

    /// What runs in our slots, as it was recorded when it was started.
    pub(super) async fn find_running(&self) -> Result<Vec<Found>, DriverError> {
        let mut asked = JoinSet::new();
        for id in self.opening.slots.iter().cloned() {
            let occupant = self.occupant(&id)?;
            let any = match &occupant {
                Some(occupant) => occupant.clone(),
                // The status command names neither version nor instance, so that any do to ask.
                None => self.nobody()?,
            };
            let slot = Slot::of(&self.settings, &self.opening.owner, &id, &any, Vec::new());
            asked.spawn(async move { (id, slot.status_at_start().await, occupant) });
        }
        // All at once: each may take its whole limit.
        let mut all = Vec::new();
        while let Some(answer) = asked.join_next().await {
            let (id, said, occupant) =
                answer.map_err(io::Error::other).map_err(DriverError::system("ask what runs"))?;
            match (said, occupant) {
                (Said::Stopped, _) => {}
                (Said::Unknown(why), _) => warn!(slot = %id, why, "whether something runs there cannot be told"),
                (Said::Runs(name), None) => return Err(DriverError::UnknownOccupant { slot: id, name }),
                (Said::Runs(_), Some(occupant)) if self.watched().contains_key(&occupant.instance) => {}
                (Said::Runs(now), Some(Occupant { instance, version, name, .. })) => {
                    // Under another name it is somebody else's: whoever adopts it by the old one puts that away.
                    let main = Some(ProcessRecord { command: name.or(Some(now)), ..self.record(&instance) });
                    all.push(Found { instance, slot: id, version, main });
                }
            }
        }
        Ok(all)
    }

    fn nobody(&self) -> Result<Occupant, DriverError> {
        let named = "0".parse().map_err(|error| DriverError::system("name no version")(io::Error::other(error)));
        Ok(Occupant::new(InstanceId::random(), named?, 0))
    }

    /// Has the stop command run, in the background: it may take as long as the instance does.
    pub(super) fn signal_stop(&self, instance: &InstanceId) -> Result<(), DriverError> {
        let gone = |_| DriverError::NotWatched { instance: instance.clone() };
        self.get(instance)?.stop.send(()).map_err(gone)
    }

    /// Runs the kill command, here and now: nothing may delay the end of a holder (`SAFETY.md` §1.10).
    pub(super) async fn kill(&self, instance: &InstanceId) -> Result<(), DriverError> {
        let watched = self.get(instance)?;
        let operation = format!("kill what runs in slot {}", watched.slot.id);
        watched.slot.kill().await.map_err(|why| DriverError::system(operation)(io::Error::other(why)))
    }

    /// Why it is not up yet.
    pub(super) fn awaits(&self, instance: &InstanceId) -> Option<String> {
        self.watched().get(instance).and_then(|watched| watched.awaits())
    }

    /// How long a kill may take, by the config: there is nothing of our own that could be killed to try it.
    pub(super) fn kill_time(&self) -> Duration {
        self.settings.kill_time()
    }
}
