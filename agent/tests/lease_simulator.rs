//! Randomised runs of the keeper's core against a model of everything else. `HANDOVER_SEEDS=2000` for more runs.

mod lease_sim;

use lease_sim::{SECOND, World};

/// So many seconds of bad weather in each run, and then of good.
const STORM: u64 = 120;
const CALM: u64 = 60;

#[test]
fn whatever_happens_never_two_work_at_once_and_in_the_end_somebody_works() {
    let seeds = std::env::var("HANDOVER_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(150);
    let first = std::env::var("HANDOVER_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut total = std::collections::BTreeMap::<&str, u64>::new();
    for seed in first..first + seeds {
        let mut world = World::new(seed, 3);
        world.run_to(STORM * SECOND);
        world.heal();
        world.run_to((STORM + CALM) * SECOND);
        let units: u64 = world.services.values().map(|service| service.units).sum();
        world.run_to((STORM + CALM + 10) * SECOND);
        let more: u64 = world.services.values().map(|service| service.units).sum();
        assert!(more > units, "seed {seed}: nobody works {CALM} s after the storm (I10): {:#?}", world.view());
        for (what, n) in &world.counts.0 {
            *total.entry(what).or_default() += n;
        }
    }
    println!("{seeds} seeds of {} s: {total:#?}", STORM + CALM);
    for what in [
        "T1",
        "T2",
        "T3",
        "T4",
        "T5",
        "kills",
        "second instances",
        "agent crashes",
        "strays",
        "early revocations",
        "store outages",
    ] {
        assert!(total.get(what).is_some_and(|n| *n > 0), "{what} never happened: the runs prove nothing of it");
    }
}
