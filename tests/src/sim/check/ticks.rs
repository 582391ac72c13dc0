//! Checker 3: the toy billing charges tick n once. At the end the table is 1 to n, in order, without a hole and without a
//! second time.

use super::Check;
use crate::sim::fact::Fact;

/// The last tick.
#[derive(Debug, Default)]
pub struct Ticks {
    last: u64,
}

impl Check for Ticks {
    fn name(&self) -> &'static str {
        "ticks"
    }

    fn see(&mut self, _at: u64, fact: &Fact) -> Result<(), String> {
        let Fact::Committed { who, tick, .. } = fact else { return Ok(()) };
        if *tick <= self.last {
            return Err(format!("process {who} charges tick {tick} a second time; the last was {}", self.last));
        }
        if *tick != self.last + 1 {
            return Err(format!("process {who} charges tick {tick} after {}: a hole", self.last));
        }
        self.last = *tick;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(ticks: &[u64]) -> Result<(), String> {
        let mut check = Ticks::default();
        ticks.iter().try_for_each(|tick| check.see(0, &Fact::Committed { who: 1, token: 1, tick: *tick }))
    }

    #[test]
    fn a_second_charge_and_a_hole_are_found() {
        assert_eq!(verdict(&[1, 2, 3]), Ok(()));
        assert!(verdict(&[1, 2, 2]).expect_err("twice").contains("second time"));
        assert!(verdict(&[1, 3]).expect_err("a hole").contains("hole"));
    }
}
