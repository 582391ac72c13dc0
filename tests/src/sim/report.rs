//! What a coordinator hears of the fleet, and what an agent makes of its assignment.

use std::collections::BTreeMap;

use handover::core::fleet::{Agent, Assigned, Fleet, Heard, Instance, Process, Reported, Slot, Traffic};
use handover_proto::assignment::{Assignment, LeaseWish};
use handover_proto::ids::{AgentId, SlotId};
use handover_proto::lease::LeaseView;
use handover_proto::lifecycle::Lifecycle;
use handover_proto::numbers::Serial;
use handover_proto::registration::Registration;
use handover_proto::stored::Rest;

use super::slot::Wish;
use super::world::World;

const SLOTS: [&str; 2] = ["a", "b"];

/// What an assignment wants of a slot.
pub(crate) fn wish(assignment: &Assignment, slot: &str) -> Option<Wish> {
    let slot: SlotId = slot.parse().ok()?;
    let wanted = assignment.slots.get(&slot).filter(|wish| wish.lifecycle != Lifecycle::Terminated)?;
    let version = ["1.0.0", "1.1.0"].into_iter().find(|version| *version == wanted.version.as_str())?;
    let serving = wanted.lifecycle == Lifecycle::Serving;
    Some(Wish { version, serving, eligible: wanted.lease == LeaseWish::Eligible })
}

impl World {
    /// The fleet as a coordinator sees it that knows these keys of the lease.
    pub(crate) fn fleet(&self, lease: &LeaseView) -> Fleet {
        let agents = (0..self.hosts.len()).filter_map(|host| self.agent(host));
        Fleet { agents: agents.collect(), lease: lease.clone(), ..Fleet::default() }
    }

    fn agent(&self, host: usize) -> Option<(AgentId, Agent)> {
        let state = &self.hosts[host];
        let id: AgentId = format!("app-{host}").parse().ok()?;
        let heard = state.core.is_some() && !state.lost && state.frozen_until <= self.now;
        let assigned = state
            .assigned
            .as_ref()
            .map(|(assignment, serial)| Assigned { assignment: assignment.clone(), serial: Serial(*serial) });
        let agent = Agent {
            registration: registration(&id)?,
            heard: if heard { Heard::Yes } else { Heard::Silent { since_ms: 0 } },
            assigned,
            report: Some(self.reported(host)),
        };
        Some((id, agent))
    }

    fn reported(&self, host: usize) -> Reported {
        let state = &self.hosts[host];
        let settled = state.slots.iter().all(|slot| match (&slot.wish, slot.who) {
            (Some(wish), Some(who)) => slot.ready && !slot.leaves() && self.services[who].version == wish.version,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        });
        let slots = SLOTS.iter().enumerate().filter_map(|(n, name)| {
            let slot = &state.slots[n];
            let instance = self.instance(host, n);
            Some((name.parse().ok()?, Slot { instance, crashes: slot.crashes, last_exit: None }))
        });
        Reported {
            accepted: Serial(state.accepted),
            reached: Serial(if settled { state.accepted } else { 0 }),
            blocker: None,
            gate: true,
            front_pending: false,
            staging: None,
            slots: slots.collect(),
        }
    }

    fn instance(&self, host: usize, n: usize) -> Option<Instance> {
        let state = &self.hosts[host];
        let slot = &state.slots[n];
        let service = &self.services[slot.who.filter(|who| self.services[*who].alive)?];
        let name = SLOTS[n].parse().ok()?;
        let taken = state.assigned.as_ref().filter(|(_, serial)| *serial == state.accepted);
        let (reads, writes) = match taken {
            Some((assignment, _)) => assignment.weights(&name),
            None if n == 0 => (100, 100),
            None => (0, 0),
        };
        let up = if reads + writes > 0 { Lifecycle::Serving } else { Lifecycle::Ready };
        Some(Instance {
            id: service.id.clone(),
            version: service.version.parse().ok()?,
            lifecycle: slot.ready.then_some(up),
            process: Process::Running,
            ready: slot.ready,
            unmet: Vec::new(),
            since_ms: 0,
            reads,
            writes,
            in_flight: 0,
            oldest_ms: 0,
            traffic: Some(Traffic::default()),
        })
    }
}

fn registration(id: &AgentId) -> Option<Registration> {
    let address = ([127, 0, 0, 1], 1).into();
    let slots = SLOTS.iter().filter_map(|name| Some((name.parse().ok()?, address)));
    Some(Registration {
        v: 1,
        agent: id.clone(),
        service: "billing".parse().ok()?,
        endpoint: address,
        operations: address,
        host: id.to_string(),
        slots: slots.collect(),
        hold_ms: None,
        stages: None,
        labels: BTreeMap::new(),
        state_dir_id: "s".to_owned(),
        boot_id: "boot".to_owned(),
        agent_version: "0.1.0".to_owned(),
        protocol: (1, 1),
        rest: Rest::new(),
    })
}
