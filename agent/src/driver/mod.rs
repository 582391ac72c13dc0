//! Drivers start, stop and watch instances.
//!
//! With `process` the agent runs the command itself; with `systemd` each slot is a unit, started over D-Bus; with `exec`
//! commands of the operator do it. `nomad` is to come as a further variant of [`Driver`]; each answers the same calls and
//! says the same [`Told`].
//!
//! *Dead* means that no descendant is left (`SAFETY.md` §1.10). Under `process` the agent is the child subreaper of what it
//! starts, so a descendant whose parents have ended becomes the agent's own child and cannot leave its sight; under
//! `systemd` the unit's cgroup is empty; under `exec` nobody here can see it. Only an exit with [`Exit::proven`] is a proof of stop; after any other the
//! quarantine applies.

pub mod child;
mod clear;
pub(crate) mod command;
pub(crate) mod ended;
mod error;
mod exec;
mod exit;
mod found;
mod kernel;
mod marks;
mod members;
mod memory;
mod order;
mod process;
mod record;
mod settings;
mod spawn;
pub(crate) mod survey;
mod systemd;
pub(crate) mod table;
mod tail;
mod template;
mod trial;
mod watched;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

pub use error::DriverError;
pub use exec::{ExecDriver, ExecSettings};
pub use exit::{CommandEnd, Exit, ExitStatus, UnitEnd};
pub use found::Found;
pub use marks::Owner;
pub use memory::{LimitedBy, MemoryMax, OverMemory};
pub use order::{Order, Start};
pub use process::ProcessDriver;
pub use record::{Adopted, ProcessRecord, StartSpec, UnitRecord};
pub use settings::{DriverSettings, Place, ProcessSettings, SettingsError};
pub use systemd::{BusError, SystemdDriver, SystemdSettings, UnitError};
pub use table::resident_bytes;
pub use template::{Template, TemplateError, Values};

use handover_proto::ids::{InstanceId, SlotId};

/// Room for what the agent has not yet looked at; more than a host has slots.
const TOLD: usize = 64;

/// What a driver says by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// An instance that was ordered was started: keep this record, unless a later one has come.
    Started(ProcessRecord),
    /// More is known of an instance than when it was started: keep this record.
    Began(ProcessRecord),
    /// An order was carried out, or could not be. Of a start only the latter is said: nothing runs then.
    Ordered {
        /// For whom.
        instance: InstanceId,
        /// To do what.
        order: Order,
        /// Why not.
        failed: Option<String>,
    },
    /// An instance has ended.
    Exit(Exit),
}

/// What a driver is opened with.
#[derive(Debug)]
pub struct Opening {
    /// On whose behalf instances run.
    pub owner: Owner,
    /// All slots of the host.
    pub slots: Vec<SlotId>,
    /// The agent's runtime directory.
    pub runtime_dir: PathBuf,
    /// The longest that the config lets an instance finish its work, and the field that says so.
    pub finish: (String, Duration),
    /// To be woken when an instance is taken for up, or not any more.
    pub wake: Arc<Notify>,
}

/// How the instances of this host are run.
#[derive(Debug)]
pub enum Driver {
    /// The agent runs the command itself.
    Process(ProcessSettings, ProcessDriver),
    /// Slots are units of systemd.
    Systemd(SystemdDriver),
    /// Commands start, stop and watch instances.
    Exec(ExecDriver),
}

impl Driver {
    /// Opens the driver that the config names; what it says arrives on the receiver.
    ///
    /// # Errors
    /// When what the driver rests on is not to be had, or a unit does not fit. Must be called within a tokio runtime.
    pub async fn open(
        settings: &DriverSettings,
        opening: Opening,
    ) -> Result<(Self, mpsc::Receiver<Told>), DriverError> {
        match settings {
            DriverSettings::Process(settings) => {
                let (mut driver, told) = ProcessDriver::open(opening.owner)?;
                driver.limit_memory(settings.memory_max);
                Ok((Self::Process(settings.clone(), driver), told))
            }
            DriverSettings::Systemd(settings) => {
                let (told, receiver) = mpsc::channel(TOLD);
                Ok((Self::Systemd(SystemdDriver::open(settings, opening, told).await?), receiver))
            }
            DriverSettings::Exec(settings) => {
                let (told, receiver) = mpsc::channel(TOLD);
                Ok((Self::Exec(ExecDriver::open(settings, opening, told)?), receiver))
            }
        }
    }

    /// Starts an instance and watches it, with these variables beside those of the config. The record is for the agent's
    /// state file; one [`Exit`] will follow.
    ///
    /// # Errors
    /// When the version or its program is missing, or the system refuses. Nothing runs then.
    pub async fn start(&self, place: &Place<'_>, env: Vec<(String, String)>) -> Result<ProcessRecord, DriverError> {
        match self {
            Self::Process(settings, driver) => {
                let mut spec = settings.start_spec(place);
                spec.env.extend(env);
                driver.start(&spec)
            }
            Self::Systemd(driver) => driver.start(place, env).await,
            Self::Exec(driver) => driver.start(place, env),
        }
    }

    /// Takes up an instance that an earlier agent process started; see [`Adopted`].
    ///
    /// # Errors
    /// When the system refuses to tell.
    pub async fn adopt(&self, record: &ProcessRecord) -> Result<Adopted, DriverError> {
        match self {
            Self::Process(_, driver) => driver.adopt(record).await,
            Self::Systemd(driver) => driver.adopt(record).await,
            Self::Exec(driver) => driver.adopt(record).await,
        }
    }

    /// The instances of this agent that run but are not watched. For an agent without its state file.
    ///
    /// # Errors
    /// When the system refuses to tell, or something runs in a slot of which nothing is known.
    pub async fn find_running(&self) -> Result<Vec<Found>, DriverError> {
        match self {
            Self::Process(_, driver) => driver.find_running().await,
            Self::Systemd(driver) => driver.find_running().await,
            Self::Exec(driver) => driver.find_running().await,
        }
    }

    /// Ends what is left of an instance without a main process. That of a unit is found, and ended, when it is adopted; of what
    /// commands started nothing can be seen.
    pub async fn clear_leftovers(&self, instance: &InstanceId) {
        match self {
            Self::Process(_, driver) => drop(driver.clear_leftovers(instance).await),
            Self::Systemd(_) | Self::Exec(_) => {}
        }
    }

    /// Asks the instance to end (SIGTERM). When to lose patience is the caller's decision.
    ///
    /// # Errors
    /// When the instance is not watched, or the system refuses.
    pub async fn signal_stop(&self, instance: &InstanceId) -> Result<(), DriverError> {
        match self {
            Self::Process(_, driver) => driver.signal_stop(instance).await,
            Self::Systemd(driver) => driver.signal_stop(instance).await,
            Self::Exec(driver) => driver.signal_stop(instance),
        }
    }

    /// Ends the instance, with every process of it (SIGKILL).
    ///
    /// # Errors
    /// When the instance is not watched, or the system refuses.
    pub async fn kill(&self, instance: &InstanceId) -> Result<(), DriverError> {
        match self {
            Self::Process(_, driver) => driver.kill(instance).await,
            Self::Systemd(driver) => driver.kill(instance).await,
            Self::Exec(driver) => driver.kill(instance).await,
        }
    }

    /// Why an instance whose process runs is not up, as who started it sees it; none: it is, or nobody judges but probes.
    pub fn awaits(&self, instance: &InstanceId) -> Option<String> {
        match self {
            Self::Process(..) => None,
            Self::Systemd(driver) => driver.awaits(instance),
            Self::Exec(driver) => driver.awaits(instance),
        }
    }

    /// How long it takes on this host to end a tree of processes and to prove that nothing of it is left: the longest of 20
    /// tries. `command` is what the process driver tries it with. Blocks; call it outside of the runtime.
    ///
    /// # Errors
    /// When it cannot be tried, or a try ends without a proof.
    pub fn kill_time(&self, command: &[String]) -> Result<Duration, DriverError> {
        match self {
            Self::Process(_, driver) => driver.kill_time(command),
            Self::Systemd(driver) => driver.kill_time(),
            Self::Exec(driver) => Ok(driver.kill_time()),
        }
    }
}
