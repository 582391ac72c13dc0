//! Drivers start, stop and watch instances.
//!
//! `process` is the one that exists: the agent runs the command itself. `systemd` (units over D-Bus), `exec` (named
//! commands) and `nomad` are to come as further variants of [`Driver`]; each answers the same calls and sends the same
//! [`Exit`].
//!
//! *Dead* means that no descendant is left. The agent is the child subreaper of what it starts, so a descendant whose
//! parents have ended becomes the agent's own child and cannot leave its sight (`SAFETY.md` §1.10). Only an exit with
//! [`Exit::proven`] is a proof of stop; after any other the quarantine applies.

pub mod child;
mod clear;
pub(crate) mod ended;
mod error;
mod exit;
mod found;
mod kernel;
mod marks;
mod members;

mod process;
mod record;
mod settings;
mod spawn;
pub(crate) mod survey;
pub(crate) mod table;
mod tail;
mod template;
mod trial;
mod watched;

use tokio::sync::mpsc;

pub use error::DriverError;
pub use exit::{Exit, ExitStatus};
pub use found::Found;
pub use marks::Owner;
pub use process::ProcessDriver;
pub use record::{Adopted, ProcessRecord, StartSpec};
pub use settings::{DriverSettings, Place, ProcessSettings, SettingsError};
pub use table::resident_bytes;
pub use template::{Template, TemplateError, Values};

use handover_proto::ids::InstanceId;

/// How the instances of this host are run.
#[derive(Debug)]
pub enum Driver {
    /// The agent runs the command itself.
    Process(ProcessDriver),
}

impl Driver {
    /// Opens the driver that the config names; exits arrive on the receiver.
    ///
    /// # Errors
    /// When the kernel refuses what the driver rests on. Must be called within a tokio runtime.
    pub fn open(settings: &DriverSettings, owner: Owner) -> Result<(Self, mpsc::Receiver<Exit>), DriverError> {
        match settings {
            DriverSettings::Process(_) => {
                let (driver, exits) = ProcessDriver::open(owner)?;
                Ok((Self::Process(driver), exits))
            }
        }
    }

    /// See [`ProcessDriver::start`].
    ///
    /// # Errors
    /// As there.
    pub fn start(&self, spec: &StartSpec) -> Result<ProcessRecord, DriverError> {
        match self {
            Self::Process(driver) => driver.start(spec),
        }
    }

    /// See [`ProcessDriver::adopt`].
    ///
    /// # Errors
    /// As there.
    pub async fn adopt(&self, record: &ProcessRecord) -> Result<Adopted, DriverError> {
        match self {
            Self::Process(driver) => driver.adopt(record).await,
        }
    }

    /// See [`ProcessDriver::find_running`].
    ///
    /// # Errors
    /// As there.
    pub async fn find_running(&self) -> Result<Vec<Found>, DriverError> {
        match self {
            Self::Process(driver) => driver.find_running().await,
        }
    }

    /// See [`ProcessDriver::signal_stop`].
    ///
    /// # Errors
    /// As there.
    pub async fn signal_stop(&self, instance: &InstanceId) -> Result<(), DriverError> {
        match self {
            Self::Process(driver) => driver.signal_stop(instance).await,
        }
    }

    /// See [`ProcessDriver::kill`].
    ///
    /// # Errors
    /// As there.
    pub async fn kill(&self, instance: &InstanceId) -> Result<(), DriverError> {
        match self {
            Self::Process(driver) => driver.kill(instance).await,
        }
    }

    /// See [`ProcessDriver::kill_time`].
    ///
    /// # Errors
    /// As there.
    pub fn kill_time(&self, command: &[String]) -> Result<std::time::Duration, DriverError> {
        match self {
            Self::Process(driver) => driver.kill_time(command),
        }
    }

    /// Memory of the instance's main process in bytes; none if it does not run.
    pub fn resident_bytes(&self, instance: &InstanceId) -> Option<u64> {
        match self {
            Self::Process(driver) => driver.resident_bytes(instance),
        }
    }
}
