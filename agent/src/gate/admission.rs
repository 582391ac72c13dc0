//! Who is let in, and to where. Pure: time comes in, nothing goes out.
//!
//! Admission, routes and the count of requests in flight are one value ([`Core`]); the shell keeps it behind one lock, so
//! that "no weight and nothing in flight" can never be true while a request is on its way in. A request is in flight from
//! [`Core::admit`] to [`Core::finish`], which the shell calls when both bodies have ended. One that is answered with another
//! protocol (a WebSocket) is counted apart from then on ([`Core::upgrade`]).

mod door;
mod entry;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use handover_proto::ids::InstanceId;

use super::balance::Balance;
use super::class::Class;
use super::control::{Admission, GateReport, GateState, Reason, Refusal, Upstream};
use super::counts::Event;
use entry::{Entry, Flight};

pub use door::{Arrival, Ask, News, Pin, Route, Verdict};

/// How long an upstream that left the state stays in the reports after its last request ended: ten reports, so that an
/// agent that is restarting still learns its last counts.
const DEPARTED_KEPT: Duration = Duration::from_secs(10);

/// Bounds on what is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Requests that may wait at one time.
    pub held: u64,
    /// Requests that may be in flight at one time.
    pub in_flight: u64,
}

/// How long an upstream that could not be connected to is passed over while there is another one. Agents tell of an end
/// within milliseconds; this is for instances of other hosts, and for a gate without its agent.
const PASSED_OVER: Duration = Duration::from_secs(1);

/// The gate's one mutable value.
#[derive(Debug)]
pub struct Core {
    state: GateState,
    bounds: Bounds,
    entries: BTreeMap<u64, Entry>,
    balance: [Balance; 2],
    next_key: u64,
    next_flight: u64,
    in_flight: u64,
    held: u64,
    own_answers: BTreeMap<Reason, u64>,
}

impl Core {
    /// A gate that has not heard of any upstream: it holds.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            state: GateState { seq: 0, admission: Admission::Hold, upstreams: Vec::new() },
            bounds,
            entries: BTreeMap::new(),
            balance: Default::default(),
            next_key: 1,
            next_flight: 1,
            in_flight: 0,
            held: 0,
            own_answers: BTreeMap::new(),
        }
    }

    /// The state in force.
    pub fn state(&self) -> &GateState {
        &self.state
    }

    /// Replaces the whole state. The same state again is accepted and changes nothing.
    ///
    /// # Errors
    /// When the state is older than the one in force, has its number but other content, or names an instance twice.
    pub fn apply(&mut self, state: GateState, now: Duration) -> Result<(), Refusal> {
        if state.seq < self.state.seq {
            return Err(Refusal::Older { seq: state.seq, applied: self.state.seq });
        }
        if state.seq == self.state.seq {
            return if state == self.state { Ok(()) } else { Err(Refusal::Conflict { seq: state.seq }) };
        }
        if let Some(instance) = listed_twice(&state.upstreams) {
            return Err(Refusal::Duplicate { seq: state.seq, instance });
        }
        for entry in self.entries.values_mut().filter(|entry| entry.listed) {
            entry.listed = false;
            entry.idle_since = now;
        }
        let open = !matches!(state.admission, Admission::LameDuck | Admission::Shut);
        let keys: Vec<u64> = state.upstreams.iter().map(|upstream| self.enlist(upstream, now)).collect();
        for class in [Class::Read, Class::Write] {
            let ready = state.upstreams.iter().zip(&keys).filter(|(upstream, _)| upstream.ready);
            let candidates: Vec<(u64, u32)> = ready.map(|(upstream, key)| (*key, weight(upstream, class))).collect();
            self.balance[index(class)].set(&candidates);
        }
        for entry in self.entries.values_mut() {
            let serves = open && !entry.is_weightless();
            entry.drained_since = if serves { None } else { entry.drained_since.or(Some(now)) };
        }
        self.state = state;
        Ok(())
    }

    /// Finds the entry of an upstream, or makes one. An instance that moved to another address is a new entry: its
    /// connections must not be mixed with the old ones.
    fn enlist(&mut self, upstream: &Upstream, now: Duration) -> u64 {
        let same = |entry: &Entry| {
            entry.upstream.instance == upstream.instance
                && entry.upstream.address == upstream.address
                && entry.upstream.version == upstream.version
        };
        let key = self.entries.iter().find(|(_, entry)| same(entry)).map(|(key, _)| *key);
        let key = key.unwrap_or_else(|| {
            self.next_key += 1;
            self.next_key - 1
        });
        let entry = self.entries.entry(key).or_insert_with(|| Entry {
            upstream: Arc::new(upstream.clone()),
            pin: Pin::of(upstream.version.as_str()),
            passed_over_until: Duration::ZERO,
            listed: true,
            flights: BTreeMap::new(),
            upgraded: BTreeMap::new(),
            upgraded_total: 0,
            upgraded_closed: 0,
            drained_since: None,
            counts: Default::default(),
            last_request: None,
            idle_since: now,
        });
        entry.listed = true;
        entry.upstream = Arc::new(upstream.clone());
        key
    }

    /// Decides on one request. `Go` and `Hold` change the counts in the same breath.
    pub fn admit(&mut self, ask: impl Into<Ask>, arrival: Arrival<'_>, now: Duration) -> Verdict {
        let ask = ask.into();
        let verdict = match arrival {
            Arrival::Again(tried) => {
                for key in tried {
                    if let Some(entry) = self.entries.get_mut(key) {
                        entry.passed_over_until = now + PASSED_OVER;
                    }
                }
                self.pick(ask, tried, now).map_or(Verdict::Refuse(Reason::Connect), Verdict::Go)
            }
            Arrival::New | Arrival::Held => self.at_the_door(ask, now),
        };
        match (arrival, &verdict) {
            (Arrival::New, Verdict::Hold) if self.held >= self.bounds.held => return Verdict::Refuse(Reason::HoldFull),
            (Arrival::New, Verdict::Hold) => self.held += 1,
            (Arrival::Held, Verdict::Go(_) | Verdict::Refuse(_)) => self.leave_hold(),
            _ => {}
        }
        if let Verdict::Go(route) = &verdict {
            self.take_off(route, now);
        }
        verdict
    }

    fn at_the_door(&mut self, ask: Ask, now: Duration) -> Verdict {
        match self.state.admission {
            Admission::Shut => Verdict::Refuse(Reason::Shut),
            Admission::Hold => Verdict::Hold,
            Admission::Open | Admission::LameDuck if self.in_flight >= self.bounds.in_flight => {
                Verdict::Refuse(Reason::InFlightLimit)
            }
            Admission::Open | Admission::LameDuck => self.pick(ask, &[], now).map_or(Verdict::Hold, Verdict::Go),
        }
    }

    fn pick(&mut self, ask: Ask, tried: &[u64], now: Duration) -> Option<Route> {
        let Ask { class, pin } = ask;
        let (balance, entries) = (&mut self.balance[index(class)], &self.entries);
        let fresh = |key: u64| !tried.contains(&key);
        let is = |key: u64, what: &dyn Fn(&Entry) -> bool| entries.get(&key).is_some_and(what);
        let reached = |key: u64| fresh(key) && is(key, &|entry| entry.passed_over_until <= now);
        let pinned = |key: u64| reached(key) && is(key, &|entry| Some(entry.pin) == pin);
        let bound = pin.and_then(|_| balance.pick(pinned));
        let key = bound.or_else(|| balance.pick(reached)).or_else(|| balance.pick(fresh))?;
        let upstream = Arc::clone(&entries.get(&key)?.upstream);
        self.next_flight += 1;
        Some(Route { key, upstream, flight: self.next_flight, class })
    }

    fn take_off(&mut self, route: &Route, now: Duration) {
        if let Some(entry) = self.entries.get_mut(&route.key) {
            entry.flights.insert(route.flight, Flight { since: now, settled: false });
            entry.counts[index(route.class)].requests += 1;
            entry.last_request = Some(now);
            self.in_flight += 1;
        }
    }

    /// Why balancers should not send requests of this class here; none: they should.
    ///
    /// An upstream that could not be connected to a moment ago does not count: without an agent nobody says that it is gone.
    pub fn unready(&self, class: Class, now: Duration) -> Option<&'static str> {
        match self.state.admission {
            Admission::LameDuck => {
                return Some("this host leaves: what comes is still served, but nothing more should");
            }
            Admission::Hold => return Some("requests wait"),
            Admission::Shut => return Some("the gate is shut"),
            Admission::Open => {}
        }
        let takes = |entry: &Entry| {
            let upstream = &entry.upstream;
            entry.listed && upstream.ready && weight(upstream, class) > 0 && entry.passed_over_until <= now
        };
        let nobody = match class {
            Class::Read => "no ready instance takes reads",
            Class::Write => "no ready instance takes writes",
        };
        (!self.entries.values().any(takes)).then_some(nobody)
    }

    /// A request that was let in already has to wait after all. False: as many wait as may.
    pub fn begin_hold(&mut self) -> bool {
        let room = self.held < self.bounds.held;
        self.held += u64::from(room);
        room
    }

    /// A held request gave up or ran out of time.
    pub fn leave_hold(&mut self) {
        self.held = self.held.saturating_sub(1);
    }

    /// The gate answered by itself.
    pub fn own_answer(&mut self, reason: Reason) {
        *self.own_answers.entry(reason).or_default() += 1;
    }

    /// What happened to a request in flight. Urgent on an upstream's first error.
    pub fn record(&mut self, route: &Route, event: Event) -> News {
        let Some(entry) = self.entries.get_mut(&route.key) else { return News::Counters };
        if let Some(flight) = entry.flights.get_mut(&route.flight) {
            flight.settled = true;
        }
        let errors = |entry: &Entry| entry.counts[0].errors() + entry.counts[1].errors();
        let before = errors(entry);
        entry.counts[index(route.class)].record(event);
        if before == 0 && errors(entry) > 0 { News::Urgent } else { News::Counters }
    }

    /// The request was answered with another protocol: it is a tunnel now, and counts as one until [`Core::finish`]. Urgent
    /// when it was the last request of an upstream that gets no new ones.
    pub fn upgrade(&mut self, route: &Route, now: Duration) -> News {
        let Some(entry) = self.entries.get_mut(&route.key) else { return News::Counters };
        if entry.flights.remove(&route.flight).is_none() {
            return News::Counters;
        }
        entry.upgraded.insert(route.flight, now);
        entry.upgraded_total += 1;
        self.in_flight = self.in_flight.saturating_sub(1);
        if entry.flights.is_empty() && entry.is_weightless() { News::Urgent } else { News::Counters }
    }

    /// Since when the upstream of a tunnel gets nothing new, or the gate sends its clients elsewhere.
    pub fn drained_since(&self, route: &Route) -> Option<Duration> {
        self.entries.get(&route.key).and_then(|entry| entry.drained_since)
    }

    /// The gate closes a tunnel itself, because of the drain.
    pub fn closes_upgraded(&mut self, route: &Route) {
        if let Some(entry) = self.entries.get_mut(&route.key) {
            entry.upgraded_closed += 1;
        }
    }

    /// How long the request has been in flight, or a tunnel.
    pub fn age(&self, route: &Route, now: Duration) -> Duration {
        let Some(entry) = self.entries.get(&route.key) else { return Duration::ZERO };
        let flight = entry.flights.get(&route.flight).map(|flight| flight.since);
        let since = flight.or_else(|| entry.upgraded.get(&route.flight).copied());
        since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    /// Both bodies have ended. A request that nothing was recorded about was given up by its client. Urgent when an
    /// upstream that gets no new requests has now done its last one.
    pub fn finish(&mut self, route: &Route, now: Duration) -> News {
        let Some(entry) = self.entries.get_mut(&route.key) else { return News::Counters };
        if let Some(flight) = entry.flights.remove(&route.flight) {
            if !flight.settled {
                entry.counts[index(route.class)].record(Event::ClientLeft);
            }
            self.in_flight = self.in_flight.saturating_sub(1);
        } else if entry.upgraded.remove(&route.flight).is_none() {
            return News::Counters;
        }
        if !(entry.flights.is_empty() && entry.upgraded.is_empty()) {
            return News::Counters;
        }
        entry.idle_since = now;
        if entry.is_weightless() { News::Urgent } else { News::Counters }
    }

    /// Forgets upstreams that left the state and have been idle so long that their last counts were reported.
    pub fn forget_departed(&mut self, now: Duration) {
        self.entries
            .retain(|_, entry| entry.listed || entry.is_busy() || now.saturating_sub(entry.idle_since) < DEPARTED_KEPT);
    }

    /// Keys of the upstreams that the state lists: connections to others need not be kept.
    pub fn listed_keys(&self) -> Vec<u64> {
        self.entries.iter().filter(|(_, entry)| entry.listed).map(|(key, _)| *key).collect()
    }

    /// Everything known here. What only the shell knows (which gate, saved state, connections) it fills in.
    pub fn report(&self, now: Duration) -> GateReport {
        GateReport {
            gate_start_id: String::new(),
            pid: 0,
            took_over_from: None,
            leaving: false,
            forerunners: Vec::new(),
            applied: self.state.seq,
            saved: 0,
            save_error: None,
            admission: self.state.admission,
            upstreams: self.entries.values().map(|entry| entry.report(now)).collect(),
            in_flight: self.in_flight,
            held: self.held,
            connections: 0,
            tls: None,
            refused_connections: 0,
            carried_from: Vec::new(),
            own_answers: self.own_answers.clone(),
        }
    }
}

fn index(class: Class) -> usize {
    match class {
        Class::Read => 0,
        Class::Write => 1,
    }
}

fn weight(upstream: &Upstream, class: Class) -> u32 {
    match class {
        Class::Read => upstream.reads,
        Class::Write => upstream.writes,
    }
}

fn listed_twice(upstreams: &[Upstream]) -> Option<InstanceId> {
    let mut seen = std::collections::BTreeSet::new();
    upstreams.iter().find(|upstream| !seen.insert(&upstream.instance)).map(|upstream| upstream.instance.clone())
}

#[cfg(test)]
mod tests;
