//! The model's transactions are handover-proto's: on random runs, the real ones are built at the same moments, arrive at the
//! same moments at a store that carries out plain transactions, and do the same, whatever has happened meanwhile.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

mod mirror;

use handover_model::configs;
use handover_model::rules::{Rules, Step};
use handover_model::tale;
use mirror::Mirror;
use stateright::Model;

/// Runs of each configuration, and steps of each run.
const RUNS: u64 = 40;
const STEPS: usize = 150;

/// Numbers that are the same in every test run (xorshift, Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

fn is_weighty(step: Step) -> bool {
    let sends = matches!(step, Step::Take(_) | Step::HandOver(_) | Step::Mint(_) | Step::Deliver(..));
    sends || matches!(step, Step::Grant(..) | Step::Stand(_) | Step::Renew(..) | Step::Barrier(..) | Step::Quiesce(_))
}

fn run(rules: &Rules, seed: u64, sum: &mut Mirror) {
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut state = rules.init_states().pop().expect("a beginning");
    let mut mirror = Mirror::new(&state);
    let mut steps = Vec::new();
    for _ in 0..STEPS {
        let mut next = rules.next_steps(&state);
        if next.is_empty() {
            break;
        }
        // What moves the lease is rare among what may happen: it gets every second throw.
        let moves: Vec<_> = next.iter().filter(|(step, _)| is_weighty(*step)).copied().collect();
        if !moves.is_empty() && dice.below(2) == 0 {
            next = moves;
        }
        let (step, after) = next[dice.below(next.len())];
        steps.push(step);
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| mirror.follow(&state, step, &after)));
        if told.is_err() {
            panic!("seed {seed}:\n{}", tale::tell(rules, &steps));
        }
        state = after;
    }
    for (kind, count) in mirror.done {
        *sum.done.entry(kind).or_default() += count;
    }
    sum.stopped += mirror.stopped;
}

#[test]
fn the_model_s_transactions_do_what_handover_proto_s_do_on_random_runs() {
    let state = Rules::correct(configs::ALL[0]).init_states().pop().expect("a beginning");
    let mut sum = Mirror::new(&state);
    for config in configs::ALL.into_iter().filter(|config| !config.bounds.restore) {
        let mut rules = Rules::correct(config);
        // Longer runs than can be explored to exhaustion.
        rules.bounds.turns = 14;
        rules.bounds.intents = 6;
        rules.bounds.leases = 3;
        for seed in 1..=RUNS {
            rules.bounds.gives_up = seed % 4 == 0;
            rules.bounds.unknowns = (seed % 3) as u8;
            run(&rules, seed, &mut sum);
        }
    }
    println!("carried out: {:?}; stopped by a compare or a dead lease: {}", sum.done, sum.stopped);
    for kind in ["T1", "T2", "T3", "T4", "T5"] {
        assert!(sum.done.get(kind).is_some_and(|count| *count >= 20), "{kind} is hardly tried: {:?}", sum.done);
    }
    assert!(sum.stopped >= 20, "compares that stop a transaction are hardly tried: {}", sum.stopped);
}
