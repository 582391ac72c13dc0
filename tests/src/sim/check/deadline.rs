//! No hard deadline that a service is told outlives the etcd lease it hangs on (`SAFETY.md` §1.8): the store cannot expire
//! the lease while somebody may still work, whatever the clocks do within their bounds. And within a turn no deadline
//! moves back (I15).
//!
//! A lease that was taken away before its time, by a defect or an operator, is the quarantine's business.

use std::collections::BTreeMap;

use super::Check;
use crate::sim::fact::{Fact, Stands, Token, Who};

/// The clocks are floating-point numbers in here.
const ROUNDING_US: u64 = 5;

/// The latest deadline of each process.
#[derive(Debug, Default)]
pub struct Deadline {
    told: BTreeMap<Who, (Token, u64)>,
}

impl Check for Deadline {
    fn name(&self) -> &'static str {
        "deadline"
    }

    fn see(&mut self, _at: u64, fact: &Fact) -> Result<(), String> {
        let Fact::Told { who, token, hard_us, stands } = fact else { return Ok(()) };
        let (hard_us, token) = (*hard_us, *token);
        let end = match stands {
            Stands::Until(end) | Stands::Expired(end) => Some(*end),
            Stands::Revoked => None,
        };
        if let Some(end) = end.filter(|end| hard_us > end + ROUNDING_US) {
            let late = hard_us - end;
            return Err(format!(
                "process {who} may work under token {token} for {late} us longer than its lease stands"
            ));
        }
        let before = self.told.insert(*who, (token, hard_us));
        match before {
            Some((same, before)) if same == token && before > hard_us + ROUNDING_US => {
                Err(format!("the deadline of token {token} moves back by {} us (I15)", before - hard_us))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(hard_us: u64, stands: Stands) -> Fact {
        Fact::Told { who: 1, token: 5, hard_us, stands }
    }

    fn verdict(facts: &[Fact]) -> Result<(), String> {
        let mut check = Deadline::default();
        facts.iter().try_for_each(|fact| check.see(0, fact))
    }

    #[test]
    fn a_deadline_beyond_the_lease_is_found() {
        assert_eq!(verdict(&[told(900, Stands::Until(1000))]), Ok(()));
        assert!(verdict(&[told(1100, Stands::Until(1000))]).is_err());
        assert!(verdict(&[told(1100, Stands::Expired(1000))]).is_err());
        assert_eq!(verdict(&[told(1100, Stands::Revoked)]), Ok(()));
    }

    #[test]
    fn a_deadline_that_moves_back_is_found() {
        assert!(verdict(&[told(900, Stands::Revoked), told(800, Stands::Revoked)]).expect_err("back").contains("I15"));
    }
}
