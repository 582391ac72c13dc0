//! The real client of the store, over a simulated network (turmoil), against the real embedded server: partitions, held
//! messages, crashes of agents and of the store. Needs the feature `turmoil`:
//! `cargo test -p handover-tests --features turmoil --test turmoil`. `HANDOVER_SEEDS=1000` for more.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

mod agent;
mod net;
mod site;

use std::time::{Duration, Instant};

use handover_tests::sim::fact::Fact;
use site::Site;
use turmoil::Builder;

const HOSTS: usize = 3;
/// Faults come until here.
const STORM: Duration = Duration::from_secs(30);
/// Then somebody works within this: expiry and the long quarantine of a TTL of 6 s, a restart of the store that gives
/// every lease its whole TTL again, and reconnecting.
const CALM: Duration = Duration::from_secs(30);
/// What the test may take; it says how many seeds fitted.
const BUDGET: Duration = Duration::from_secs(80);

/// splitmix64, as the simulator's.
struct Chance(u64);

impl Chance {
    fn within(&mut self, low: u64, high: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        low + (z ^ (z >> 31)) % (high - low)
    }
}

/// Something that goes wrong, and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Partition(usize),
    Repair(usize),
    Hold(usize),
    Release(usize),
    Crash(usize),
    Start(usize),
    StoreCrash,
    StoreStart,
}

fn plan(chance: &mut Chance) -> Vec<(Duration, Fault)> {
    let mut plan = Vec::new();
    for _ in 0..chance.within(3, 8) {
        let (at, host) = (chance.within(4_000, 28_000), chance.within(0, HOSTS as u64) as usize);
        let (kind, short, long) = (chance.within(0, 10), chance.within(50, 3_000), chance.within(500, 15_000));
        let (begins, ends, lasts) = match kind {
            0..3 => (Fault::Partition(host), Fault::Repair(host), long),
            3..5 => (Fault::Hold(host), Fault::Release(host), long),
            5..8 => (Fault::Crash(host), Fault::Start(host), short),
            _ => (Fault::StoreCrash, Fault::StoreStart, short),
        };
        plan.push((Duration::from_millis(at), begins));
        plan.push((Duration::from_millis((at + lasts).min(30_000)), ends));
    }
    plan.sort_by_key(|(at, _)| *at);
    plan
}

/// Turns, and units of work.
fn run(seed: u64) -> (u64, u64) {
    let mut chance = Chance(seed);
    let data = tempfile::tempdir().expect("a directory");
    let site = Site::new(HOSTS);
    let mut sim = Builder::new()
        .rng_seed(seed)
        .tick_duration(Duration::from_millis(10))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(30))
        .simulation_duration(Duration::from_secs(120))
        .build();
    let path = data.path().to_owned();
    sim.host("store", move || net::store(path.clone()));
    for host in 0..HOSTS {
        let site = site.clone();
        sim.host(format!("app-{host}"), move || agent::run(host, site.clone()));
    }
    let mut plan = plan(&mut chance).into_iter().peekable();
    let mut healed = false;
    while sim.elapsed() < STORM + CALM {
        while let Some((_, fault)) = plan.next_if(|(at, _)| *at <= sim.elapsed()) {
            make(&mut sim, &site, fault);
        }
        if !healed && sim.elapsed() >= STORM {
            healed = true;
            let within_us = CALM.as_micros() as u64 - 1_000_000;
            site.see(sim.elapsed(), &Fact::Healed { within_us });
        }
        sim.step().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let violation = site.get().violation.clone();
        if let Some(violation) = violation {
            panic!("HANDOVER_SEED={seed} shows it again: {violation}");
        }
    }
    let inner = site.get();
    (inner.turns, inner.units)
}

fn make(sim: &mut turmoil::Sim<'_>, site: &Site, fault: Fault) {
    let name = |host: usize| format!("app-{host}");
    match fault {
        Fault::Partition(host) => sim.partition(name(host), "store"),
        Fault::Repair(host) => sim.repair(name(host), "store"),
        Fault::Hold(host) => sim.hold(name(host), "store"),
        Fault::Release(host) => sim.release(name(host), "store"),
        Fault::Crash(host) if sim.is_host_running(name(host)) => {
            site.lost(host, sim.elapsed());
            sim.crash(name(host));
        }
        Fault::Start(host) if !sim.is_host_running(name(host)) => sim.bounce(name(host)),
        Fault::StoreCrash if sim.is_host_running("store") => sim.crash("store"),
        Fault::StoreStart if !sim.is_host_running("store") => sim.bounce("store"),
        Fault::Crash(_) | Fault::Start(_) | Fault::StoreCrash | Fault::StoreStart => {}
    }
}

#[test]
fn over_a_real_client_never_two_work_and_after_the_storm_somebody_does() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("HANDOVER_SEED").unwrap_or(0);
    let seeds = number("HANDOVER_SEEDS").unwrap_or(if number("HANDOVER_SEED").is_some() { 1 } else { 300 });
    let (begun, mut done, mut turns, mut units) = (Instant::now(), 0, 0, 0);
    for seed in first..first + seeds {
        if begun.elapsed() > BUDGET && number("HANDOVER_SEEDS").is_none() {
            break;
        }
        let (more_turns, more_units) = run(seed);
        (done, turns, units) = (done + 1, turns + more_turns, units + more_units);
    }
    println!("{done} seeds in {:?}: {turns} turns, {units} units of work", begun.elapsed());
    assert!(turns > done, "the lease never changed hands: the runs prove nothing");
    assert!(units > 20 * done, "hardly anybody worked: {units}");
}
