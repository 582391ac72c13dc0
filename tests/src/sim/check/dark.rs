//! Checker 5, the darkness meter: the longest and the total time without work. In a run with a single fault the longest
//! one stays within the bound of `SAFETY.md` §1.9; in every run somebody works again after the faults are over (I10).

use std::collections::BTreeSet;

use super::Check;
use crate::sim::fact::{Fact, Who};

/// A service that works begins its next unit at once; a gap this short is no darkness.
const GAP_US: u64 = 50_000;

/// The meter.
#[derive(Debug)]
pub struct Dark {
    bound_us: Option<u64>,
    working: BTreeSet<Who>,
    since: Option<u64>,
    healed: Option<(u64, bool)>,
    /// The longest time without work after the first unit.
    pub longest_us: u64,
    /// All of it.
    pub total_us: u64,
}

impl Dark {
    /// With the bound of the run's one fault.
    pub fn new(bound_us: Option<u64>) -> Self {
        Self { bound_us, working: BTreeSet::new(), since: None, healed: None, longest_us: 0, total_us: 0 }
    }

    fn ends(&mut self, at: u64) -> Result<(), String> {
        let Some(since) = self.since.take() else { return Ok(()) };
        let dark = at - since;
        if dark > GAP_US {
            self.longest_us = self.longest_us.max(dark);
            self.total_us += dark;
        }
        match self.bound_us {
            Some(bound) if dark > bound => {
                Err(format!("nobody worked for {} ms, the bound is {} ms (I10)", dark / 1000, bound / 1000))
            }
            _ => Ok(()),
        }
    }
}

impl Check for Dark {
    fn name(&self) -> &'static str {
        "dark"
    }

    fn see(&mut self, at: u64, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Began { who, .. } => {
                self.working.insert(*who);
                if let Some((_, worked)) = self.healed.as_mut() {
                    *worked = true;
                }
                self.ends(at)?;
            }
            Fact::Ended { who } | Fact::Froze { who } => {
                self.working.remove(who);
                if self.working.is_empty() && self.since.is_none() {
                    self.since = Some(at);
                }
            }
            Fact::Healed { within_us } => self.healed = Some((at + within_us, false)),
            _ => {}
        }
        match self.healed {
            Some((until, false)) if at > until && self.working.is_empty() => {
                Err("nobody works though every fault is over (I10)".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn end(&mut self, at: u64) -> Result<(), String> {
        match self.healed {
            // A unit that began before, and still runs, is work.
            Some((_, false)) if self.working.is_empty() => {
                Err("nobody works though every fault is over (I10)".to_owned())
            }
            _ if self.working.is_empty() => self.ends(at),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGAN: Fact = Fact::Began { who: 1, token: 1, knew: 1 };
    const ENDED: Fact = Fact::Ended { who: 1 };

    #[test]
    fn darkness_is_measured_and_held_against_its_bound() {
        let mut meter = Dark::new(Some(500_000));
        meter.see(0, &BEGAN).expect("light");
        meter.see(1_000_000, &ENDED).expect("dark");
        meter.see(1_400_000, &BEGAN).expect("within the bound");
        assert_eq!((meter.longest_us, meter.total_us), (400_000, 400_000));
        meter.see(2_000_000, &ENDED).expect("dark");
        assert!(meter.see(2_600_000, &BEGAN).expect_err("too long").contains("I10"));
    }

    #[test]
    fn nobody_working_after_the_faults_are_over_is_found() {
        let mut meter = Dark::new(None);
        meter.see(0, &Fact::Healed { within_us: 1000 }).expect("just now");
        assert!(meter.see(1001, &ENDED).is_err());
        assert!(meter.end(1001).is_err());
        let mut meter = Dark::new(None);
        meter.see(0, &BEGAN).expect("light");
        meter.see(0, &Fact::Healed { within_us: 1000 }).expect("just now");
        assert_eq!(meter.end(900), Ok(()), "its unit still runs");
        meter.see(950, &ENDED).expect("still in time");
        assert!(meter.end(1001).is_err());
    }
}
