//! Checker 9: an agent that should act and does not says why, within a second.

use std::collections::BTreeMap;

use super::Check;
use crate::sim::fact::Fact;

/// How long an agent may be silent about why nothing happens.
const PATIENCE_US: u64 = 1_000_000;

/// Since when each host has had nothing to say.
#[derive(Debug, Default)]
pub struct Blocked {
    silent: BTreeMap<usize, u64>,
}

impl Check for Blocked {
    fn name(&self) -> &'static str {
        "blocker"
    }

    fn see(&mut self, at: u64, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Waits { host, acts: true, why: None } => {
                let since = *self.silent.entry(*host).or_insert(at);
                if at > since + PATIENCE_US {
                    let ms = (at - since) / 1000;
                    return Err(format!("host {host} should act, does not, and has not said why for {ms} ms"));
                }
            }
            Fact::Waits { host, .. } | Fact::Down { host } => drop(self.silent.remove(host)),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use handover_proto::blocker::BlockerKind;

    use super::*;

    #[test]
    fn an_agent_that_waits_without_a_word_is_found() {
        let mut check = Blocked::default();
        let silent = Fact::Waits { host: 1, acts: true, why: None };
        check.see(0, &silent).expect("for a moment");
        check.see(900_000, &Fact::Waits { host: 1, acts: true, why: Some(BlockerKind::Store) }).expect("it says why");
        check.see(1_100_000, &silent).expect("for a moment");
        assert!(check.see(2_200_000, &silent).is_err());
    }
}
