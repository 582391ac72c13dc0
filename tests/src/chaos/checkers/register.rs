//! Checker 4: holder key and beat are one linearizable register. Every transaction on them (from the watch), every read
//! through every member (from probes that call and note when), and what the agents were answered, must fit one order.
//!
//! Beside the search ([`super::search`]) it holds the agents' answers against what is written: one that was told
//! *committed* is there at that revision; one that was told *refused* is nowhere. And I1: a beat never stands beside
//! another turn than its own.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Checked;
use super::search::{Answer, Call, Op, search};
use crate::clock::BootNs;

/// Steps of the search. A clean run of 20 s takes as many as it has writes; this many take a few seconds.
pub const LIMIT: usize = 20_000;

/// Mod revisions of both keys; 0: absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
pub struct Keys {
    /// Of the holder key.
    pub holder: i64,
    /// Of the beat.
    pub beat: i64,
}

/// One revision that touched them, as the watch brought it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Written {
    /// The revision.
    pub revision: i64,
    /// When it was heard of: not after this it happened.
    pub heard: BootNs,
    /// Both keys after it.
    pub keys: Keys,
    /// The operation's id in the holder key, if the revision wrote that.
    pub op: Option<String>,
    /// Written or deleted by an operator's hand (N8): the protocol answers for nothing here.
    pub by_operator: bool,
}

/// One linearizable read of both keys through one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Read {
    /// The member.
    pub member: usize,
    /// When it was sent.
    pub invoke: BootNs,
    /// When its answer came.
    pub ret: BootNs,
    /// What it saw.
    pub keys: Keys,
}

/// What an agent was answered to a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claim {
    /// The operation's id.
    pub op: String,
    /// When it was sent.
    pub invoke: BootNs,
    /// What it was told.
    pub told: Told,
}

/// An agent's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Told {
    /// Committed in this revision.
    Committed(i64),
    /// A comparison failed; nothing was written.
    Refused,
    /// No answer.
    Open,
}

/// Everything that checker 4 looks at.
#[derive(Debug, Clone, Default)]
pub struct Register {
    /// By revision.
    pub written: Vec<Written>,
    /// In any order.
    pub reads: Vec<Read>,
    /// In any order.
    pub claims: Vec<Claim>,
    /// Revisions that the watch could not be told of any more: the history has a hole.
    pub missed: bool,
}

/// Holds everything against everything. The keys begin as `start`.
pub fn check(register: &Register, start: Keys, limit: usize) -> Checked {
    let mut checked = Checked::new("register");
    checked.need("revisions", register.written.len());
    checked.need("reads", register.reads.len());
    checked.count("answers", register.claims.len());
    if register.missed {
        checked.find("the watch missed revisions: the history has a hole".to_owned());
    }
    own_beat(register, &mut checked);
    answers(register, &mut checked);
    match search(&ops(register), start, limit) {
        Answer::Linearizable => {}
        Answer::Violated(op) => checked.find(format!("no order explains {op:?}")),
        Answer::Undecided(steps) => checked.find(format!("undecided after {steps} steps, which counts as a failure")),
    }
    checked
}

fn own_beat(register: &Register, checked: &mut Checked) {
    // Of an operator's doing nothing follows, until the next turn of the protocol's own.
    let mut spoilt = false;
    for written in &register.written {
        spoilt = (spoilt && written.op.is_none()) || written.by_operator;
        let Keys { holder, beat } = written.keys;
        if !spoilt && beat != 0 && beat != holder {
            checked.find(format!("revision {}: the beat of {beat} beside the turn {holder}", written.revision));
        }
    }
    for pair in register.written.windows(2).filter(|pair| pair[1].revision <= pair[0].revision) {
        checked.find(format!("revision {} after {}", pair[1].revision, pair[0].revision));
    }
}

fn answers(register: &Register, checked: &mut Checked) {
    // An operator's hand may make the same operation happen again; that is another checker's question.
    let mut by_op: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for written in &register.written {
        if let Some(op) = &written.op {
            by_op.entry(op).or_default().push(written.revision);
        }
    }
    for Claim { op, told, .. } in &register.claims {
        let at = by_op.get(op.as_str()).map(Vec::as_slice).unwrap_or_default();
        match told {
            Told::Committed(told) if !at.contains(told) => {
                checked.find(format!("{op} was said to be committed at {told}, and is written at {at:?}"));
            }
            // Another agent may have done under the same intent what this one could not.
            Told::Refused if at.iter().any(|at| !somebody_did(register, op, *at)) => {
                checked.find(format!("{op} was refused, and is written at {at:?}"));
            }
            Told::Committed(_) | Told::Refused | Told::Open => {}
        }
    }
}

fn somebody_did(register: &Register, op: &str, at: i64) -> bool {
    register.claims.iter().any(|claim| claim.op == op && claim.told == Told::Committed(at))
}

fn ops(register: &Register) -> Vec<Op<Keys>> {
    let sent: BTreeMap<&str, BootNs> = register.claims.iter().map(|claim| (claim.op.as_str(), claim.invoke)).collect();
    let write = |written: &Written| Op {
        invoke: written.op.as_deref().and_then(|op| sent.get(op).copied()).unwrap_or_default(),
        ret: Some(written.heard),
        call: Call::Write { expect: None, to: written.keys },
    };
    let read = |read: &Read| Op { invoke: read.invoke, ret: Some(read.ret), call: Call::Read(read.keys) };
    register.written.iter().map(write).chain(register.reads.iter().map(read)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::ms;
    use super::*;

    fn keys(holder: i64, beat: i64) -> Keys {
        Keys { holder, beat }
    }

    fn written(revision: i64, heard: u64, keys: Keys, op: Option<&str>) -> Written {
        Written { revision, heard: ms(heard), keys, op: op.map(str::to_owned), by_operator: false }
    }

    fn read(invoke: u64, keys: Keys) -> Read {
        Read { member: 0, invoke: ms(invoke), ret: ms(invoke + 5), keys }
    }

    fn claim(op: &str, told: Told) -> Claim {
        Claim { op: op.to_owned(), invoke: ms(90), told }
    }

    /// A acquires at 5, hands over to B at 9, B's lease expires at 12.
    fn clean() -> Register {
        Register {
            written: vec![
                written(5, 100, keys(5, 5), Some("a")),
                written(9, 200, keys(9, 9), Some("b")),
                written(12, 300, keys(9, 0), None),
            ],
            reads: vec![read(50, keys(0, 0)), read(150, keys(5, 5)), read(250, keys(9, 9)), read(350, keys(9, 0))],
            claims: vec![
                claim("a", Told::Committed(5)),
                claim("b", Told::Open),
                claim("c", Told::Refused),
                claim("d", Told::Open),
            ],
            missed: false,
        }
    }

    fn found(spoil: impl Fn(&mut Register)) -> Vec<String> {
        let mut register = clean();
        spoil(&mut register);
        check(&register, Keys::default(), LIMIT).found
    }

    #[test]
    fn turns_reads_and_answers_that_fit_are_clean() {
        assert_eq!(found(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn a_stale_read_through_one_member_is_found() {
        assert_eq!(found(|register| register.reads.push(read(320, keys(5, 5)))).len(), 1);
    }

    #[test]
    fn a_read_of_holder_and_beat_that_never_stood_together_is_found() {
        assert_eq!(found(|register| register.reads.push(read(190, keys(5, 9)))).len(), 1);
    }

    #[test]
    fn a_commit_that_is_lost_and_a_refusal_that_happened_are_found() {
        assert_eq!(found(|register| register.claims.push(claim("x", Told::Committed(7)))).len(), 1);
        assert_eq!(found(|register| register.claims[1].told = Told::Refused).len(), 1);
        let by_another = |register: &mut Register| {
            register.claims[1].told = Told::Refused;
            register.claims.push(claim("b", Told::Committed(9)));
        };
        assert_eq!(found(by_another).len(), 0);
        assert_eq!(found(|register| register.claims[0].told = Told::Committed(6)).len(), 1);
    }

    #[test]
    fn a_beat_beside_another_turn_is_found_unless_an_operator_made_it() {
        let spoil = |by_operator| {
            move |register: &mut Register| {
                let mut bad = written(10, 220, keys(9, 5), None);
                bad.by_operator = by_operator;
                register.written.insert(2, bad);
                register.reads.retain(|read| read.invoke < ms(200));
            }
        };
        assert_eq!(found(spoil(false)).len(), 1);
        assert_eq!(found(spoil(true)).len(), 0);
    }

    #[test]
    fn a_hole_in_the_history_an_empty_one_and_an_unfinished_search_prove_nothing() {
        assert_eq!(found(|register| register.missed = true).len(), 1);
        assert_eq!(check(&Register::default(), Keys::default(), LIMIT).found.len(), 2);
        assert!(check(&clean(), Keys::default(), 1).found[0].contains("undecided"));
    }
}
