//! Checker 4: everything that was asked of the holder key, with the moments at which it was asked and answered, fits one
//! order in which each write was made on top of the turn that it compared with (WGL: Wing and Gong's search, as Lowe made
//! it fast). What nobody knows the outcome of may be in the order at any later place, or not at all.

use std::collections::BTreeMap;

use handover_proto::txn::Revision;

use super::Check;
use crate::sim::fact::{Fact, Returned};

/// Steps of the search; a history that takes more is a failure of the checker, not of the run, and says so.
const MAX_STEPS: u32 = 200_000;

/// One operation: asked and answered at these positions of the history.
#[derive(Debug, Clone, Copy)]
struct Asked {
    begun: usize,
    /// Of the answer; none: it may still happen.
    ended: Option<usize>,
    what: What,
}

#[derive(Debug, Clone, Copy)]
enum What {
    Read(Revision),
    Write { on: Revision, gives: Revision },
}

/// The history.
#[derive(Debug, Default)]
pub struct Register {
    position: usize,
    open: BTreeMap<u64, (usize, Option<Revision>)>,
    /// The revision that a write of unknown outcome made, if it was carried out.
    did: BTreeMap<u64, Revision>,
    asked: Vec<Asked>,
    /// The turn at its beginning.
    first: Revision,
    /// Where it began, after a restore: what was asked before may have been answered by the store that was.
    began: usize,
}

impl Register {
    fn answered(&mut self, id: u64, returned: Returned) {
        let Some((begun, on)) = self.open.remove(&id) else { return };
        let ended = Some(self.position);
        match (returned, on) {
            (Returned::Read(_), _) if begun < self.began => {}
            (Returned::Read(revision), _) => self.asked.push(Asked { begun, ended, what: What::Read(revision) }),
            (Returned::Wrote(gives), Some(on)) => {
                self.asked.push(Asked { begun, ended, what: What::Write { on, gives } });
            }
            (Returned::Unknown, Some(_)) => drop(self.open.insert(id, (begun, on))),
            (Returned::Wrote(_) | Returned::Unknown, None) | (Returned::Nothing, _) => {}
        }
    }

    /// Whether the history up to here has an order; then begins anew.
    fn judge(&mut self) -> Result<(), String> {
        let mut asked = std::mem::take(&mut self.asked);
        for (id, (begun, on)) in std::mem::take(&mut self.open) {
            if let (Some(on), Some(gives)) = (on, self.did.get(&id)) {
                asked.push(Asked { begun, ended: None, what: What::Write { on, gives: *gives } });
            }
        }
        self.did.clear();
        asked.sort_by_key(|one| one.begun);
        let mut steps = 0;
        let mut done = vec![false; asked.len()];
        match search(&asked, &mut done, self.first, &mut steps) {
            true => Ok(()),
            false if steps > MAX_STEPS => Err(format!("undecided after {MAX_STEPS} steps")),
            false => Err(format!("no order explains what was asked of the holder key: {asked:?}")),
        }
    }
}

/// Whether the rest of `asked` has an order that begins with the key at `value`.
fn search(asked: &[Asked], done: &mut [bool], value: Revision, steps: &mut u32) -> bool {
    *steps += 1;
    if *steps > MAX_STEPS {
        return false;
    }
    // Nothing that begins after the first open answer can come before it.
    let frontier = |done: &[bool]| {
        let open = asked.iter().zip(done.iter()).filter(|(_, done)| !**done);
        open.filter_map(|(one, _)| one.ended).min()
    };
    let mut read = Vec::new();
    // A read of the present value changes nothing, so that it may always go first.
    while let Some(first) = frontier(done) {
        let next = asked.iter().enumerate().find(|(index, one)| {
            !done[*index] && one.begun < first && matches!(one.what, What::Read(seen) if seen == value)
        });
        let Some((index, _)) = next else { break };
        done[index] = true;
        read.push(index);
    }
    let Some(first) = frontier(done) else { return true };
    for (index, one) in asked.iter().enumerate().take_while(|(_, one)| one.begun < first) {
        let What::Write { on, gives } = one.what else { continue };
        if done[index] || on != value {
            continue;
        }
        done[index] = true;
        if search(asked, done, gives, steps) {
            return true;
        }
        done[index] = false;
    }
    read.into_iter().for_each(|index| done[index] = false);
    false
}

impl Check for Register {
    fn name(&self) -> &'static str {
        "register"
    }

    fn see(&mut self, _at: u64, fact: &Fact) -> Result<(), String> {
        match fact {
            Fact::Asks { id, on } => drop(self.open.insert(*id, (self.position, *on))),
            Fact::Did { id, revision } => drop(self.did.insert(*id, *revision)),
            Fact::Hears { id, returned } => self.answered(*id, *returned),
            Fact::Restored { holder, .. } => {
                // A write that has not reached the store yet may still be carried out, on what was restored. What was done
                // before is gone, and what is read or heard of it tells of the store that was.
                let on_its_way =
                    |id: &u64, asked: &(usize, Option<Revision>)| asked.1.is_some() && !self.did.contains_key(id);
                let kept =
                    self.open.iter().filter(|(id, asked)| on_its_way(id, asked)).map(|(id, asked)| (*id, *asked));
                let kept = kept.collect();
                self.judge()?;
                (self.open, self.first, self.began) = (kept, *holder, self.position);
            }
            _ => return Ok(()),
        }
        self.position += 1;
        Ok(())
    }

    fn end(&mut self, _at: u64) -> Result<(), String> {
        self.judge()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(facts: &[Fact]) -> Result<(), String> {
        let mut check = Register::default();
        facts.iter().try_for_each(|fact| check.see(0, fact))?;
        check.end(0)
    }

    fn asks(id: u64, on: Option<Revision>) -> Fact {
        Fact::Asks { id, on }
    }

    fn hears(id: u64, returned: Returned) -> Fact {
        Fact::Hears { id, returned }
    }

    #[test]
    fn a_write_is_seen_by_whoever_asks_later() {
        let good = [
            asks(1, Some(0)),
            asks(2, None),
            hears(1, Returned::Wrote(5)),
            hears(2, Returned::Read(0)),
            asks(3, None),
            hears(3, Returned::Read(5)),
        ];
        assert_eq!(verdict(&good), Ok(()));
    }

    #[test]
    fn a_stale_read_is_found() {
        let stale = [asks(1, Some(0)), hears(1, Returned::Wrote(5)), asks(2, None), hears(2, Returned::Read(0))];
        assert!(verdict(&stale).expect_err("stale").contains("no order"));
    }

    #[test]
    fn two_writes_on_top_of_the_same_turn_are_found() {
        let both = [asks(1, Some(0)), asks(2, Some(0)), hears(1, Returned::Wrote(5)), hears(2, Returned::Wrote(6))];
        assert!(verdict(&both).is_err());
    }

    #[test]
    fn a_write_without_an_answer_may_have_happened_late_or_never() {
        let did = Fact::Did { id: 1, revision: 5 };
        let late = [asks(1, Some(0)), hears(1, Returned::Unknown), asks(2, None), hears(2, Returned::Read(0)), did];
        let mut seen = late.to_vec();
        seen.extend([asks(3, None), hears(3, Returned::Read(5))]);
        assert_eq!(verdict(&seen), Ok(()));
        assert_eq!(verdict(&late), Ok(()));
    }

    #[test]
    fn a_write_on_its_way_when_the_store_is_restored_counts_after_it_and_one_that_was_done_does_not() {
        let restored = || Fact::Restored { holder: 0, turn: None };
        let did = |id| Fact::Did { id, revision: 5 };
        let on_its_way = [
            asks(1, Some(0)),
            restored(),
            did(1),
            hears(1, Returned::Wrote(5)),
            asks(2, None),
            hears(2, Returned::Read(5)),
        ];
        assert_eq!(verdict(&on_its_way), Ok(()));
        let done = [
            asks(1, Some(0)),
            did(1),
            restored(),
            hears(1, Returned::Wrote(5)),
            asks(2, None),
            hears(2, Returned::Read(0)),
        ];
        assert_eq!(verdict(&done), Ok(()));
        let lost = [
            asks(1, Some(0)),
            restored(),
            did(1),
            hears(1, Returned::Wrote(5)),
            asks(2, None),
            hears(2, Returned::Read(0)),
        ];
        assert!(verdict(&lost).is_err(), "a write done after the restore must be seen");
    }

    #[test]
    fn what_a_write_read_before_the_restore_is_not_held_against_the_store_after_it() {
        let restored = Fact::Restored { holder: 0, turn: None };
        let before =
            [asks(1, Some(5)), restored, asks(2, None), hears(2, Returned::Read(0)), hears(1, Returned::Read(9))];
        assert_eq!(verdict(&before), Ok(()));
        assert!(verdict(&[&before[1..4], &[asks(1, Some(5)), before[4].clone()]].concat()).is_err(), "asked after it");
    }

    #[test]
    fn a_write_that_was_said_not_to_have_happened_and_did_is_found() {
        let lie = [asks(1, Some(0)), hears(1, Returned::Nothing), asks(2, None), hears(2, Returned::Read(5))];
        assert!(verdict(&lie).is_err());
    }
}
