//! Whatever happens, in any order: nobody but a fault takes more out than the floor lets, and it always ends.

use std::time::Duration;

use handover::core::event::{Outcome, check_chain};
use handover::core::next::Decision;
use handover::core::order::Order;
use handover::core::progress::{Progress, State};

use super::leaving;
use super::site::{FAULTS, Move, OURS, Site};

/// Numbers that look random and are the same in every run (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// What may go wrong.
#[derive(Clone, Copy, PartialEq)]
enum Weather {
    /// Nothing.
    Fair,
    /// The new version never becomes ready.
    BadVersion,
    /// Processes end, instances become unready, agents are not heard, the operator gives up.
    Foul,
}

fn storm(seed: u64, (hosts, wave_size): (u8, u8), floor: usize, weather: Weather) -> (Outcome, Site) {
    let mut chance = Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut site = Site::new(hosts, &format!("min_serving = {floor}\nwave_size = {wave_size}\n"), true);
    let fair = weather == Weather::Fair;
    site.good = weather != Weather::BadVersion;
    site.jobs = !fair && seed.is_multiple_of(2);
    for _ in 0..chance.below(400) {
        if matches!(site.world.progress.state, State::Ended { .. }) {
            break;
        }
        match chance.below(12) {
            0..=3 => drop(site.lap()),
            4 => site.lease_moves(),
            // In fair weather nobody is late.
            5 => site.world.pass(Duration::from_millis(chance.below(if fair { 100 } else { 2_000 }) as u64)),
            6 if weather == Weather::Foul => foul(&mut site, &mut chance),
            7 => restart_the_coordinator(&mut site),
            _ => drop(site.step(chance.below(hosts.into()), OURS[chance.below(OURS.len())])),
        }
        let all = site.faults > 0 || site.serving() >= floor;
        assert!(all, "seed {seed}: {:?} below {floor} at {:?}", site.versions(), site.world.progress.state);
        let paused = matches!(site.world.progress.state, State::Paused { .. });
        let out = (1..=hosts).find(|number| paused && leaving(&site, *number));
        assert_eq!(out, None, "seed {seed}: out of its balancers for as long as the pause lasts");
    }
    site.world.fleet.lease.frozen = false;
    let outcome = to_the_end(&mut site);
    site.obey();
    check_chain(&site.world.records).expect("a whole journal");
    (outcome, site)
}

/// An operator resumes what had to pause.
fn to_the_end(site: &mut Site) -> Outcome {
    for _ in 0..10 {
        let paused = |site: &Site| matches!(site.world.progress.state, State::Paused { .. });
        if let Decision::Ended(outcome) =
            site.until(|site, decision| matches!(decision, Decision::Ended(_)) || paused(site))
        {
            return outcome;
        }
        site.world.order(Order::Resume);
    }
    panic!("it pauses for ever: {:?}", site.world.progress.state);
}

fn foul(site: &mut Site, chance: &mut Chance) {
    let number = chance.below(site.hosts.len());
    match chance.below(12) {
        0 => site.faults += u32::from(site.order(Order::Rollback).is_some()),
        1 => {
            site.faults += 1;
            site.world.fleet.lease.frozen ^= true;
        }
        2 => drop(site.order(Order::Pause)),
        3 => drop(site.order(Order::Resume)),
        _ => drop(site.step(number, FAULTS[chance.below(FAULTS.len())])),
    }
}

/// It knows what its predecessor journalled, and nothing of what that remembered.
fn restart_the_coordinator(site: &mut Site) {
    let world = &mut site.world;
    world.samples = Default::default();
    assert_eq!(Progress::fold(&world.plan, &world.records).expect("legal"), world.progress);
}

fn ends_at(seed: u64, site: &Site, what: &str) {
    assert!(site.versions().iter().all(|version| version == what), "seed {seed}: {:?}", site.versions());
    let holder = site.world.fleet.lease.holder.as_ref().expect("somebody holds again").value.owner();
    assert_eq!(holder.version.as_str(), what);
}

#[test]
fn in_fair_weather_every_order_of_events_ends_with_the_new_version_and_never_below_the_floor() {
    for seed in 1..120 {
        let hosts = 2 + (seed % 3) as u8;
        let (outcome, site) = storm(seed, (hosts, 1), usize::from(hosts) - 1, Weather::Fair);
        assert_eq!(outcome, Outcome::Done, "seed {seed}");
        ends_at(seed, &site, "1.1.0");
    }
}

#[test]
fn a_version_that_never_becomes_ready_goes_back_in_place_and_never_below_the_floor() {
    for seed in 1..80 {
        let hosts = 2 + (seed % 3) as u8;
        let (outcome, site) = storm(seed, (hosts, 1), usize::from(hosts) - 1, Weather::BadVersion);
        assert_eq!(outcome, Outcome::RolledBack, "seed {seed}");
        ends_at(seed, &site, "1.0.0");
    }
}

#[test]
fn with_faults_at_any_moment_our_own_acts_keep_the_floor_and_it_ends_with_one_version() {
    let mut outcomes = [0; 3];
    for seed in 1..500 {
        let hosts = 2 + (seed % 3) as u8;
        let floor = usize::from(hosts) - 1 - usize::from(seed % 7 == 0);
        let (outcome, site) = storm(seed, (hosts, 1), floor, Weather::Foul);
        outcomes[outcome as usize] += 1;
        match outcome {
            Outcome::Done => ends_at(seed, &site, "1.1.0"),
            Outcome::RolledBack => ends_at(seed, &site, "1.0.0"),
            Outcome::Failed => {}
        }
    }
    assert!(outcomes[0] > 50 && outcomes[1] > 50, "both ends are reached: {outcomes:?}");
}

#[test]
fn waves_of_two_hosts_do_so_in_every_weather() {
    for seed in 1..50 {
        let hosts = 3 + (seed % 3) as u8;
        let floor = usize::from(hosts) - 2;
        for (weather, end) in [
            (Weather::Fair, Some((Outcome::Done, "1.1.0"))),
            (Weather::BadVersion, Some((Outcome::RolledBack, "1.0.0"))),
            (Weather::Foul, None),
        ] {
            let (outcome, site) = storm(seed, (hosts, 2), floor, weather);
            if let Some((end, what)) = end {
                assert_eq!(outcome, end, "seed {seed}");
                ends_at(seed, &site, what);
            }
        }
    }
}

#[test]
fn the_only_host_holds_its_requests_and_goes_both_ways() {
    for seed in 1..80 {
        for (weather, end, what) in
            [(Weather::Fair, Outcome::Done, "1.1.0"), (Weather::BadVersion, Outcome::RolledBack, "1.0.0")]
        {
            let (outcome, site) = storm(seed, (1, 1), 0, weather);
            assert_eq!(outcome, end, "seed {seed}");
            ends_at(seed, &site, what);
        }
    }
}

/// Were a host stopped while its balancers still send to it, the walks above would say so.
#[test]
#[should_panic(expected = "stopped while its balancers still send")]
fn a_host_that_is_stopped_under_its_balancers_is_noticed() {
    let mut site = Site::new(2, "", false);
    site.until_event(|event| matches!(event, handover::core::event::Event::Entered { step: 1 }));
    site.hosts[0].sent = true;
    let moves = [Move::Take, Move::Stop];
    assert!(moves.into_iter().all(|what| site.step(0, what)));
}
