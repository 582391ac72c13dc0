//! Checker 1: on the run's one clock, the units of work of two tokens never overlap (I3), and nobody begins a unit under
//! a turn that it has given up (I5).
//!
//! A unit that a pause falls into does not count any more: its process was not executing, and `SAFETY.md` F12 allows it one
//! last step in memory; whether its effect counts is the fence's question.

use std::collections::{BTreeMap, BTreeSet};

use handover_proto::txn::Revision;

use super::Check;
use crate::sim::fact::{Fact, Kind, Token, Who};

/// Who works.
#[derive(Debug, Default)]
pub struct Single {
    working: BTreeMap<Who, Token>,
    given_up: BTreeSet<Token>,
    present: Option<(Token, Option<Who>)>,
    /// The turn that a copy of the store brought back, and its revision.
    copied: Option<(Token, Revision)>,
    /// The last turn that a restore took away.
    lost: Option<Revision>,
    /// Turns begun by agents that never heard of it; whether they count beside it is the fence's question, as in `turns`.
    unaware: BTreeSet<Token>,
}

impl Check for Single {
    fn name(&self) -> &'static str {
        "single"
    }

    fn see(&mut self, _at: u64, fact: &Fact) -> Result<(), String> {
        match fact {
            // As in `turns`: nothing that its agent knows can tell that the turn had ended. The fence refuses the unit.
            Fact::Began { token, knew, .. }
                if self.copied.is_some_and(|(copied, at)| copied == *token && *knew <= at) => {}
            Fact::Began { who, token, .. } => {
                if self.given_up.contains(token) {
                    return Err(format!("process {who} begins a unit under token {token}, which was given up (I5)"));
                }
                let counts = |under: &Token| !self.unaware.contains(under) && !self.unaware.contains(token);
                if let Some((other, under)) = self.working.iter().find(|(other, under)| *other != who && counts(under))
                {
                    return Err(format!(
                        "process {who} begins a unit under token {token} while process {other} works under {under} (I3)"
                    ));
                }
                self.working.insert(*who, *token);
            }
            Fact::Certified { token, .. } => {
                self.given_up.insert(*token);
                if self.working.values().any(|under| under == token) {
                    return Err(format!("token {token} is certified to have stopped, and somebody works under it"));
                }
            }
            Fact::Ended { who } | Fact::Froze { who } => drop(self.working.remove(who)),
            Fact::Turned(turn) => {
                if self.lost.is_some_and(|lost| turn.knew < lost) {
                    self.unaware.insert(turn.token);
                }
                // After a restore the same token may be made again; whether it counts is the fence's question.
                self.given_up.remove(&turn.token);
                let before = self.present.replace((turn.token, turn.holder));
                let Some((token, Some(who))) = before else { return Ok(()) };
                let own = matches!(turn.kind, Kind::HandOver | Kind::Release | Kind::Mint);
                if own {
                    self.given_up.insert(token);
                }
                if own && self.working.get(&who) == Some(&token) {
                    return Err(format!("{:?} ends token {token} while process {who} works under it (I5)", turn.kind));
                }
            }
            // What is ended next is the turn of the copy.
            Fact::Restored { holder, turn } => {
                self.lost = self.lost.max(self.present.map(|(token, _)| token).filter(|token| token > holder));
                self.copied = turn.map(|(token, _)| (token, *holder));
                self.present = turn.map(|(token, who)| (token, Some(who)));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::check::turns::turn;
    use crate::sim::fact::Turn;

    fn began(who: Who, token: Token) -> Fact {
        Fact::Began { who, token, knew: token }
    }

    fn verdict(facts: &[Fact]) -> Result<(), String> {
        let mut check = Single::default();
        facts.iter().try_for_each(|fact| check.see(0, fact))
    }

    #[test]
    fn two_that_work_one_after_the_other_are_fine() {
        let one = [began(1, 5), Fact::Ended { who: 1 }, began(2, 6)];
        assert_eq!(verdict(&one), Ok(()));
    }

    #[test]
    fn two_at_once_are_found() {
        let both = [began(1, 5), began(2, 6)];
        assert!(verdict(&both).expect_err("two at once").contains("I3"));
    }

    #[test]
    fn a_unit_that_was_paused_does_not_count() {
        let paused = [began(1, 5), Fact::Froze { who: 1 }, began(2, 6)];
        assert_eq!(verdict(&paused), Ok(()));
    }

    #[test]
    fn work_under_a_token_that_was_certified_to_have_stopped_is_found() {
        let certified = Fact::Certified { token: 5, dead: false };
        assert!(verdict(&[began(1, 5), certified.clone()]).expect_err("now").contains("certified"));
        assert!(verdict(&[certified, began(1, 5)]).expect_err("later").contains("given up"));
    }

    #[test]
    fn work_in_progress_when_the_turn_is_handed_over_is_found() {
        let turned = |revision, who, kind| Fact::Turned(turn(revision, Some(who), kind));
        let early = [turned(5, 1, Kind::Acquire), began(1, 5), turned(6, 2, Kind::HandOver)];
        assert!(verdict(&early).expect_err("T3 before QUIESCED").contains("I5"));
        let late = [turned(5, 1, Kind::Acquire), turned(6, 2, Kind::HandOver), began(1, 5)];
        assert!(verdict(&late).expect_err("a unit afterwards").contains("given up"));
    }

    #[test]
    fn after_a_restore_it_is_the_turn_of_the_copy_that_ends() {
        let turned = |revision, who, kind| Fact::Turned(turn(revision, who, kind));
        let begin = [turned(5, Some(1), Kind::Acquire), turned(9, Some(2), Kind::HandOver)];
        let works = [began(2, 9), Fact::Restored { holder: 5, turn: Some((5, 1)) }];
        let facts = [&begin[..], &works[..], &[turned(6, None, Kind::Release)]].concat();
        assert_eq!(verdict(&facts), Ok(()), "nobody works under 5");
        let facts = [&begin[..], &works[..1], &[turned(10, None, Kind::Release)]].concat();
        assert!(verdict(&facts).is_err(), "without a restore it was 9");
    }

    #[test]
    fn a_turn_of_a_copy_is_begun_anew_only_by_somebody_who_never_heard_of_a_later_one() {
        let story = |knew| {
            let restored = Fact::Restored { holder: 5, turn: Some((5, 1)) };
            verdict(&[
                began(1, 5),
                Fact::Ended { who: 1 },
                began(2, 9),
                restored,
                Fact::Began { who: 1, token: 5, knew },
            ])
        };
        assert_eq!(story(5), Ok(()), "nothing that it knows can tell; the fence does");
        assert!(story(9).expect_err("it knew").contains("I3"));
    }

    #[test]
    fn beside_a_turn_that_a_restore_took_away_only_who_never_heard_of_it_may_begin() {
        let story = |knew| {
            let turned = Fact::Turned(turn(5, Some(1), Kind::Acquire));
            let restored = Fact::Restored { holder: 0, turn: None };
            let next = Turn { knew, ..turn(6, Some(2), Kind::Acquire) };
            verdict(&[turned, began(1, 5), restored, Fact::Turned(next), began(2, 6)])
        };
        assert_eq!(story(4), Ok(()));
        assert!(story(5).expect_err("it knew").contains("I3"));
    }
}
