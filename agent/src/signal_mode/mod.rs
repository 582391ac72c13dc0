//! Mode `signal`: no gate; balancers in front send straight to the instances.
//!
//! The routes of the core become wishes to the balancers, and what all of them have confirmed counts as applied. The work
//! of an instance is the connections to its port, counted in the kernel's tables ([`sockets`]) in the instance's own
//! network namespace. So an instance leaves in the order of `SAFETY.md` R5: balancers told, confirmed, connections gone
//! or the deadline's policy, and only then SIGTERM.

mod counter;
mod diag;
pub mod sockets;
pub mod tracked;

use std::collections::BTreeMap;
use std::sync::Arc;

use handover_proto::ids::{InstanceId, SlotId};
use tokio::sync::{Notify, watch};

use crate::clock;
use crate::core::front::{By, FrontSeen, wishes};
use crate::core::observed::{Boot, GateSeen, Ledger, Routes};
use crate::gate::control::GateReport;
use counter::Counter;

pub use counter::Watched;

/// The agent's end where there is no gate.
pub struct SignalRouting {
    told: Option<Routes>,
    applied: Option<(Routes, Boot)>,
    counter: Counter,
    /// There is no gate to hear of; this never says anything.
    silent: watch::Sender<Option<GateReport>>,
}

impl SignalRouting {
    /// Counts nothing before it is told what.
    pub fn new(wake: Arc<Notify>) -> Self {
        Self { told: None, applied: None, counter: Counter::start(wake), silent: watch::Sender::new(None) }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Option<GateReport>> {
        self.silent.subscribe()
    }

    /// A drain that these routes take back is over from here on, whoever has heard of it: ordered once more, it has to be
    /// confirmed anew.
    pub(crate) fn tell(&mut self, routes: &Routes) {
        if self.applied.as_ref().is_some_and(|(applied, _)| take_back(routes, applied)) {
            self.applied = None;
        }
        self.told = Some(routes.clone());
    }

    /// The routes that were told last; reports and `/ready` show them.
    pub(crate) fn told(&self) -> Option<&Routes> {
        self.told.as_ref()
    }

    /// What was told counts as applied once every balancer says so, and stays so until something else does or a drain of
    /// it is taken back.
    pub(crate) fn seen(&mut self, front: &FrontSeen, slots: &mut dyn Iterator<Item = &SlotId>) -> GateSeen {
        if let Some(told) = &self.told
            && self.applied.as_ref().is_none_or(|(applied, _)| applied != told)
            && front.pending(&wishes(told, By::Slot, slots)).is_none()
        {
            self.applied = Some((told.clone(), clock::boot()));
        }
        GateSeen { connected: true, applied: self.applied.as_ref().map(|(applied, _)| applied.clone()) }
    }

    /// Whose connections to count.
    pub(crate) fn count(&self, watched: BTreeMap<InstanceId, Watched>) {
        self.counter.watch(watched);
    }

    pub(crate) fn ledger(&self, instance: &InstanceId) -> Ledger {
        let cut_off = self.applied.as_ref().filter(|(routes, _)| weight(routes, instance) == 0);
        self.counter.ledger(instance, cut_off.map(|(_, since)| *since))
    }
}

fn weight(routes: &Routes, instance: &InstanceId) -> u32 {
    routes.of(instance).map_or(0, |route| route.reads + route.writes)
}

/// Whether something gets traffic that got none.
fn take_back(told: &Routes, applied: &Routes) -> bool {
    told.local.iter().any(|route| weight(told, &route.instance) > 0 && weight(applied, &route.instance) == 0)
}

#[cfg(test)]
mod tests;
