//! What the store's own revisions tell: one holder with its beat in the same revision (I1, I4), tokens that grow (I2), a
//! hand-over onto the very etcd lease that the successor renews (§1.6, T3), and no take-over before its quarantine (I8).
//!
//! I2 holds across a restore by the era, which people raise. Until they do, an agent that never heard of the turns that
//! the restore took away has nothing to compare, and its tokens are those of the copy: the fence refuses them (I6, I12).
//! An agent that knew of them must not act at all.

use super::Check;
use handover_proto::txn::Revision;

use crate::sim::fact::{Fact, Kind, Token, Turn};

/// A taker counts from its own read, which comes after the loss; rounding of its clock is all that can be missing.
const ROUNDING_US: u64 = 5;

/// The store's story so far.
#[derive(Debug, Default)]
pub struct Turns {
    token: Option<Token>,
    /// The last turn that a restore took away.
    taken_away: Option<(Token, Revision)>,
    beat_lost: Option<u64>,
    /// A restore brought back the present turn, whose beat was lost already.
    unseen: bool,
    revision: Revision,
}

impl Turns {
    fn turned(&mut self, at: u64, turn: &Turn) -> Result<(), String> {
        if self.token.is_some_and(|before| before >= turn.token) {
            return Err(format!("token {} follows {:?} (I2)", turn.token, self.token));
        }
        let lost = self.taken_away.filter(|(token, revision)| *token >= turn.token && turn.knew >= *revision);
        if let Some((token, _)) = lost {
            return Err(format!("token {} follows {token}, of which its agent knew (I2, I12)", turn.token));
        }
        (self.token, self.revision) = (Some(turn.token), turn.revision);
        match (turn.holder, turn.beat) {
            (None, None) => {}
            (Some(who), Some((by, revision, lease))) => {
                if by != Some(who) || revision != turn.revision {
                    return Err(format!("the beat of {by:?} in revision {revision} beside holder {who} (I1)"));
                }
                if turn.kind == Kind::HandOver && turn.candidate != Some(lease) {
                    let own = turn.candidate;
                    return Err(format!(
                        "handed over onto lease {lease}, but the successor stands on {own:?} (T3, I4)"
                    ));
                }
            }
            (holder, beat) => return Err(format!("holder {holder:?} beside beat {beat:?} (I1, I4)")),
        }
        let lost = self.beat_lost.take();
        self.unseen = false;
        if turn.kind == Kind::TakeOver {
            let Some(lost) = lost else { return Err("taken over from a holder that beats (I1)".to_owned()) };
            if at + ROUNDING_US < lost + turn.quarantine_us {
                let (waited, due) = ((at - lost) / 1000, turn.quarantine_us / 1000);
                return Err(format!("taken over {waited} ms after the beat was lost, the quarantine is {due} ms (I8)"));
            }
        }
        Ok(())
    }
}

impl Check for Turns {
    fn name(&self) -> &'static str {
        "turns"
    }

    fn see(&mut self, at: u64, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Turned(turn) => self.turned(at, turn),
            Fact::BeatLost { .. } => {
                // Who saw the first loss and nothing of the restore after it cannot know of a second one.
                self.beat_lost = self.beat_lost.filter(|_| self.unseen).or(Some(at));
                Ok(())
            }
            // Whoever beat in the copy beats no more than the copy is old; a loss that the copy knows of stays the loss.
            Fact::Restored { holder, .. } => {
                self.unseen = self.beat_lost.is_some() && *holder == self.revision;
                self.beat_lost = self.beat_lost.filter(|_| self.unseen).or(Some(at));
                let lost = self.token.take().map(|token| (token, self.revision));
                self.taken_away = self.taken_away.max(lost);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// A sound turn, for tests.
#[cfg(test)]
pub(crate) fn turn(revision: i64, holder: Option<usize>, kind: Kind) -> Turn {
    Turn {
        revision,
        token: revision,
        kind,
        holder,
        host: 0,
        beat: holder.map(|who| (Some(who), revision, 7)),
        candidate: Some(7),
        quarantine_us: 1000,
        knew: revision,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(facts: &[(u64, Fact)]) -> Result<(), String> {
        let mut check = Turns::default();
        facts.iter().try_for_each(|(at, fact)| check.see(*at, fact))
    }

    #[test]
    fn a_beat_that_does_not_belong_to_the_holder_is_found() {
        for broken in [
            Turn { beat: None, ..turn(5, Some(1), Kind::Acquire) },
            Turn { beat: Some((Some(2), 5, 7)), ..turn(5, Some(1), Kind::Acquire) },
            Turn { beat: Some((Some(1), 4, 7)), ..turn(5, Some(1), Kind::Acquire) },
            Turn { beat: Some((Some(1), 5, 7)), ..turn(5, None, Kind::Release) },
        ] {
            assert!(verdict(&[(0, Fact::Turned(broken))]).expect_err("broken").contains("I1"), "{broken:?}");
        }
    }

    #[test]
    fn a_token_that_does_not_grow_is_found() {
        let again = turn(6, Some(2), Kind::Acquire);
        let same = Turn { token: 5, ..again };
        assert!(verdict(&[(0, Fact::Turned(turn(5, None, Kind::Release))), (1, Fact::Turned(same))]).is_err());
    }

    #[test]
    fn after_a_restore_a_token_goes_back_only_by_an_agent_that_never_heard_of_the_lost_turn() {
        let restored = (1, Fact::Restored { holder: 5, turn: None });
        let back = |knew| (2, Fact::Turned(Turn { knew, ..turn(6, None, Kind::Release) }));
        let story = |knew| verdict(&[(0, Fact::Turned(turn(9, None, Kind::Release))), restored.clone(), back(knew)]);
        assert_eq!(story(8), Ok(()));
        assert!(story(9).expect_err("it knew").contains("I12"));
    }

    #[test]
    fn a_hand_over_onto_a_lease_that_the_successor_does_not_renew_is_found() {
        let stale = Turn { candidate: Some(8), ..turn(5, Some(1), Kind::HandOver) };
        assert!(verdict(&[(0, Fact::Turned(stale))]).expect_err("stale").contains("T3"));
    }

    #[test]
    fn a_take_over_before_its_quarantine_is_found() {
        let taken = |at| [(100, Fact::BeatLost { revision: 5 }), (at, Fact::Turned(turn(6, Some(2), Kind::TakeOver)))];
        assert_eq!(verdict(&taken(1100)), Ok(()));
        assert!(verdict(&taken(1000)).expect_err("early").contains("I8"));
        assert!(verdict(&taken(1000)[1..]).is_err(), "it beat");
    }

    #[test]
    fn a_loss_that_the_copy_knows_of_counts_from_before_the_restore() {
        let story = |copied| {
            let held = (0, Fact::Turned(turn(5, Some(1), Kind::Acquire)));
            let restored = (1000, Fact::Restored { holder: copied, turn: Some((copied, 1)) });
            let taken = (1100, Fact::Turned(Turn { knew: 0, ..turn(9, Some(2), Kind::TakeOver) }));
            verdict(&[held, (100, Fact::BeatLost { revision: 6 }), restored, taken])
        };
        assert_eq!(story(5), Ok(()));
        assert!(story(3).expect_err("another turn of the copy").contains("I8"));
        let held = (0, Fact::Turned(turn(5, Some(1), Kind::Acquire)));
        let again = [(100, Fact::BeatLost { revision: 6 }), (900, Fact::BeatLost { revision: 8 })];
        let taken = (1200, Fact::Turned(turn(9, Some(2), Kind::TakeOver)));
        let story = [&[held][..], &again[..], &[taken][..]].concat();
        assert!(verdict(&story).expect_err("without a restore the second loss counts").contains("I8"));
    }
}
