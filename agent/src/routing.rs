//! The agent's end of the gate: routes out, confirmed routes and counts in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use handover_proto::ids::{InstanceId, SlotId};

use crate::core::observed::{GateSeen, Kind, Ledger, Line, Routes};
use crate::gate::client::GateLink;
use crate::gate::control::{Admission, GateReport, GateState, Upstream};

/// How many states may be on the way at once: the gate applies one in well under a millisecond.
const REMEMBERED: usize = 16;
const LEAP: u64 = 1 << 32;

/// The agent's end of the gate.
pub struct Routing {
    link: GateLink,
    sent: Vec<(u64, Routes)>,
    addresses: BTreeMap<SlotId, SocketAddr>,
}

impl Routing {
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
        if self.link.refusals().borrow().is_some() {
            self.sent.clear();
        }
        if self.sent.last().is_some_and(|(_, sent)| sent == routes) {
            return;
        }
        // The first number of a process is a leap that no other process will make, so that none is used twice.
        let next = |(seq, _): &(u64, Routes)| seq + 1;
        let leap = || report.applied + rand::random_range(1..=LEAP);
        let seq = self.sent.last().map_or_else(leap, next).max(report.applied + 1);
        self.sent.push((seq, routes.clone()));
        if self.sent.len() > REMEMBERED {
            self.sent.remove(0);
        }
        self.link.send(self.state(seq, routes));
    }

    fn state(&self, seq: u64, routes: &Routes) -> GateState {
        let local = routes.local.iter().filter_map(|route| {
            let address = *self.addresses.get(&route.slot)?;
            let (instance, version) = (route.instance.clone(), route.version.clone());
            Some(Upstream { instance, version, address, reads: route.reads, writes: route.writes, ready: route.ready })
        });
        let admission = match (routes.open, routes.leaving) {
            (true, false) => Admission::Open,
            (true, true) => Admission::LameDuck,
            (false, _) => Admission::Shut,
        };
        GateState { seq, admission, upstreams: local.collect() }
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
