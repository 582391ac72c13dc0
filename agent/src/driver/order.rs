//! Orders that are carried out beside the agent's loop. A driver may take seconds for one, and its command or bus may hang:
//! meanwhile reports go out, routes follow readiness, and the agent's watchdog hears of it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use handover_proto::ids::{InstanceId, SlotId, Version};
use tokio::sync::mpsc;

use super::{Driver, Place, Told};
use crate::report::chain;

/// What a driver is told to do with an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Start it.
    Start,
    /// Ask it to end.
    Stop,
    /// End it.
    Kill,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start => "started",
            Self::Stop => "told to stop",
            Self::Kill => "killed",
        })
    }
}

/// Where and as what an instance is to start; see [`Place`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The slot.
    pub slot: SlotId,
    /// The slot's port.
    pub port: u16,
    /// The version.
    pub version: Version,
    /// The instance, recorded already.
    pub instance: InstanceId,
    /// The agent's state directory.
    pub state_dir: PathBuf,
    /// Variables beside those of the config.
    pub env: Vec<(String, String)>,
}

impl Driver {
    /// Has an instance started. [`Told::Started`] follows, or [`Told::Ordered`] with the reason why not. Must be called within
    /// a tokio runtime, as the other orders.
    pub fn order_start(self: &Arc<Self>, start: Start) {
        let (driver, instance) = (Arc::clone(self), start.instance.clone());
        self.carry_out(instance, Order::Start, async move {
            let Start { slot, port, version, instance, state_dir, env } = start;
            let place = Place { slot: &slot, port, version: &version, instance: &instance, state_dir: &state_dir };
            let started = driver.start(&place, env).await;
            started.map(|record| Some(Told::Started(record))).map_err(|error| chain(&error))
        });
    }

    /// Asks an instance to end. [`Told::Ordered`] follows.
    pub fn order_stop(self: &Arc<Self>, instance: &InstanceId) {
        let (driver, id) = (Arc::clone(self), instance.clone());
        self.carry_out(instance.clone(), Order::Stop, async move {
            driver.signal_stop(&id).await.map(|()| None).map_err(|error| chain(&error))
        });
    }

    /// Ends an instance. [`Told::Ordered`] follows.
    pub fn order_kill(self: &Arc<Self>, instance: &InstanceId) {
        let (driver, id) = (Arc::clone(self), instance.clone());
        self.carry_out(instance.clone(), Order::Kill, async move {
            driver.kill(&id).await.map(|()| None).map_err(|error| chain(&error))
        });
    }

    fn carry_out(
        &self,
        instance: InstanceId,
        order: Order,
        work: impl Future<Output = Result<Option<Told>, String>> + Send + 'static,
    ) {
        let told = self.told().clone();
        tokio::spawn(async move {
            // A task of its own, so that one that breaks off is told of like any other failure.
            let done = tokio::spawn(work).await.unwrap_or_else(|broken| Err(broken.to_string()));
            let said = match done {
                Ok(Some(said)) => said,
                Ok(None) => Told::Ordered { instance, order, failed: None },
                Err(why) => Told::Ordered { instance, order, failed: Some(why) },
            };
            // Only an agent that ends does not listen any more; the next one looks for itself.
            let _nobody_listens = told.send(said).await;
        });
    }

    fn told(&self) -> &mpsc::Sender<Told> {
        match self {
            Self::Process(_, driver) => driver.told(),
            Self::Systemd(driver) => driver.told(),
            Self::Exec(driver) => driver.told(),
        }
    }
}
