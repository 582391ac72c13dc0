//! Checker 8: each operation happened once, turns are dense, what the coordinators wrote into their journal is a whole chain,
//! and whatever they decided was written in their own reign: one that was deposed wrote nothing more.
//!
//! A restore takes writes away, and what comes next follows those that are left. What was lost is not forgotten by whoever
//! worked under it: no agent's service works under a lower token than one that it had before (I2, I12).

use std::collections::BTreeMap;

use serde::Serialize;

use super::Checked;

/// The lower bits of a term.
const REVISION: i64 = (1 << 48) - 1;

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

/// Something that a coordinator decided: an assignment, or a request to the holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// Its key.
    pub what: String,
    /// Its revision.
    pub revision: i64,
    /// Of whose term it says it is.
    pub term: i64,
    /// Who led when it was written: the leader key's create revision.
    pub reign: Option<i64>,
}

/// The service of an agent began to work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Work {
    /// Whose.
    pub agent: String,
    /// Under which token.
    pub token: i64,
}

/// Everything that checker 8 looks at.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Story {
    /// By revision.
    pub turns: Vec<Turn>,
    /// By journal and number.
    pub records: Vec<Record>,
    /// By revision.
    pub decisions: Vec<Decision>,
    /// By time.
    pub works: Vec<Work>,
    /// How many coordinators have led, one after the other.
    pub reigns: usize,
    /// How many turns a restore took away.
    pub lost: usize,
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

/// Walks through all of it.
pub fn check(story: &Story) -> Checked {
    let mut checked = Checked::new("ops");
    checked.need("turns", story.turns.len());
    checked.count("journal records", story.records.len());
    checked.need("decisions of leaders", story.decisions.len());
    checked.count("reigns", story.reigns);
    checked.count("turns that a restore took away", story.lost);
    turns(&story.turns, &mut checked);
    journals(&story.records, &mut checked);
    decisions(&story.decisions, &mut checked);
    works(&story.works, &mut checked);
    checked
}

fn turns(turns: &[Turn], checked: &mut Checked) {
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
}

/// A term is a leader key's create revision, with an era above it.
fn decisions(decisions: &[Decision], checked: &mut Checked) {
    for Decision { what, revision, term, reign } in decisions {
        if *reign != Some(term & REVISION) {
            checked.find(format!("{what} at {revision} was decided in term {term}, while {reign:?} led (E1)"));
        }
    }
}

fn works(works: &[Work], checked: &mut Checked) {
    let mut highest: BTreeMap<&str, i64> = BTreeMap::new();
    for Work { agent, token } in works {
        let before = highest.entry(agent).or_insert(*token);
        if token < before {
            checked.find(format!("the service of {agent} worked under token {token} after {before} (I2, I12)"));
        }
        *before = (*before).max(*token);
    }
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

    fn decision(term: i64, reign: Option<i64>) -> Decision {
        Decision { what: "assigned/a".into(), revision: 20, term, reign }
    }

    fn clean() -> Story {
        Story {
            turns: vec![turn(5, 1, "a"), turn(9, 2, "b"), Turn { era: 1, ..turn(2, 3, "c") }],
            records: vec![record(1, 4), record(2, 4), record(3, 9)],
            decisions: vec![decision(4, Some(4)), decision((1 << 48) | 7, Some(7))],
            works: [("a", 5), ("b", 9), ("a", 5), ("b", 12)]
                .map(|(agent, token)| Work { agent: agent.to_owned(), token })
                .to_vec(),
            reigns: 2,
            lost: 1,
        }
    }

    fn found(spoil: impl Fn(&mut Story)) -> usize {
        let mut story = clean();
        spoil(&mut story);
        check(&story).found.len()
    }

    #[test]
    fn dense_turns_with_growing_tokens_are_clean() {
        assert_eq!(check(&clean()).found, Vec::<String>::new());
    }

    #[test]
    fn an_operation_that_happened_twice_is_found() {
        assert_eq!(found(|story| story.turns[1].op = "a".into()), 1);
    }

    #[test]
    fn a_turn_that_is_missing_and_a_token_that_does_not_grow_are_found() {
        assert_eq!(found(|story| story.turns = vec![turn(5, 1, "a"), turn(9, 3, "b")]), 1);
        assert_eq!(found(|story| story.turns = vec![turn(9, 1, "a"), turn(5, 2, "b")]), 1);
    }

    #[test]
    fn after_an_operators_hand_the_count_begins_anew() {
        let by_hand = Turn { by_operator: true, ..turn(9, 0, "x") };
        assert_eq!(found(|story| story.turns = vec![turn(5, 7, "a"), by_hand.clone(), turn(12, 1, "a")]), 0);
    }

    #[test]
    fn a_hole_in_a_journal_and_a_record_of_a_past_term_are_found() {
        assert_eq!(found(|story| story.records[1].seq = 3), 2, "a hole, and then a repeat");
        assert_eq!(found(|story| story.records[2].term = 3), 1);
    }

    #[test]
    fn what_a_stale_coordinator_wrote_in_anothers_reign_is_found() {
        assert_eq!(found(|story| story.decisions.push(decision(4, Some(9)))), 1);
        assert_eq!(found(|story| story.decisions.push(decision(4, None))), 1, "nobody led");
    }

    #[test]
    fn a_service_that_works_under_a_token_below_one_that_it_had_is_found() {
        assert_eq!(found(|story| story.works.push(Work { agent: "b".into(), token: 11 })), 1);
        assert_eq!(found(|story| story.works.push(Work { agent: "c".into(), token: 3 })), 0, "it never heard of more");
    }

    #[test]
    fn no_turn_and_no_decision_prove_nothing() {
        assert_eq!(check(&Story::default()).found.len(), 2);
    }
}
