//! The simulator of the lease's decision code: a bounded round. The long one is `cargo run --release --bin sim`.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

use handover_tests::sim::command::many;
use handover_tests::sim::mistake::{ALL, Mistake};
use handover_tests::sim::run;

/// Enough that everything happens that the checkers look at; the long run has a hundred thousand.
const SEEDS: u64 = 400;

#[test]
fn no_seed_breaks_a_rule_and_everything_happens() {
    let sum = many(0, SEEDS, Mistake::NONE, true).expect("it runs");
    if let Some((seed, outcome)) = sum.broken.first_key_value() {
        panic!("cargo run --release -p handover-tests --bin sim -- --seed {seed} --trace: {:?}", outcome.violation);
    }
    for what in [
        "T1",
        "T2",
        "T3",
        "T4",
        "T5",
        "agent crashes",
        "certificates",
        "early revocations",
        "kills",
        "partitions",
        "pauses",
        "proved deaths",
        "restores",
        "rollouts that ended",
        "paused coordinators",
        "suspicions",
        "stalled leaders",
        "strays",
        "unproved deaths",
    ] {
        assert!(sum.counts.get(what).is_some_and(|n| *n > 0), "{what} never happened: the runs prove nothing of it");
    }
}

/// Seeds that broke a rule once; what each of them found is in docs/simulator.md.
const ONCE_BROKEN: [u64; 20] = [
    2554, 3156, 4811, 6546, 13557, 14605, 99905, 213_062, 220_302, 229_660, 303_237, 548_348, 574_952, 646_243,
    704_590, 1_013_682, 1_035_267, 1_053_248, 1_145_030, 1_163_675,
];

#[test]
fn no_seed_that_broke_a_rule_once_does_so_again() {
    for seed in ONCE_BROKEN {
        let outcome = run(seed, Mistake::NONE, false).expect("it runs");
        assert_eq!(outcome.violation, None, "cargo run --release -p handover-tests --bin sim -- --seed {seed} --trace");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let hash = |seed| run(seed, Mistake::NONE, false).expect("it runs").hash;
    let hashes: Vec<u64> = (0..20).map(hash).collect();
    assert_eq!(hashes, (0..20).map(hash).collect::<Vec<_>>());
    let mut all = hashes;
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 20);
}

#[test]
fn mistakes_in_what_is_modelled_are_caught() {
    for name in ["no-barrier", "late-reply", "start-before-install", "check-with-key-share", "sigterm-is-stopped"] {
        let mistake = Mistake::named(name).expect("a mistake");
        let sum = many(0, SEEDS, mistake, false).expect("it runs");
        let (seed, outcome) = sum.broken.first_key_value().unwrap_or_else(|| panic!("{name} was not caught"));
        let broken = outcome.violation.as_ref().expect("a violation");
        println!("{name}: seed {seed}, {}: {}", broken.check, broken.what);
    }
}

#[test]
#[cfg(not(feature = "mutants"))]
fn this_build_cannot_plant_a_mistake_in_the_decision_code() {
    let real = ALL.iter().filter(|(_, mistake)| mistake.plant().is_err()).count();
    assert!(real >= 11, "{real}");
}

#[test]
fn every_mistake_has_a_name_of_its_own() {
    for (name, mistake) in ALL {
        assert_eq!(Mistake::named(name), Some(mistake), "{name}");
    }
}
