//! Weighted choice among upstreams: smooth weighted round robin. Pure and deterministic.
//!
//! Each pick adds every upstream's weight to its credit, takes the one with the most credit and subtracts the total from it.
//! Over any run of `total weight` picks the split is exact, and picks of one upstream are spread evenly in between.

/// One upstream's place in the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    key: u64,
    weight: u32,
    credit: i64,
}

/// The choice for one class of requests. Holds only those that may be chosen: ready, and with a weight above 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Balance {
    shares: Vec<Share>,
}

impl Balance {
    /// Replaces the candidates, given as (key, weight). The same candidates with the same weights keep their credit, so
    /// that a state that is sent again does not disturb the split; any difference starts afresh, because credit earned
    /// under old weights could starve an upstream under new ones.
    pub fn set(&mut self, candidates: &[(u64, u32)]) {
        let wanted = || candidates.iter().filter(|(_, weight)| *weight > 0);
        let same = wanted().count() == self.shares.len()
            && wanted().zip(&self.shares).all(|((key, weight), share)| *key == share.key && *weight == share.weight);
        if !same {
            self.shares = wanted().map(|(key, weight)| Share { key: *key, weight: *weight, credit: 0 }).collect();
        }
    }

    /// The next upstream of those that `may` be taken; none if there is none.
    pub fn pick(&mut self, may: impl Fn(u64) -> bool) -> Option<u64> {
        let mut total = 0_i64;
        let mut best: Option<usize> = None;
        for index in 0..self.shares.len() {
            let share = &mut self.shares[index];
            if !may(share.key) {
                continue;
            }
            total += i64::from(share.weight);
            share.credit += i64::from(share.weight);
            let credit = share.credit;
            // On equal credit the earlier one wins, which makes the choice deterministic.
            if best.is_none_or(|b| credit > self.shares[b].credit) {
                best = Some(index);
            }
        }
        let chosen = &mut self.shares[best?];
        chosen.credit -= total;
        Some(chosen.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn split(balance: &mut Balance, picks: usize) -> BTreeMap<u64, usize> {
        let mut counts = BTreeMap::new();
        for _ in 0..picks {
            *counts.entry(balance.pick(|_| true).expect("a candidate")).or_default() += 1;
        }
        counts
    }

    #[test]
    fn ten_thousand_picks_split_exactly_by_weight() {
        let mut balance = Balance::default();
        balance.set(&[(1, 75), (2, 25)]);
        assert_eq!(split(&mut balance, 10_000), BTreeMap::from([(1, 7500), (2, 2500)]));
    }

    #[test]
    fn one_in_a_hundred_is_spread_and_not_sent_in_a_row() {
        let mut balance = Balance::default();
        balance.set(&[(1, 99), (2, 1)]);
        let picks: Vec<u64> = (0..300).filter_map(|_| balance.pick(|_| true)).collect();
        for hundred in picks.chunks(100) {
            assert_eq!(hundred.iter().filter(|key| **key == 2).count(), 1);
        }
    }

    #[test]
    fn a_weight_of_zero_is_never_picked_and_nobody_left_is_none() {
        let mut balance = Balance::default();
        balance.set(&[(1, 0), (2, 5)]);
        assert_eq!(split(&mut balance, 100), BTreeMap::from([(2, 100)]));
        assert_eq!(balance.pick(|key| key != 2), None);
        balance.set(&[(1, 0)]);
        assert_eq!(balance.pick(|_| true), None);
    }

    #[test]
    fn the_same_state_sent_again_before_every_pick_does_not_disturb_the_split() {
        let mut balance = Balance::default();
        let mut counts = BTreeMap::<u64, usize>::new();
        for _ in 0..1000 {
            balance.set(&[(1, 75), (2, 25)]);
            *counts.entry(balance.pick(|_| true).expect("a candidate")).or_default() += 1;
        }
        assert_eq!(counts, BTreeMap::from([(1, 750), (2, 250)]));
    }

    #[test]
    fn the_largest_weights_do_not_overflow() {
        let mut balance = Balance::default();
        balance.set(&[(1, u32::MAX), (2, u32::MAX), (3, 1)]);
        let counts = split(&mut balance, 1000);
        assert_eq!(counts.get(&1), Some(&500));
        assert_eq!(counts.get(&2), Some(&500));
    }
}
