//! The host: what runs in its slots, and the doing of what [`crate::core::next`] decided.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use handover_proto::assignment::Assignment;
use handover_proto::assignment::Prefer;
use handover_proto::blocker::BlockerKind;
use handover_proto::ids::{InstanceId, SlotId};
use handover_proto::lease::Owner;
use handover_proto::lifecycle::{Event, Lifecycle};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::artifact::check::Checker;
use crate::clock;
use crate::config::Config;
use crate::core::next::{Effect, LeaseStand, Waiting};
use crate::core::observed::{Boot, Process};
use crate::driver::{Adopted, Driver, DriverError, Exit, Found, Order, ProcessRecord};
use crate::durable::DurableError;
use crate::ending::{ended, plain};
use crate::lease::wanted::{Life, LocalInstance, Wanted};
use crate::place::{Place, Running};
use crate::state::{InstanceRecord, StateFile};

mod start;
mod told;
mod trouble;

pub use told::KILLED_AGAIN;
use trouble::disk;

/// Crashes that are this far apart are not a row.
const CRASHES_FORGOTTEN_AFTER: Boot = Boot::from_secs(60);

/// The keeper may hear of an end before it has heard that the instance had just been handed the lease.
const DEPARTED_KEPT: Boot = Boot::from_secs(10);

/// Why the host could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    /// What runs could not be found out.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// What was found could not be recorded.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// The config has lost a slot in which something runs.
    #[error(
        "instance {instance} runs in slot {slot}, which the config does not have any more; put the slot back, and empty it by a rollout first"
    )]
    NoSlot {
        /// The slot.
        slot: SlotId,
        /// What runs there.
        instance: InstanceId,
    },
}

/// The host's slots, the driver and the state file.
pub struct Host {
    config: Arc<Config>,
    driver: Arc<Driver>,
    checker: Option<Checker>,
    /// The state file.
    pub file: StateFile,
    /// Every slot of the config.
    pub places: BTreeMap<SlotId, Place>,
    /// Instances that ended while they may have held the lease; kept until the keeper has let go of them.
    departed: BTreeMap<InstanceId, (Boot, LocalInstance)>,
    wake: Arc<Notify>,
    boot_id: String,
}

impl Host {
    /// Takes over what the state file knows: what still runs is adopted, what has ended is noted.
    ///
    /// # Errors
    /// If the state file cannot be written, or the processes of the host cannot be looked at.
    pub async fn take_over(
        config: Arc<Config>,
        driver: Arc<Driver>,
        file: StateFile,
        boot_id: String,
        wake: Arc<Notify>,
    ) -> Result<Self, TakeOverError> {
        let places = config.slots.iter().map(|(id, address)| (id.clone(), Place::empty(*address))).collect();
        let checker = config.artifact.as_ref().map(|settings| {
            Checker::new(settings, config.driver.builds().to_owned(), config.service.clone(), wake.clone())
        });
        let mut host = Self { config, driver, checker, file, places, departed: BTreeMap::new(), wake, boot_id };
        let records = host.file.state.instances.clone();
        if let Some((slot, record)) = records.iter().find(|(slot, _)| !host.places.contains_key(slot)) {
            return Err(TakeOverError::NoSlot { slot: slot.clone(), instance: record.instance.clone() });
        }
        host.adopt_orphans(&records).await?;
        for (slot, record) in records {
            if !host.places.get(&slot).is_some_and(|place| place.holds(&record.instance)) {
                host.adopt(slot, record).await?;
            }
        }
        Ok(host)
    }

    async fn adopt(&mut self, slot: SlotId, record: InstanceRecord) -> Result<(), TakeOverError> {
        let adopted = match &record.process {
            Some(process) => self.driver.adopt(process).await?,
            // The agent died before it started the process: the search by marks has not found one.
            None => Adopted::Gone { empty: false, proven: false },
        };
        match adopted {
            Adopted::Running(process) => {
                info!(%slot, instance = %record.instance, version = %record.version, "adopted a running instance");
                let record = InstanceRecord { process: Some(process), ..record };
                self.file.change(|state| drop(state.instances.insert(slot.clone(), record.clone())))?;
                self.run(slot, record);
            }
            Adopted::Gone { proven, .. } => {
                warn!(%slot, instance = %record.instance, "the instance ended while no agent watched");
                // A restart of the agent proves nothing of its descendants, unless the driver saw them gone. Nor does another
                // boot: this may be a copy of the state directory on another machine, while the instance goes on working on
                // the first.
                self.depart(&slot, &record, proven);
                self.file.change(|state| drop(state.instances.remove(&slot)))?;
            }
        }
        Ok(())
    }

    /// An agent that lost its state file, or died just after a start, adopts what it finds running before it changes
    /// anything. What it finds so has to become ready first: nothing is known of it.
    async fn adopt_orphans(&mut self, known: &BTreeMap<SlotId, InstanceRecord>) -> Result<(), TakeOverError> {
        for found in self.driver.find_running().await? {
            if known.values().any(|record| is_recorded(record, &found)) {
                continue;
            }
            let free = self.places.get(&found.slot).is_some_and(|place| place.running.is_none());
            let Some(main) = found.main.filter(|_| free) else {
                warn!(slot = %found.slot, instance = %found.instance, "ending what an instance left behind");
                self.driver.clear_leftovers(&found.instance).await;
                continue;
            };
            warn!(slot = %found.slot, version = %found.version, "found a running instance that the state file does not know");
            let record = InstanceRecord {
                instance: found.instance,
                version: found.version,
                process: Some(main),
                lifecycle: None,
                ready: false,
            };
            self.adopt(found.slot, record).await?;
        }
        Ok(())
    }

    fn run(&mut self, slot: SlotId, record: InstanceRecord) {
        if let Some(place) = self.places.get_mut(&slot) {
            place.running = Some(Running::watch(&self.config, &slot, place.address, record, self.wake.clone()));
        }
    }

    /// Does one thing. What cannot be done comes back as a reason to wait. Drivers carry out their orders beside it, and
    /// [`Self::told`] hears how that went: nothing here waits for them.
    pub fn act(&mut self, effect: &Effect) -> Option<Waiting> {
        match effect {
            Effect::Start { slot, version } => self.start(slot, version),
            Effect::FirstReady { slot } => self.set_lifecycle(slot, None),
            Effect::Move { slot, event } => self.set_lifecycle(slot, Some(*event)),
            Effect::Terminate { slot, kill_at } => {
                let (driver, running) = (self.driver.clone(), self.running(slot)?);
                running.process = Process::Stopping { kill_at: *kill_at, killed: false };
                info!(%slot, instance = %running.record.instance, "stopping");
                driver.order_stop(&running.record.instance);
                None
            }
            Effect::Kill { slot } => {
                let (driver, running) = (self.driver.clone(), self.running(slot)?);
                running.process = Process::Stopping { kill_at: clock::boot(), killed: true };
                running.refused.take_if(|(order, _)| *order != Order::Kill);
                warn!(%slot, instance = %running.record.instance, "the grace is over; killing");
                driver.order_kill(&running.record.instance);
                None
            }
        }
    }

    fn running(&mut self, slot: &SlotId) -> Option<&mut Running> {
        self.places.get_mut(slot)?.running.as_mut()
    }

    /// More is known of an instance's process.
    fn began(&mut self, process: &ProcessRecord) -> Option<Waiting> {
        let (slot, place) = self.places.iter().find(|(_, place)| place.holds(&process.instance))?;
        let (slot, running) = (slot.clone(), place.running.as_ref()?);
        let record = InstanceRecord { process: Some(process.clone()), ..running.record.clone() };
        let saved = self.save(&slot, &record);
        if let Some(running) = self.running(&slot) {
            // It is so whether the disk takes it or not: it is not said again.
            (running.record, running.unrecorded) = (record, saved.is_err());
        }
        saved.err()
    }

    /// Records what the disk did not take when it was said.
    pub fn record_again(&mut self) -> Option<Waiting> {
        let of = |(slot, place): (&SlotId, &Place)| {
            let running = place.running.as_ref().filter(|running| running.unrecorded)?;
            Some((slot.clone(), running.record.clone()))
        };
        let unrecorded: Vec<_> = self.places.iter().filter_map(of).collect();
        for (slot, record) in unrecorded {
            if let Err(trouble) = self.save(&slot, &record) {
                return Some(trouble);
            }
        }
        None
    }

    fn set_lifecycle(&mut self, slot: &SlotId, event: Option<Event>) -> Option<Waiting> {
        let now = clock::boot();
        let running = self.running(slot)?;
        let moved = match (running.record.lifecycle, event) {
            (None, _) => Ok(Lifecycle::Ready),
            (Some(from), Some(event)) => from.after(event),
            (Some(from), None) => Ok(from),
        };
        let state = match moved {
            Ok(state) => state,
            Err(illegal) => return Some(Waiting { kind: BlockerKind::Unknown, sentence: illegal.to_string() }),
        };
        let record = InstanceRecord { lifecycle: Some(state), ready: running.ready(), ..running.record.clone() };
        if let Err(trouble) = self.save(slot, &record) {
            return Some(trouble);
        }
        let running = self.running(slot)?;
        info!(%slot, instance = %record.instance, version = %record.version, %state, "moved");
        running.draining_since = (state == Lifecycle::Draining).then(|| running.draining_since.unwrap_or(now));
        running.record = record;
        running.since_ms = clock::wall_ms();
        None
    }

    /// Writes ahead: what is not in the file has not happened.
    fn save(&mut self, slot: &SlotId, record: &InstanceRecord) -> Result<(), Waiting> {
        let saved = self.file.change(|state| drop(state.instances.insert(slot.clone(), record.clone())));
        if let (Ok(()), Some(running)) = (&saved, self.running(slot)) {
            running.unrecorded = false;
        }
        saved.map_err(|error| disk(&error))
    }

    /// Keeps the last known readiness in the file: an agent that restarts goes on from it.
    pub fn note_readiness(&mut self) -> Option<Waiting> {
        for running in self.places.values_mut().filter_map(|place| place.running.as_mut()) {
            let awaits = match running.process {
                Process::Starting => Some("the driver to start it".to_owned()),
                _ => self.driver.awaits(&running.record.instance),
            };
            running.note_awaited(awaits);
        }
        let changed = |place: &Place| {
            let running = place.running.as_ref().filter(|running| running.record.ready != running.ready())?;
            Some(InstanceRecord { ready: running.ready(), ..running.record.clone() })
        };
        let changed: Vec<_> =
            self.places.iter().filter_map(|(slot, place)| Some((slot.clone(), changed(place)?))).collect();
        for (slot, record) in changed {
            if let Err(trouble) = self.save(&slot, &record) {
                return Some(trouble);
            }
            if let Some(running) = self.running(&slot) {
                running.record = record;
            }
        }
        None
    }

    /// A process has ended, perhaps with others left that it started.
    pub fn exited(&mut self, exit: &Exit) -> Option<Waiting> {
        if let Some(left) = &exit.left {
            let running = self.places.values_mut().filter(|place| place.holds(&exit.instance));
            for running in running.filter_map(|place| place.running.as_mut()) {
                warn!(instance = %exit.instance, status = %exit.status, left, "ended, but not wholly");
                // What is left may be told of again, in other words.
                if running.process != Process::Lingering {
                    running.wanted_end = matches!(running.process, Process::Stopping { .. });
                }
                (running.process, running.left) = (Process::Lingering, Some(left.clone()));
            }
            return None;
        }
        let (slot, place) = self.places.iter_mut().find(|(_, place)| place.holds(&exit.instance))?;
        let (slot, running) = (slot.clone(), place.running.take()?);
        let wanted = match running.process {
            Process::Starting | Process::Running => false,
            Process::Stopping { .. } => true,
            Process::Lingering => running.wanted_end,
        };
        let last = exit.tail.last().map(|line| format!(", its last words: {}", plain(line)));
        let how = format!("{}{}", exit.status, last.filter(|_| !wanted).unwrap_or_default());
        info!(%slot, instance = %exit.instance, %how, wanted, proven = exit.proven, "ended");
        place.last_exit = Some(ended(&running.record, how.clone(), wanted, exit.tail.clone()));
        if !wanted {
            if running.started + CRASHES_FORGOTTEN_AFTER < clock::boot() {
                place.crashes = None;
            }
            self.count_crash(&slot, &running.record.version, how);
        }
        self.depart(&slot, &running.record, exit.proven);
        self.file.change(|state| drop(state.instances.remove(&slot))).err().map(|error| disk(&error))
    }

    /// A new assignment begins a new count, unless it wants the very version that crashed.
    pub fn forget_crashes(&mut self, assignment: &Assignment) {
        for (slot, place) in &mut self.places {
            let wish = assignment.slots.get(slot).filter(|wish| wish.lifecycle != Lifecycle::Terminated);
            place.crashes.take_if(|crashes| wish.is_none_or(|wish| wish.version != crashes.version));
        }
    }

    fn depart(&mut self, slot: &SlotId, record: &InstanceRecord, proven: bool) {
        let Some(place) = self.places.get(slot) else { return };
        let mut local = self.local(slot, place.address, record);
        local.life = Life::Dead { proven };
        self.departed.insert(record.instance.clone(), (clock::boot(), local));
    }

    /// When the trust in an adopted instance ends, if that is still to come.
    pub fn trust_ends(&self, now: Boot) -> Option<Boot> {
        let running = self.places.values().filter_map(|place| place.running.as_ref());
        running.map(|running| running.trusted_until).filter(|end| *end > now).min()
    }

    /// The keeper has nothing left to do for these.
    pub fn forget_departed(&mut self, held: impl Fn(&InstanceId) -> bool) {
        let now = clock::boot();
        self.departed.retain(|instance, (since, _)| held(instance) || now < *since + DEPARTED_KEPT);
    }

    fn local(&self, slot: &SlotId, app: SocketAddr, record: &InstanceRecord) -> LocalInstance {
        LocalInstance {
            owner: Owner {
                instance: record.instance.clone(),
                agent: self.config.agent.clone(),
                host: self.config.host.clone(),
                boot_id: self.boot_id.clone(),
                version: record.version.clone(),
            },
            slot: slot.clone(),
            app,
            eligible: false,
            ready: false,
            serving: false,
            rank: u32::MAX,
            life: Life::Running,
        }
    }

    /// What the lease keeper is to know.
    pub fn wanted(&self, stands: &BTreeMap<SlotId, LeaseStand>, prefer: &Prefer) -> Wanted {
        let zone = self.config.labels.get("zone").map(String::as_str);
        let mut instances: BTreeMap<_, _> =
            self.departed.iter().map(|(instance, (_, local))| (instance.clone(), local.clone())).collect();
        for (slot, place) in &self.places {
            // What is not started yet is nobody who could hold anything.
            let started = place.running.as_ref().filter(|running| running.process != Process::Starting);
            let Some(running) = started else { continue };
            let stand = stands.get(slot).copied();
            let mut local = self.local(slot, place.address, &running.record);
            local.eligible = stand.is_some_and(|stand| stand.eligible);
            local.serving = stand.is_some_and(|stand| stand.serving);
            local.rank = prefer.rank(&local.owner.version, zone, local.serving);
            local.ready = running.ready() && running.record.lifecycle.is_some();
            if running.process == Process::Lingering {
                local.life = Life::Dead { proven: false };
            } else if stand.is_some_and(|stand| stand.give_up) {
                local.life = Life::GiveUp;
            }
            instances.insert(running.record.instance.clone(), local);
        }
        Wanted { instances }
    }
}

/// By its id, or by the unit's start where its id cannot be read: a program may write over its own environment.
fn is_recorded(record: &InstanceRecord, found: &Found) -> bool {
    let start = |process: &ProcessRecord| process.unit.as_ref().map(|unit| unit.invocation.clone()).unwrap_or_default();
    record.process.as_ref().is_some_and(|process| {
        let same_start = !start(process).is_empty() && found.main.as_ref().map(start) == Some(start(process));
        record.instance == found.instance || same_start
    })
}
