//! Checker 8: each operation happened once, turns are dense, and what the coordinators wrote into their journal is a
//! whole chain that ends in what is there.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Checked;

/// One write of the holder key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Turn {
    /// Its revision.
    pub revision: i64,
    /// The operation's id.
    pub op: String,
    /// The dense count.
    pub turn: u64,
    /// The era.
    pub era: u16,
    /// Whose it was, held or last held.
    pub owner: String,
    /// Held, or free.
    pub held: bool,
    /// Written by an operator's hand (N8): what comes next begins anew.
    pub by_operator: bool,
}

/// One record of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Which journal.
    pub journal: String,
    /// Its number, from 1.
    pub seq: u64,
    /// Of whose term.
    pub term: i64,
    /// What it is, for people.
    pub what: String,
}

/// Walks through turns, by revision, and records, by journal and number.
pub fn check(turns: &[Turn], records: &[Record]) -> Checked {
    let mut checked = Checked::new("ops");
    checked.need("turns", turns.len());
    checked.count("journal records", records.len());
    let mut done: BTreeMap<&str, i64> = BTreeMap::new();
    for turn in turns {
        if turn.by_operator {
            // What a hand deleted may be done again.
            done.clear();
        }
        if let Some(before) = done.insert(&turn.op, turn.revision) {
            checked.find(format!("operation {} happened at revision {before} and again at {}", turn.op, turn.revision));
        }
    }
    for pair in turns.windows(2).filter(|pair| !pair[0].by_operator && !pair[1].by_operator) {
        let [before, after] = pair else { continue };
        if after.turn != before.turn + 1 {
            checked.find(format!("turn {} follows turn {} at revision {}", after.turn, before.turn, after.revision));
        }
        if (after.era, after.revision) <= (before.era, before.revision) {
            checked.find(format!("turn {}: its token is not above the one before (I2)", after.turn));
        }
    }
    journals(records, &mut checked);
    checked
}

/// Numbers without a hole, terms that never go back: a deposed coordinator wrote nothing more.
fn journals(records: &[Record], checked: &mut Checked) {
    let mut last: BTreeMap<&str, &Record> = BTreeMap::new();
    for record in records {
        let before = last.insert(&record.journal, record);
        let expected = before.map_or(1, |before| before.seq + 1);
        if record.seq != expected {
            checked.find(format!("journal {}: record {} where {expected} belongs", record.journal, record.seq));
        }
        if before.is_some_and(|before| record.term < before.term) {
            checked.find(format!("journal {}: record {} is of a term that was over", record.journal, record.seq));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(revision: i64, turn: u64, op: &str) -> Turn {
        Turn { revision, op: op.into(), turn, era: 0, owner: "a".into(), held: true, by_operator: false }
    }

    fn record(seq: u64, term: i64) -> Record {
        Record { journal: "r".into(), seq, term, what: "x".into() }
    }

    #[test]
    fn dense_turns_with_growing_tokens_are_clean() {
        let turns = [turn(5, 1, "a"), turn(9, 2, "b"), Turn { era: 1, ..turn(2, 3, "c") }];
        assert_eq!(check(&turns, &[record(1, 4), record(2, 4), record(3, 9)]).found, Vec::<String>::new());
    }

    #[test]
    fn an_operation_that_happened_twice_is_found() {
        assert_eq!(check(&[turn(5, 1, "a"), turn(9, 2, "a")], &[]).found.len(), 1);
    }

    #[test]
    fn a_turn_that_is_missing_and_a_token_that_does_not_grow_are_found() {
        assert_eq!(check(&[turn(5, 1, "a"), turn(9, 3, "b")], &[]).found.len(), 1);
        assert_eq!(check(&[turn(9, 1, "a"), turn(5, 2, "b")], &[]).found.len(), 1);
    }

    #[test]
    fn after_an_operators_hand_the_count_begins_anew() {
        let by_hand = Turn { by_operator: true, ..turn(9, 0, "x") };
        assert_eq!(check(&[turn(5, 7, "a"), by_hand, turn(12, 1, "a")], &[]).found.len(), 0);
    }

    #[test]
    fn a_hole_in_a_journal_and_a_record_of_a_past_term_are_found() {
        assert_eq!(check(&[turn(5, 1, "a")], &[record(1, 4), record(3, 4)]).found.len(), 1);
        assert_eq!(check(&[turn(5, 1, "a")], &[record(1, 4), record(2, 3)]).found.len(), 1);
    }

    #[test]
    fn no_turn_proves_nothing() {
        assert_eq!(check(&[], &[]).found.len(), 1);
    }
}
