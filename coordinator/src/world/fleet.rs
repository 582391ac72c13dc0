//! The world as the pure core takes it.

use handover_proto::ids::Service;
use handover_proto::registration::Registration;
use handover_proto::stored::StoredError;

use super::{Heard, World};
use crate::core::fleet::{self, Agent, Fleet, Reported};

impl World {
    /// One service's agents and its lease. `now_ms` (wall clock) is when an agent that has never been heard is missed.
    ///
    /// # Errors
    /// [`StoredError::Garbled`], which names the key.
    pub fn fleet(&self, service: &Service, now_ms: u64) -> Result<Fleet, StoredError> {
        let mut fleet = Fleet { lease: self.lease(service)?, ..Fleet::default() };
        // It concerns nothing that serves, and whoever asks next overwrites it: an unreadable one is told by the engine, and
        // stops nobody.
        fleet.staging = self.staging(service).unwrap_or_default();
        let open = self.orders(service);
        fleet.drained = open.iter().filter_map(|order| Some((order.drains()?.clone(), order.number))).collect();
        for (name, registration) in self.registrations(service)? {
            let assigned = self.assigned(service, &name)?;
            let assigned = assigned.map(|known| fleet::Assigned { assignment: known.assignment, serial: known.serial });
            let heard = self.heard.get(&(service.clone(), name.clone()));
            fleet.agents.insert(name, agent(registration, assigned, heard, now_ms));
        }
        Ok(fleet)
    }
}

fn agent(registration: Registration, assigned: Option<fleet::Assigned>, known: Option<&Heard>, now_ms: u64) -> Agent {
    let silent = |since_ms| (fleet::Heard::Silent { since_ms }, None);
    let report = known.and_then(|heard| heard.report.as_ref());
    let silence = known.and_then(|heard| heard.silent.as_ref());
    let (heard, report) = match (report.map(Reported::from_wire), silence) {
        (Some(Ok(report)), None) => (fleet::Heard::Yes, Some(report)),
        (Some(Ok(report)), Some(silence)) => (fleet::Heard::Silent { since_ms: silence.since_ms }, Some(report)),
        (Some(Err(error)), _) => {
            tracing::warn!(%error, "an agent counts as silent");
            silent(now_ms)
        }
        (None, silence) => silent(silence.map_or(now_ms, |silence| silence.since_ms)),
    };
    Agent { registration, heard, assigned, report }
}
