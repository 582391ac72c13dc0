//! All conditions of one instance, taken together.
//!
//! Leaving is immediate; returning happens at most once in [`RETURN_EVERY`], so that an instance that flaps does not
//! drag the fleet's routes along. The first time after the start is not delayed.

use std::time::Duration;

use super::condition::{Condition, Phase, Reading};
use super::settings::{Affects, ProbeSettings};

/// The least time from one becoming ready to the next (`SAFETY.md` §2.1 R9).
pub const RETURN_EVERY: Duration = Duration::from_secs(10);

/// What is to be known of an instance's readiness. Times are since boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// It may get traffic: every condition that affects `ready` is met, and no return is held back.
    pub ready: bool,
    /// No condition that affects `live` has fallen since it was first met. A service that is still starting is alive.
    pub live: bool,
    /// Every condition is met, but the instance was ready less than [`RETURN_EVERY`] ago; it returns then.
    pub held_until: Option<Duration>,
    /// Each condition, in the order of the config.
    pub conditions: Vec<ConditionReport>,
}

/// One condition, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConditionReport {
    /// Its name in the config.
    pub name: String,
    /// What follows from it.
    pub affects: Affects,
    /// Whether it is met.
    pub met: bool,
    /// What was seen last.
    pub reading: String,
    /// Since when it is met or unmet, as time since boot.
    pub since: Duration,
}

/// The conditions of one instance and the memory of its returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conditions {
    named: Vec<Named>,
    ready: bool,
    /// Time since boot at which it last became ready.
    became_ready: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    name: String,
    affects: Affects,
    condition: Condition,
}

impl Conditions {
    /// The conditions of an instance that starts at `now` (time since boot).
    pub fn new(probes: &[ProbeSettings], now: Duration) -> Self {
        let named = probes.iter().map(|probe| Named {
            name: probe.name.clone(),
            affects: probe.affects,
            condition: Condition::new(probe.rise, probe.fall, now),
        });
        let mut conditions = Self { named: named.collect(), ready: false, became_ready: None };
        conditions.pass(now);
        conditions
    }

    /// Takes a reading of the condition at this place of the config; one out of range has none.
    pub fn feed(&mut self, place: usize, reading: Reading, now: Duration) {
        if let Some(named) = self.named.get_mut(place) {
            named.condition.feed(reading, now);
        }
        self.pass(now);
    }

    /// Lets time pass: a return that was held back may be due.
    pub fn pass(&mut self, now: Duration) {
        let all_met = self.all_met();
        if all_met && !self.ready && self.return_at().is_none_or(|at| at <= now) {
            self.became_ready = Some(now);
        }
        self.ready = all_met && (self.ready || self.became_ready == Some(now));
    }

    /// When [`Self::pass`] is due although no reading comes, as time since boot.
    pub fn wake_at(&self) -> Option<Duration> {
        if self.all_met() && !self.ready { self.return_at() } else { None }
    }

    /// Whether the condition at this place of the config has ever been met.
    pub fn has_started(&self, place: usize) -> bool {
        self.named.get(place).is_some_and(|named| named.condition.phase() != Phase::Starting)
    }

    /// Everything as it stands.
    pub fn summary(&self) -> Readiness {
        let fallen = |named: &&Named| named.condition.phase() == Phase::Unmet;
        let report = |named: &Named| ConditionReport {
            name: named.name.clone(),
            affects: named.affects,
            met: named.condition.phase() == Phase::Met,
            reading: named.condition.reading(),
            since: named.condition.since(),
        };
        Readiness {
            ready: self.ready,
            live: !self.of(Affects::Live).any(|named| fallen(&named)),
            held_until: self.wake_at(),
            conditions: self.named.iter().map(report).collect(),
        }
    }

    fn all_met(&self) -> bool {
        self.of(Affects::Ready).all(|named| named.condition.phase() == Phase::Met)
    }

    fn return_at(&self) -> Option<Duration> {
        self.became_ready.map(|at| at + RETURN_EVERY)
    }

    fn of(&self, affects: Affects) -> impl Iterator<Item = &Named> {
        self.named.iter().filter(move |named| named.affects == affects)
    }
}

#[cfg(test)]
mod tests;
