//! A search for a linearization (Wing, Gong and Lowe): is there an order of all operations that a single register could
//! have gone through, in which each lies between its call and its answer? Bounded: a search that is not finished proves
//! nothing, and says so.
//!
//! Two things make it quick. A read that fits the state now is taken now: it changes nothing, so taking it early never
//! spoils an order. And what was explored is remembered as (operations done, state).

use std::collections::HashSet;
use std::hash::Hash;

use crate::clock::BootNs;

/// What an operation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call<S> {
    /// It saw this.
    Read(S),
    /// It made the register this, and if it compared, found it like that before.
    Write {
        /// What it compared with, if that is known.
        expect: Option<S>,
        /// What it left.
        to: S,
    },
}

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op<S> {
    /// Not before this.
    pub invoke: BootNs,
    /// Not after this; `None`: its outcome is open, it may happen at any time or never.
    pub ret: Option<BootNs>,
    /// What it did.
    pub call: Call<S>,
}

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<S> {
    /// There is such an order.
    Linearizable,
    /// There is none. The operation is the one that the longest attempt could not place.
    Violated(Op<S>),
    /// Given up after so many steps.
    Undecided(usize),
}

struct Search<'a, S> {
    ops: &'a [Op<S>],
    done: Vec<bool>,
    left: usize,
    seen: HashSet<(Vec<u64>, S)>,
    steps: usize,
    limit: usize,
    /// The fewest operations that were ever left, with the one that had to come next.
    best: (usize, Option<Op<S>>),
}

/// Searches, at most `limit` steps. The register begins as `start`.
pub fn search<S: Copy + Eq + Hash>(ops: &[Op<S>], start: S, limit: usize) -> Answer<S> {
    let mut sorted = ops.to_vec();
    // Writes whose beginning is unknown are tried in the order in which they were known to be over.
    sorted.sort_by_key(|op| (op.invoke, op.ret.unwrap_or(BootNs(u64::MAX))));
    let left = sorted.iter().filter(|op| op.ret.is_some()).count();
    let mut search = Search {
        done: vec![false; sorted.len()],
        ops: &sorted,
        left,
        seen: HashSet::new(),
        steps: 0,
        limit,
        best: (usize::MAX, None),
    };
    match search.explore(start) {
        Some(true) => Answer::Linearizable,
        None => Answer::Undecided(limit),
        Some(false) => search.best.1.map_or(Answer::Linearizable, Answer::Violated),
    }
}

impl<S: Copy + Eq + Hash> Search<'_, S> {
    /// Whether all that is left can be ordered from here; `None`: out of steps.
    fn explore(&mut self, state: S) -> Option<bool> {
        let taken = self.take_reads(state);
        let found = self.branch(state);
        if found != Some(true) {
            for index in taken {
                self.undo(index);
            }
        }
        found
    }

    fn branch(&mut self, state: S) -> Option<bool> {
        if self.left == 0 {
            return Some(true);
        }
        self.steps += 1;
        if self.steps > self.limit {
            return None;
        }
        let first = self.earliest_return();
        if self.left < self.best.0 {
            self.best = (self.left, first.map(|index| self.ops[index]));
        }
        if !self.seen.insert((self.bits(), state)) {
            return Some(false);
        }
        for index in self.candidates() {
            let Call::Write { expect, to } = self.ops[index].call else { continue };
            if expect.is_some_and(|expect| expect != state) {
                continue;
            }
            self.set(index);
            match self.explore(to) {
                Some(false) => self.undo(index),
                other => return other,
            }
        }
        Some(false)
    }

    /// Takes every read that fits, until none does.
    fn take_reads(&mut self, state: S) -> Vec<usize> {
        let mut taken = Vec::new();
        loop {
            let fits = |index: &usize| self.ops[*index].call == Call::Read(state);
            let fitting: Vec<usize> = self.candidates().into_iter().filter(fits).collect();
            if fitting.is_empty() {
                return taken;
            }
            for index in fitting {
                self.set(index);
                taken.push(index);
            }
        }
    }

    /// What may come next: called before any that is left has returned.
    fn candidates(&self) -> Vec<usize> {
        let until = self.earliest_return().and_then(|index| self.ops[index].ret).unwrap_or(BootNs(u64::MAX));
        let called = self.ops.iter().enumerate().take_while(|(_, op)| op.invoke <= until);
        called.filter(|(index, _)| !self.done[*index]).map(|(index, _)| index).collect()
    }

    fn earliest_return(&self) -> Option<usize> {
        let open = self.ops.iter().enumerate().filter(|(index, op)| !self.done[*index] && op.ret.is_some());
        open.min_by_key(|(_, op)| op.ret).map(|(index, _)| index)
    }

    fn set(&mut self, index: usize) {
        self.done[index] = true;
        self.left -= usize::from(self.ops[index].ret.is_some());
    }

    fn undo(&mut self, index: usize) {
        self.done[index] = false;
        self.left += usize::from(self.ops[index].ret.is_some());
    }

    fn bits(&self) -> Vec<u64> {
        let word = |word: &[bool]| word.iter().rev().fold(0, |bits, done| bits << 1 | u64::from(*done));
        self.done.chunks(64).map(word).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::ms;
    use super::*;

    fn read(invoke: u64, ret: u64, value: i64) -> Op<i64> {
        Op { invoke: ms(invoke), ret: Some(ms(ret)), call: Call::Read(value) }
    }

    fn write(invoke: u64, ret: u64, expect: Option<i64>, to: i64) -> Op<i64> {
        Op { invoke: ms(invoke), ret: Some(ms(ret)), call: Call::Write { expect, to } }
    }

    fn answer(ops: &[Op<i64>]) -> Answer<i64> {
        search(ops, 0, 100_000)
    }

    #[test]
    fn reads_around_a_write_may_see_either_and_later_ones_only_the_new() {
        let ops = [write(10, 30, None, 1), read(15, 20, 0), read(16, 21, 1), read(40, 50, 1)];
        assert_eq!(answer(&ops), Answer::Linearizable);
    }

    #[test]
    fn a_stale_read_is_found_and_named() {
        let stale = read(40, 50, 0);
        assert_eq!(answer(&[write(10, 30, None, 1), read(31, 39, 1), stale]), Answer::Violated(stale));
    }

    #[test]
    fn two_compares_with_the_same_value_cannot_both_succeed() {
        let ops = [write(0, 10, Some(0), 1), write(0, 10, Some(0), 2)];
        assert!(matches!(answer(&ops), Answer::Violated(_)));
        let ops = [write(0, 10, Some(0), 1), write(0, 10, Some(1), 2)];
        assert_eq!(answer(&ops), Answer::Linearizable);
    }

    #[test]
    fn an_open_outcome_may_have_happened_or_not() {
        let open = Op { invoke: ms(10), ret: None, call: Call::Write { expect: Some(0), to: 1 } };
        assert_eq!(answer(&[open, read(20, 30, 0)]), Answer::Linearizable);
        assert_eq!(answer(&[open, read(20, 30, 1)]), Answer::Linearizable);
        assert!(matches!(answer(&[open, read(20, 30, 1), read(40, 50, 0)]), Answer::Violated(_)));
    }

    #[test]
    fn a_value_that_goes_back_is_found() {
        let ops = [write(0, 5, None, 1), write(10, 15, None, 2), read(20, 21, 2), read(22, 23, 1)];
        assert!(matches!(answer(&ops), Answer::Violated(_)));
    }

    #[test]
    fn a_search_that_is_not_finished_says_so() {
        let ops: Vec<_> = (1..20).map(|n| write(0, 1000, None, n)).chain([read(2000, 2001, 99)]).collect();
        assert_eq!(search(&ops, 0, 500), Answer::Undecided(500));
    }

    #[test]
    fn hundreds_of_reads_between_writes_of_unknown_beginning_take_few_steps() {
        let writes =
            (1..=50).map(|n| Op { invoke: ms(0), ..write(0, n * 100, None, i64::try_from(n).expect("small")) });
        let reads = (1..5000).map(|n| read(n, n + 1, i64::try_from(n / 100).expect("small")));
        let ops: Vec<_> = writes.chain(reads).collect();
        assert_eq!(answer(&ops), Answer::Linearizable);
    }
}
