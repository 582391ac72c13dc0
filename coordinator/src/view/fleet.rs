//! One row per instance: what is reported beside what is assigned.

use std::collections::BTreeSet;

use handover_proto::assignment::Assignment;
use handover_proto::ids::{AgentId, Service, SlotId};
use handover_proto::lease::LeaseView;
use handover_proto::lifecycle::Lifecycle as TypedLifecycle;
use handover_proto::registration::Registration;
use handover_proto::stored::StoredError;
use handover_proto::wire::{FleetRow, InstanceReport, Lifecycle, ProcessState, Report, SlotReport};

use crate::world::{Heard, World};

/// All rows of a service; an agent without anything in its slots has one row all the same.
pub(super) fn rows(world: &World, service: &Service, lease: &LeaseView) -> Result<Vec<FleetRow>, StoredError> {
    let mut rows = Vec::new();
    let drains = world.orders(service);
    for (agent, registration) in world.registrations(service)? {
        let assigned = world.assigned(service, &agent)?;
        let heard = world.heard.get(&(service.clone(), agent.clone()));
        let part = Part {
            agent: &agent,
            registration: &registration,
            assignment: assigned.as_ref().map(|assigned| &assigned.assignment),
            heard,
            lease,
            // Whoever has links hears; whoever has none goes by the alive key.
            drained_by: drains.iter().find_map(|order| (order.drains() == Some(&agent)).then_some(order.number)),
            alive: match heard {
                Some(heard) => heard.silent.is_none() && heard.report.is_some(),
                None => world.is_alive(&world.keys.service(service), &agent),
            },
        };
        rows.extend(part.rows());
    }
    Ok(rows)
}

/// The version that serves, if it is one.
pub(super) fn current_version(rows: &[FleetRow]) -> String {
    let serving = rows.iter().filter(|row| row.reported == "SERVING" || (!row.alive && row.assigned == "SERVING"));
    let versions: BTreeSet<&str> = serving.map(|row| row.version.as_str()).collect();
    match versions.first() {
        Some(version) if versions.len() == 1 => (*version).to_owned(),
        _ => String::new(),
    }
}

/// One agent's part of the world.
struct Part<'w> {
    agent: &'w AgentId,
    registration: &'w Registration,
    assignment: Option<&'w Assignment>,
    heard: Option<&'w Heard>,
    lease: &'w LeaseView,
    drained_by: Option<u64>,
    alive: bool,
}

impl Part<'_> {
    fn report(&self) -> Option<&Report> {
        self.heard?.report.as_ref()
    }

    fn rows(&self) -> Vec<FleetRow> {
        let reported = self.report().into_iter().flat_map(|report| &report.slots);
        let reported = reported.filter(|slot| slot.instance.is_some()).filter_map(|slot| slot.slot.parse().ok());
        // A slot that is to be empty and is has no instance, hence no row.
        let wishes = self.assignment.into_iter().flat_map(|assignment| &assignment.slots);
        let wishes = wishes.filter(|(_, wish)| wish.lifecycle != TypedLifecycle::Terminated);
        let assigned = wishes.map(|(slot, _)| slot.clone());
        let slots: BTreeSet<SlotId> = reported.chain(assigned).collect();
        if slots.is_empty() {
            let empty = if self.registration.slots.is_empty() { "no slots" } else { "empty" };
            return vec![FleetRow { reported: empty.into(), ..self.row() }];
        }
        slots.iter().map(|slot| self.slot(slot)).collect()
    }

    /// What holds for every row of the agent.
    fn row(&self) -> FleetRow {
        let report = self.report();
        FleetRow {
            agent: self.agent.to_string(),
            alive: self.alive,
            drained_by: self.drained_by.unwrap_or(0),
            accepted: report.map_or(0, |report| report.accepted),
            reached: report.map_or(0, |report| report.reached),
            blocker: report.and_then(|report| report.blocker.clone()),
            gate: report.and_then(|report| report.gate.as_ref()).is_some_and(|gate| gate.connected),
            ..FleetRow::default()
        }
    }

    fn slot(&self, slot: &SlotId) -> FleetRow {
        let report: Option<&SlotReport> =
            self.report().and_then(|report| report.slots.iter().find(|known| known.slot == slot.as_str()));
        let instance = report.and_then(|report| report.instance.as_ref());
        let wish = self.assignment.and_then(|assignment| assignment.slots.get(slot));
        let wanted_version = wish.map(|wish| wish.version.to_string()).unwrap_or_default();
        let lines = instance.and_then(|instance| instance.drain.as_ref()).map(|drain| drain.lines.as_slice());
        let lines = lines.unwrap_or_default();
        FleetRow {
            slot: slot.to_string(),
            version: instance.map_or(wanted_version, |instance| instance.version.clone()),
            instance: instance.map(|instance| instance.instance.clone()).unwrap_or_default(),
            reported: instance.map(state).unwrap_or_default(),
            assigned: match (wish, self.assignment) {
                (Some(wish), _) => wish.lifecycle.to_string(),
                (None, Some(_)) => "empty".to_owned(),
                (None, None) => String::new(),
            },
            reported_shares: instance.is_some(),
            reads: instance.map_or(0, |instance| instance.reads),
            writes: instance.map_or(0, |instance| instance.writes),
            in_flight: lines.iter().map(|line| line.count).fold(0, u64::saturating_add),
            oldest_ms: lines.iter().map(|line| line.oldest_ms).max().unwrap_or(0),
            lease: instance.map_or_else(|| "-".to_owned(), |instance| self.lease_of(instance)),
            since_ms: instance.map_or(0, |instance| instance.since_ms),
            ..self.row()
        }
    }

    fn lease_of(&self, instance: &InstanceReport) -> String {
        let holder = self
            .lease
            .holder
            .as_ref()
            .filter(|seen| seen.value.held().is_some_and(|held| held.owner.instance.as_str() == instance.instance));
        if let (Some(_), Ok(Some(token))) = (holder, self.lease.token()) {
            return format!("held {token}");
        }
        let candidate = self.lease.candidates.keys().any(|known| known.as_str() == instance.instance);
        if candidate { "candidate".to_owned() } else { "-".to_owned() }
    }
}

/// The lifecycle, or what the process does before the first readiness.
fn state(instance: &InstanceReport) -> String {
    let lifecycle = Lifecycle::try_from(instance.lifecycle).ok().and_then(Lifecycle::typed);
    lifecycle.map(|state| state.to_string()).unwrap_or_else(|| {
        let process = ProcessState::try_from(instance.process).unwrap_or(ProcessState::Unspecified);
        match process {
            ProcessState::Unspecified => "unknown",
            ProcessState::Starting => "starting",
            ProcessState::Running => "running",
            ProcessState::Stopping => "stopping",
            ProcessState::Exited => "exited",
        }
        .to_owned()
    })
}
