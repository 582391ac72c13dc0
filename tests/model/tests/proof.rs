//! The lease's protocol keeps its invariants in every configuration, each explored to exhaustion.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

use std::time::Instant;

use handover_model::configs::{self, Config};
use handover_model::rules::Rules;
use handover_model::tale;
use stateright::{Checker, Model};

/// Explores `config` whole and returns how many states it has.
fn explore(config: &Config) -> usize {
    let (rules, start) = (Rules::correct(config), Instant::now());
    let checker = rules.clone().checker().threads(2).spawn_bfs().join();
    let (found, states) = (checker.discoveries(), checker.unique_state_count());
    println!("{:17} {states:>9} states in {:>6.1} s", config.name, start.elapsed().as_secs_f64());
    for invariant in &rules.checked {
        if let Some(path) = found.get(invariant.name()) {
            panic!("{}: {}\n{}", config.name, invariant.name(), tale::tell(&rules, &path.clone().into_actions()));
        }
    }
    for reach in &rules.reached {
        assert!(found.contains_key(reach.name()), "{}: no run reaches this: {}", config.name, reach.name());
    }
    assert!(checker.is_done(), "{} was not explored to its end", config.name);
    states
}

#[test]
fn the_invariants_hold_in_every_configuration_and_all_together_have_five_million_states() {
    let start = Instant::now();
    let states: usize = configs::ALL.into_iter().map(explore).sum();
    println!("all together      {states:>9} states in {:>6.1} s", start.elapsed().as_secs_f64());
    assert!(states >= 5_000_000, "only {states}");
}

#[test]
fn every_invariant_is_claimed_everywhere_but_the_exclusive_work_where_no_clock_shows_a_pause() {
    for config in configs::ALL {
        let pauses = config.bounds.pauses > 0 || config.bounds.stale_reads;
        assert_eq!(config.except.is_empty(), !pauses, "{}", config.name);
    }
}
