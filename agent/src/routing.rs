//! Where the agent's routes go, and where what is applied and in hand comes from: the gate, or, without one, balancers and
//! the kernel's tables (mode `signal`).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use handover_proto::assignment::Remote;
use handover_proto::ids::{InstanceId, SlotId};
use tokio::sync::watch;

use crate::core::front::FrontSeen;
use crate::core::observed::{GateSeen, Kind, Ledger, Line, Routes};
use crate::gate::client::GateLink;
use crate::gate::control::{Admission, GateReport, GateState, Refusal, Upstream};
use crate::signal_mode::{SignalRouting, Watched};

/// How many states may be on the way at once: the gate applies one in well under a millisecond.
const REMEMBERED: usize = 16;
const LEAP: u64 = 1 << 32;

/// One of the two ways.
pub enum Routing {
    /// A gate is in front of the instances.
    Proxy(GateRouting),
    /// Balancers are.
    Signal(SignalRouting),
}

impl Routing {
    /// The gate's last word; none while it is away, and where there is none.
    pub fn report(&self) -> Option<GateReport> {
        match self {
            Self::Proxy(gate) => gate.report(),
            Self::Signal(_) => None,
        }
    }

    /// Wakes whenever the gate says something.
    pub fn watch(&self) -> watch::Receiver<Option<GateReport>> {
        match self {
            Self::Proxy(gate) => gate.watch(),
            Self::Signal(signal) => signal.watch(),
        }
    }

    /// Routes to be made true.
    pub fn tell(&mut self, routes: &Routes) {
        match self {
            Self::Proxy(gate) => gate.tell(routes),
            Self::Signal(signal) => signal.tell(routes),
        }
    }

    /// What the core is to know of it.
    pub fn seen(&mut self, front: &FrontSeen, slots: &mut dyn Iterator<Item = &SlotId>) -> GateSeen {
        match self {
            Self::Proxy(gate) => gate.seen(),
            Self::Signal(signal) => signal.seen(front, slots),
        }
    }

    /// Whose work there is to count; the gate knows by itself.
    pub fn count(&self, watched: BTreeMap<InstanceId, Watched>) {
        if let Self::Signal(signal) = self {
            signal.count(watched);
        }
    }

    /// What an instance has in hand.
    pub fn ledger(&self, instance: &InstanceId) -> Ledger {
        match self {
            Self::Proxy(gate) => gate.ledger(instance),
            Self::Signal(signal) => signal.ledger(instance),
        }
    }

    /// Where there is no gate: the routes that balancers were told.
    pub fn signalled(&self) -> Option<&Routes> {
        match self {
            Self::Proxy(_) => None,
            Self::Signal(signal) => signal.told(),
        }
    }
}

/// The agent's end of the gate.
pub struct GateRouting {
    link: GateLink,
    sent: Vec<(u64, Routes)>,
    addresses: BTreeMap<SlotId, SocketAddr>,
}

impl GateRouting {
    /// Speaks through `link`.
    pub fn new(link: GateLink, addresses: BTreeMap<SlotId, SocketAddr>) -> Self {
        Self { link, sent: Vec::new(), addresses }
    }

    /// The gate's last word; none while it is away.
    pub fn report(&self) -> Option<GateReport> {
        self.link.reports().borrow().clone()
    }

    /// Wakes whenever the gate says something.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<Option<GateReport>> {
        self.link.reports()
    }

    /// Sends these routes, unless they were the last ones sent. Waits for the gate's first word, which says at which
    /// number to go on.
    pub fn tell(&mut self, routes: &Routes) {
        let Some(report) = self.report() else { return };
        // Refused: another agent process used the number. What the gate has applied is then not what we sent.
        let refused = self.link.refusals().borrow().clone();
        if refused.is_some() {
            self.sent.clear();
        }
        if self.sent.last().is_some_and(|(_, sent)| sent == routes) {
            return;
        }
        // The first number of a process is a leap that no other process will make, so that none is used twice.
        let next = |(seq, _): &(u64, Routes)| seq + 1;
        let applied = go_on_from(report.applied, refused.as_ref());
        let leap = || applied + rand::random_range(1..=LEAP);
        let seq = self.sent.last().map_or_else(leap, next).max(applied + 1);
        self.sent.push((seq, routes.clone()));
        if self.sent.len() > REMEMBERED {
            self.sent.remove(0);
        }
        self.link.send(state(&self.addresses, seq, routes));
    }

    /// What the core is to know of the gate.
    pub fn seen(&self) -> GateSeen {
        let report = self.report();
        let applied = report.as_ref().and_then(|report| {
            self.sent.iter().rev().find(|(seq, _)| *seq == report.applied).map(|(_, routes)| routes.clone())
        });
        GateSeen { connected: report.is_some(), applied }
    }

    /// What an instance has in hand, as far as the gate knows.
    pub fn ledger(&self, instance: &InstanceId) -> Ledger {
        let report = self.report();
        let upstream = report.as_ref().and_then(|report| report.upstreams.iter().find(|u| u.instance == *instance));
        let line = |kind, count, oldest_ms| Line::counted(kind, count, Duration::from_millis(oldest_ms));
        let lines = upstream.map(|u| {
            let requests = line(Kind::Requests, u.in_flight, u.oldest_ms);
            [requests, line(Kind::Upgraded, u.upgraded, u.oldest_upgraded_ms)]
        });
        Ledger { lines: lines.into_iter().flatten().collect() }
    }
}

/// The state after which to go on. While an older gate is silent a report says 0; a refusal then names the real one.
fn go_on_from(reported: u64, refused: Option<&Refusal>) -> u64 {
    match refused {
        Some(Refusal::Older { applied, .. }) => reported.max(*applied),
        _ => reported,
    }
}

/// The routes as the gate takes them.
fn state(addresses: &BTreeMap<SlotId, SocketAddr>, seq: u64, routes: &Routes) -> GateState {
    let local = routes.local.iter().filter_map(|route| {
        let address = *addresses.get(&route.slot)?;
        let (instance, version) = (route.instance.clone(), route.version.clone());
        Some(Upstream { instance, version, address, reads: route.reads, writes: route.writes, ready: route.ready })
    });
    // Their readiness is known to their own agents, and to the coordinator that gave them this weight. One that cannot be
    // connected to is passed over by the gate.
    let remote = routes.remote.iter().map(|route| {
        let Remote { instance, version, address } = route.to.clone();
        Upstream { instance, version, address, reads: route.reads, writes: route.writes, ready: true }
    });
    let admission = match (routes.open, routes.leaving) {
        (true, false) => Admission::Open,
        (true, true) => Admission::LameDuck,
        (false, _) => Admission::Shut,
    };
    GateState { seq, admission, upstreams: local.chain(remote).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::observed::{LocalRoute, RemoteRoute};

    #[test]
    fn numbers_go_on_from_the_state_that_a_refusal_names() {
        assert_eq!(go_on_from(0, Some(&Refusal::Older { seq: 5, applied: 900 })), 900);
        assert_eq!(go_on_from(7, Some(&Refusal::Older { seq: 5, applied: 6 })), 7);
        assert_eq!(go_on_from(7, Some(&Refusal::Conflict { seq: 9 })), 7);
        assert_eq!(go_on_from(7, None), 7);
    }

    #[test]
    fn instances_elsewhere_go_to_the_gate_beside_those_of_this_host() {
        let (here, there) = (InstanceId::random(), InstanceId::random());
        let slot: SlotId = "a".parse().expect("a slot");
        let version: handover_proto::ids::Version = "1.1.0".parse().expect("a version");
        let address: SocketAddr = "10.0.0.2:9001".parse().expect("an address");
        let to = Remote { instance: there.clone(), version: version.clone(), address };
        let (reads, writes, ready) = (40, 0, false);
        let routes = Routes {
            local: vec![LocalRoute { slot: slot.clone(), instance: here.clone(), version, reads, writes, ready }],
            remote: vec![RemoteRoute { to, reads: 60, writes: 100 }],
            open: true,
            leaving: false,
        };
        let own = "127.0.0.1:9001".parse().expect("an address");
        let state = state(&BTreeMap::from([(slot, own)]), 7, &routes);
        assert_eq!((state.seq, state.admission), (7, Admission::Open));
        let of = |instance| state.upstreams.iter().find(|upstream| upstream.instance == instance).expect("listed");
        assert_eq!((of(here.clone()).address, of(here.clone()).reads, of(here).ready), (own, 40, false));
        assert_eq!((of(there.clone()).address, of(there.clone()).writes, of(there).ready), (address, 100, true));
    }
}
