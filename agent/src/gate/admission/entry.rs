//! What the gate keeps of one upstream. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Pin, index};
use crate::gate::class::Class;
use crate::gate::control::{Upstream, UpstreamReport};
use crate::gate::counts::ClassCounts;

/// One request in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    pub(super) since: Duration,
    pub(super) settled: bool,
}

/// One upstream, listed or departed.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) upstream: Arc<Upstream>,
    pub(super) pin: Pin,
    pub(super) passed_over_until: Duration,
    pub(super) listed: bool,
    pub(super) flights: BTreeMap<u64, Flight>,
    /// Flights that became tunnels, with the time of that.
    pub(super) upgraded: BTreeMap<u64, Duration>,
    pub(super) upgraded_total: u64,
    pub(super) upgraded_closed: u64,
    /// Since when it gets nothing new.
    pub(super) drained_since: Option<Duration>,
    pub(super) counts: [ClassCounts; 2],
    pub(super) last_request: Option<Duration>,
    pub(super) idle_since: Duration,
}

impl Entry {
    pub(super) fn is_weightless(&self) -> bool {
        !self.listed || (self.upstream.reads == 0 && self.upstream.writes == 0)
    }

    pub(super) fn is_busy(&self) -> bool {
        !self.flights.is_empty() || !self.upgraded.is_empty()
    }

    pub(super) fn report(&self, now: Duration) -> UpstreamReport {
        let since = |then: Duration| u64::try_from(now.saturating_sub(then).as_millis()).unwrap_or(u64::MAX);
        UpstreamReport {
            instance: self.upstream.instance.clone(),
            version: self.upstream.version.clone(),
            listed: self.listed,
            in_flight: self.flights.len() as u64,
            oldest_ms: self.flights.first_key_value().map_or(0, |(_, flight)| since(flight.since)),
            reads: self.counts[index(Class::Read)],
            writes: self.counts[index(Class::Write)],
            last_request_ms_ago: self.last_request.map(since),
            upgraded: self.upgraded.len() as u64,
            oldest_upgraded_ms: self.upgraded.values().min().map_or(0, |then| since(*then)),
            upgraded_total: self.upgraded_total,
            upgraded_closed: self.upgraded_closed,
        }
    }
}
