//! What the driver says, taken in.

use std::time::Duration;

use handover_proto::ids::{InstanceId, SlotId};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::Host;
use super::trouble::disk;
use crate::clock;
use crate::core::next::Waiting;
use crate::core::observed::Process;
use crate::driver::{Order, ProcessRecord, Told};
use crate::place::Place;

/// A kill that was refused is ordered again after this: what refuses is mostly busy, and every try costs it more.
pub const KILLED_AGAIN: Duration = Duration::from_secs(1);

impl Host {
    /// Takes in what the driver says.
    pub fn told(&mut self, told: &Told) -> Option<Waiting> {
        match told {
            Told::Started(process) => self.started(process),
            Told::Began(process) => self.began(process),
            Told::Ordered { instance, order, failed: None } => self.obeyed(instance, *order),
            Told::Ordered { instance, order, failed: Some(why) } => self.refused(instance, *order, why),
            Told::Exit(exit) => self.exited(exit),
        }
    }

    /// Hears the driver until no start is under way. What an agent that ends does not hear, the next one finds no record of.
    pub async fn await_starts(&mut self, driver: &mut mpsc::Receiver<Told>) {
        let starting =
            |place: &Place| place.running.as_ref().is_some_and(|running| running.process == Process::Starting);
        while self.places.values().any(starting) {
            let Some(told) = driver.recv().await else { return };
            if let Some(trouble) = self.told(&told) {
                warn!(reason = trouble.sentence, "what became of an instance could not be recorded");
            }
        }
    }

    fn slot_of(&self, instance: &InstanceId) -> Option<SlotId> {
        self.places.iter().find(|(_, place)| place.holds(instance)).map(|(slot, _)| slot.clone())
    }

    fn started(&mut self, process: &ProcessRecord) -> Option<Waiting> {
        let slot = self.slot_of(&process.instance)?;
        let running = self.running(&slot)?;
        if running.process == Process::Starting {
            running.process = Process::Running;
        }
        let version = &running.record.version;
        info!(%slot, instance = %process.instance, %version, pid = process.pid, "started");
        // Its follower may have been quicker, and knows more.
        if running.record.process.is_some() { None } else { self.began(process) }
    }

    fn obeyed(&mut self, instance: &InstanceId, order: Order) -> Option<Waiting> {
        let slot = self.slot_of(instance)?;
        self.running(&slot)?.refused.take_if(|(refused, _)| *refused == order);
        None
    }

    fn refused(&mut self, instance: &InstanceId, order: Order, why: &str) -> Option<Waiting> {
        let slot = self.slot_of(instance)?;
        warn!(%slot, %instance, why, "could not be {order}");
        let follows = match order {
            Order::Start => return self.cannot_start(&slot, why),
            Order::Stop => "it is killed when its grace is over",
            Order::Kill => "trying again",
        };
        let running = self.running(&slot)?;
        if let (Order::Stop, Process::Stopping { killed: true, .. }) = (order, running.process) {
            // It comes late: what is to be said is what became of the kill.
            return None;
        }
        running.refused = Some((order, format!("could not be {order}: {why}; {follows}")));
        if let (Order::Kill, Process::Stopping { .. }) = (order, running.process) {
            running.process = Process::Stopping { kill_at: clock::boot() + KILLED_AGAIN, killed: false };
        }
        None
    }

    /// Nothing runs.
    fn cannot_start(&mut self, slot: &SlotId, why: &str) -> Option<Waiting> {
        let running = self.places.get_mut(slot)?.running.take()?;
        self.not_started(slot, &running.record, why.to_owned());
        self.file.change(|state| drop(state.instances.remove(slot))).err().map(|error| disk(&error))
    }
}
