//! Checker 2, the source of truth: the order of commits at the database. Tokens of effects never go back, none is
//! committed before its install or after the next one's (I6, I7), and one token belongs to one process.

use std::collections::BTreeMap;

use super::Check;
use crate::sim::fact::{Fact, Token, Who};

/// The fence as the commit order shows it.
#[derive(Debug, Default)]
pub struct Fence {
    installed: Option<Token>,
    owners: BTreeMap<Token, Who>,
}

impl Fence {
    fn belongs(&mut self, token: Token, who: Who) -> Result<(), String> {
        let owner = *self.owners.entry(token).or_insert(who);
        if owner == who {
            return Ok(());
        }
        Err(format!("token {token} is used by process {who} and by process {owner}: one token, one process"))
    }
}

impl Check for Fence {
    fn name(&self) -> &'static str {
        "fence"
    }

    fn see(&mut self, _at: u64, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Installed { who, token } => {
                self.belongs(*token, *who)?;
                if self.installed.is_some_and(|stored| stored > *token) {
                    return Err(format!("token {token} is installed over {:?}", self.installed));
                }
                self.installed = Some(*token);
            }
            Fact::Committed { who, token, tick } => {
                self.belongs(*token, *who)?;
                if self.installed != Some(*token) {
                    let stored = self.installed;
                    return Err(format!("tick {tick} commits under token {token}, installed is {stored:?} (I6, I7)"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(facts: &[Fact]) -> Result<(), String> {
        let mut check = Fence::default();
        facts.iter().try_for_each(|fact| check.see(0, fact))
    }

    const INSTALLED: Fact = Fact::Installed { who: 1, token: 5 };

    #[test]
    fn effects_between_the_install_and_the_next_one_are_fine() {
        let good = [INSTALLED, Fact::Committed { who: 1, token: 5, tick: 1 }, Fact::Installed { who: 2, token: 9 }];
        assert_eq!(verdict(&good), Ok(()));
    }

    #[test]
    fn an_effect_before_the_install_is_found() {
        assert!(verdict(&[Fact::Committed { who: 1, token: 5, tick: 1 }]).is_err());
    }

    #[test]
    fn an_effect_after_the_next_install_is_found() {
        let late = [INSTALLED, Fact::Installed { who: 2, token: 9 }, Fact::Committed { who: 1, token: 5, tick: 1 }];
        assert!(verdict(&late).expect_err("late").contains("I6"));
    }

    #[test]
    fn a_token_that_goes_back_or_is_shared_is_found() {
        assert!(verdict(&[INSTALLED, Fact::Installed { who: 1, token: 4 }]).is_err());
        assert!(
            verdict(&[INSTALLED, Fact::Installed { who: 2, token: 5 }]).expect_err("shared").contains("one process")
        );
    }
}
