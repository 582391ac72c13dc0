//! What the load counted: per phase and in all. No I/O, no clock; times are spans since the load's start.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::load::histogram::Histogram;
use crate::load::outcome::Outcome;
use crate::load::request::Kind;
use crate::span;

/// Failures that are kept one by one; the rest is only counted.
const FAILURES_KEPT: usize = 1000;

/// Where a request belongs: given when it leaves, given back with its outcome.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    /// Its number.
    pub n: u64,
    /// What it is.
    pub kind: Kind,
    /// The gate that it goes to.
    pub gate: usize,
    /// When it was meant to leave, since the load's start.
    pub intended: Duration,
    phase: usize,
}

/// A request that did not end well.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// Its number.
    pub n: u64,
    /// When it was meant to leave, since the load's start.
    #[serde(rename = "at_ms", serialize_with = "span::as_ms")]
    pub at: Duration,
    /// In which phase.
    pub phase: String,
    /// What it was.
    pub kind: Kind,
    /// The gate that it went to.
    pub gate: usize,
    /// What became of it.
    pub outcome: Outcome,
    /// The status or the error.
    pub detail: String,
}

/// Counts of one phase, or of all.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Counts {
    /// Requests that left.
    pub sent: u64,
    /// How they ended.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Answers by the version that gave them.
    pub versions: BTreeMap<String, u64>,
    /// The slowest good answer.
    #[serde(rename = "slowest_ms", serialize_with = "span::as_ms")]
    pub slowest: Duration,
    /// The longest time without a good answer that *ended* here.
    #[serde(rename = "longest_gap_ms", serialize_with = "span::as_ms")]
    pub longest_gap: Duration,
    /// Good answers' latencies.
    pub latency: Histogram,
}

impl Counts {
    /// How many ended so.
    pub fn of(&self, outcome: Outcome) -> u64 {
        self.outcomes.get(&outcome).copied().unwrap_or(0)
    }

    /// Requests without an answer: refused, reset, timed out.
    pub fn lost(&self) -> u64 {
        self.outcomes.iter().filter(|(outcome, _)| outcome.is_lost()).map(|(_, count)| count).sum()
    }

    /// Requests that failed and were not meant to, lost ones included.
    pub fn ours(&self) -> u64 {
        self.outcomes.iter().filter(|(outcome, _)| outcome.is_ours()).map(|(_, count)| count).sum()
    }

    fn merge(&mut self, other: &Self) {
        self.sent += other.sent;
        for (outcome, count) in &other.outcomes {
            *self.outcomes.entry(*outcome).or_default() += count;
        }
        for (version, count) in &other.versions {
            *self.versions.entry(version.clone()).or_default() += count;
        }
        self.slowest = self.slowest.max(other.slowest);
        self.longest_gap = self.longest_gap.max(other.longest_gap);
        self.latency.merge(&other.latency);
    }
}

/// A named part of the run.
#[derive(Debug, Clone, Serialize)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Since the load's start.
    #[serde(rename = "began_ms", serialize_with = "span::as_ms")]
    pub began: Duration,
    /// Its numbers; a request belongs to the phase in which it was meant to leave.
    #[serde(flatten)]
    pub counts: Counts,
}

/// Everything that a load saw.
#[derive(Debug, Clone, Serialize)]
pub struct LoadReceipt {
    /// The run's name, first part of its idempotency keys.
    pub run: String,
    /// As asked for.
    pub rate_per_s: f64,
    /// From the start until sending stopped.
    #[serde(rename = "lasted_ms", serialize_with = "span::as_ms")]
    pub lasted: Duration,
    /// In all.
    pub total: Counts,
    /// In order.
    pub phases: Vec<Phase>,
    /// Failures of any kind, the first thousand.
    pub failures: Vec<Failure>,
    /// Kept connections that had been closed before anything was written to them; the request took another.
    pub stale_connections: u64,
    /// How late a request left at most. Much of it means that this machine, not the service, was slow.
    #[serde(rename = "latest_departure_ms", serialize_with = "span::as_ms")]
    pub latest_departure: Duration,
    /// Numbers of the writes that were acknowledged.
    #[serde(skip)]
    pub acknowledged: Vec<u64>,
    /// Numbers of the writes that were sent and not acknowledged: they may or may not have happened.
    #[serde(skip)]
    pub unacknowledged: Vec<u64>,
}

/// Counts while the load runs.
#[derive(Debug)]
pub struct Tally {
    receipt: LoadReceipt,
    last_ok: Duration,
}

impl Tally {
    /// Nothing counted yet; the first phase is called `start`.
    pub fn new(run: String, rate_per_s: f64) -> Self {
        let first = Phase { name: "start".to_owned(), began: Duration::ZERO, counts: Counts::default() };
        let receipt = LoadReceipt {
            run,
            rate_per_s,
            lasted: Duration::ZERO,
            total: Counts::default(),
            phases: vec![first],
            failures: Vec::new(),
            stale_connections: 0,
            latest_departure: Duration::ZERO,
            acknowledged: Vec::new(),
            unacknowledged: Vec::new(),
        };
        Self { receipt, last_ok: Duration::ZERO }
    }

    /// Begins a phase. One that nothing was sent in gives way to it.
    pub fn mark(&mut self, name: &str, now: Duration) {
        let phase = Phase { name: name.to_owned(), began: now, counts: Counts::default() };
        match self.receipt.phases.last_mut() {
            Some(unused) if unused.counts.sent == 0 => unused.name = phase.name,
            _ => self.receipt.phases.push(phase),
        }
    }

    /// A request leaves.
    pub fn leaves(&mut self, n: u64, kind: Kind, gate: usize, intended: Duration, now: Duration) -> Ticket {
        let phase = self.receipt.phases.len() - 1;
        self.receipt.phases[phase].counts.sent += 1;
        self.receipt.latest_departure = self.receipt.latest_departure.max(now.saturating_sub(intended));
        Ticket { n, kind, gate, intended, phase }
    }

    /// A kept connection was found closed.
    pub fn stale_connection(&mut self) {
        self.receipt.stale_connections += 1;
    }

    /// A request ended.
    pub fn ends(&mut self, ticket: Ticket, outcome: Outcome, version: Option<String>, detail: String, now: Duration) {
        let current = self.receipt.phases.len() - 1;
        if outcome == Outcome::Ok {
            let gap = now.saturating_sub(self.last_ok);
            let here = &mut self.receipt.phases[current].counts;
            here.longest_gap = here.longest_gap.max(gap);
            self.last_ok = self.last_ok.max(now);
        }
        let phase = &mut self.receipt.phases[ticket.phase];
        *phase.counts.outcomes.entry(outcome).or_default() += 1;
        if let Some(version) = version {
            *phase.counts.versions.entry(version).or_default() += 1;
        }
        if outcome == Outcome::Ok {
            let latency = now.saturating_sub(ticket.intended);
            phase.counts.slowest = phase.counts.slowest.max(latency);
            phase.counts.latency.add(latency);
        } else if self.receipt.failures.len() < FAILURES_KEPT {
            let (at, phase) = (ticket.intended, phase.name.clone());
            let Ticket { n, kind, gate, .. } = ticket;
            self.receipt.failures.push(Failure { n, at, phase, kind, gate, outcome, detail });
        }
        match (ticket.kind, outcome) {
            (Kind::Write, Outcome::Ok) => self.receipt.acknowledged.push(ticket.n),
            (Kind::Write, _) => self.receipt.unacknowledged.push(ticket.n),
            (Kind::Read | Kind::Slow, _) => {}
        }
    }

    /// Sending stopped: a gap that is still open ends here.
    pub fn stopped(&mut self, now: Duration) {
        self.receipt.lasted = now;
        let gap = now.saturating_sub(self.last_ok);
        if let Some(phase) = self.receipt.phases.last_mut() {
            phase.counts.longest_gap = phase.counts.longest_gap.max(gap);
        }
    }

    /// Good answers so far.
    pub fn answered_well(&self) -> u64 {
        self.receipt.phases.iter().map(|phase| phase.counts.of(Outcome::Ok)).sum()
    }

    /// The numbers so far.
    pub fn receipt(&self) -> LoadReceipt {
        let mut receipt = self.receipt.clone();
        for phase in &receipt.phases {
            receipt.total.merge(&phase.counts);
        }
        receipt
    }
}

#[cfg(test)]
mod tests;
