//! What is done when: a schedule out of a seed. Pure, so that a seed says all.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use super::nemesis::Nemesis;
use super::nemesis::app::AppFault;
use super::nemesis::coordinator::Rival;
use super::nemesis::database::DatabaseFault;
use super::nemesis::network::{Bend, Cut};
use super::nemesis::plot::Plot;
use super::nemesis::process::Victim;
use super::nemesis::store::{Hand, StoreFault};

/// The first fault comes when the site has been at rest for so long.
const BEFORE: Duration = Duration::from_secs(2);

/// One fault of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// When it begins, since the schedule's start.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// What.
    pub nemesis: Nemesis,
}

/// A schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What it came from.
    pub seed: u64,
    /// How long it lasts, or until the last fault is over.
    pub length: Duration,
    /// In the order of their beginnings.
    pub steps: Vec<Step>,
    /// Between two planned hand-overs, at least.
    pub hand_over_every: Duration,
    /// Two coordinators run, and an operator asks them for the hand-overs; else a stand-in does, more often.
    pub coordinators: bool,
}

/// Every fault there is, with how long it lasts in milliseconds, from and to. A seed's remainder picks the first fault of
/// its schedule, so that as many schedules as there are faults have each of them.
pub const FAULTS: [(Nemesis, u64, u64); 58] = [
    (Nemesis::Kill(Victim::HolderAgent), 200, 2000),
    (Nemesis::Freeze(Victim::HolderHost), 3000, 28_000),
    (Nemesis::Cut(Cut::HolderEtcd), 3000, 28_000),
    (Nemesis::Store(StoreFault::StallWal), 4000, 12_000),
    (Nemesis::App(AppFault::LiesQuiesced), 6000, 12_000),
    (Nemesis::Operator(Hand::RevokeHolder), 0, 0),
    (Nemesis::Kill(Victim::HolderApp), 0, 0),
    (Nemesis::Freeze(Victim::HolderAgent), 2000, 28_000),
    (Nemesis::Database(DatabaseFault::Crash), 0, 0),
    (Nemesis::Store(StoreFault::LoseQuorum), 3000, 12_000),
    (Nemesis::Cut(Cut::EtcdHearsNot), 3000, 28_000),
    (Nemesis::Wire(Bend::Late), 4000, 12_000),
    (Nemesis::Clock(3600), 3000, 10_000),
    (Nemesis::Freeze(Victim::EtcdLeader), 2000, 12_000),
    (Nemesis::App(AppFault::HangsInUnit), 4000, 16_000),
    (Nemesis::Kill(Victim::HolderHost), 0, 0),
    (Nemesis::Store(StoreFault::MoveLeader), 0, 0),
    (Nemesis::Freeze(Victim::HolderApp), 500, 16_000),
    (Nemesis::Cut(Cut::HolderDatabase), 2000, 10_000),
    (Nemesis::Operator(Hand::DeleteHolder), 0, 0),
    (Nemesis::Store(StoreFault::NoSpace), 3000, 10_000),
    (Nemesis::Wire(Bend::Stall), 3000, 26_000),
    (Nemesis::App(AppFault::CrashesInUnit), 300, 1500),
    (Nemesis::Cut(Cut::LeaderMembers), 3000, 12_000),
    (Nemesis::Database(DatabaseFault::LockFence), 1000, 8000),
    (Nemesis::Kill(Victim::EtcdLeader), 1000, 8000),
    (Nemesis::Operator(Hand::DeleteBeat), 0, 0),
    (Nemesis::App(AppFault::LeaksDaemon), 300, 1500),
    (Nemesis::Store(StoreFault::Compact), 0, 0),
    (Nemesis::Clock(-30 * 86_400), 3000, 10_000),
    (Nemesis::Cut(Cut::HolderEtcdOneWay), 3000, 28_000),
    (Nemesis::Store(StoreFault::RestartAll), 500, 4000),
    (Nemesis::App(AppFault::IgnoresQuiesce), 6000, 12_000),
    (Nemesis::Wire(Bend::Tear), 4000, 12_000),
    (Nemesis::Operator(Hand::GarbageHolder), 2000, 5000),
    (Nemesis::Kill(Victim::Gate), 200, 1500),
    (Nemesis::Database(DatabaseFault::LockOrder), 1000, 8000),
    (Nemesis::App(AppFault::LeaksChild), 300, 1500),
    (Nemesis::Cut(Cut::LeaderHosts), 3000, 12_000),
    (Nemesis::Operator(Hand::GarbageCandidate), 0, 0),
    (Nemesis::Wire(Bend::Drip), 4000, 12_000),
    (Nemesis::Coordinator(Rival::Stale), 6500, 14_000),
    (Nemesis::Store(StoreFault::Restore), 8000, 22_000),
    (Nemesis::Coordinator(Rival::Deaf), 6500, 14_000),
    (Nemesis::Coordinator(Rival::Killed), 500, 8000),
    (Nemesis::Coordinator(Rival::Deposed), 0, 0),
    (Nemesis::Store(StoreFault::RestoreAlike), 8000, 22_000),
    (Nemesis::Coordinator(Rival::FollowerKilled), 500, 8000),
    (Nemesis::Cut(Cut::HolderCoordinators), 3000, 12_000),
    (Nemesis::Coordinator(Rival::BothKilled), 500, 8000),
    (Nemesis::Store(StoreFault::LoseMember), 3000, 12_000),
    (Nemesis::Store(StoreFault::ReplaceMember), 3000, 12_000),
    (Nemesis::Slew(10), 6000, 16_000),
    (Nemesis::Plot(Plot::Reborn), 10_000, 20_000),
    (Nemesis::Slew(-10), 6000, 16_000),
    (Nemesis::Plot(Plot::LateRelease), 6000, 14_000),
    (Nemesis::Plot(Plot::DeposedAnswer), 16_000, 24_000),
    (Nemesis::Operator(Hand::RevokeDeafHolder), 4000, 14_000),
];

/// Faults that come second, beside or after any other: they end by themselves, and what they cost is short.
const SECOND: [(Nemesis, u64, u64); 11] = [
    (Nemesis::Kill(Victim::HolderAgent), 200, 1500),
    (Nemesis::Kill(Victim::HolderApp), 0, 0),
    (Nemesis::Kill(Victim::OtherApp), 0, 0),
    (Nemesis::Store(StoreFault::MoveLeader), 0, 0),
    (Nemesis::Freeze(Victim::EtcdFollower), 1000, 4000),
    (Nemesis::Freeze(Victim::OtherApp), 500, 3000),
    (Nemesis::Cut(Cut::HostHost), 1000, 5000),
    (Nemesis::Operator(Hand::DeleteCandidate), 0, 0),
    (Nemesis::Store(StoreFault::Compact), 0, 0),
    (Nemesis::Coordinator(Rival::Killed), 500, 3000),
    (Nemesis::Coordinator(Rival::Deposed), 0, 0),
];

impl Plan {
    /// The schedule of a seed.
    pub fn of(seed: u64, length: Duration) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let count = FAULTS.len() as u64;
        let first = FAULTS[usize::try_from(seed % count).unwrap_or_default()];
        // The first may outlast the schedule: a holder is only followed after its lease and the quarantine.
        let mut steps = vec![step(first, BEFORE, Duration::MAX, &mut rng)];
        for _ in 0..rng.random_range(0..=2) {
            let at = BEFORE + length.saturating_sub(BEFORE).mul_f64(rng.random_range(0.15..0.8));
            steps.push(step(SECOND[rng.random_range(0..SECOND.len())], at, length, &mut rng));
        }
        steps.sort_by_key(|step| step.at);
        let hand_over_every = Duration::from_millis(rng.random_range(1500..5000));
        // Whatever else happens: every third schedule has the whole site.
        let coordinators = seed.is_multiple_of(3) || steps.iter().any(|step| step.nemesis.needs_coordinators());
        Self { seed, length, steps, hand_over_every, coordinators }
    }

    /// Whether agents need wires that can be bent.
    pub fn wires(&self) -> bool {
        self.steps.iter().any(|step| step.nemesis.needs_wires())
    }

    /// Whether hosts need clocks that can be moved.
    pub fn clocks(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.nemesis, Nemesis::Clock(_) | Nemesis::Slew(_)))
    }
}

/// Lasts as long as the seed says, and not beyond `length`.
fn step((nemesis, from, to): (Nemesis, u64, u64), at: Duration, length: Duration, rng: &mut StdRng) -> Step {
    let at = at + Duration::from_millis(rng.random_range(0..500));
    let lasts = Duration::from_millis(rng.random_range(from..=to)).min(length.saturating_sub(at));
    Step { at, lasts, nemesis }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LENGTH: Duration = Duration::from_secs(20);

    #[test]
    fn a_seed_says_all() {
        assert_eq!(Plan::of(7, LENGTH), Plan::of(7, LENGTH));
        assert_ne!(Plan::of(7, LENGTH).steps, Plan::of(7 + FAULTS.len() as u64, LENGTH).steps);
    }

    #[test]
    fn as_many_seeds_as_there_are_faults_have_each_of_them_and_every_number() {
        let plans: Vec<_> = (100..100 + FAULTS.len() as u64).map(|seed| Plan::of(seed, LENGTH)).collect();
        for (nemesis, ..) in FAULTS {
            assert!(plans.iter().any(|plan| plan.steps.iter().any(|step| step.nemesis == nemesis)), "{nemesis:?}");
        }
        let numbers: BTreeSet<_> = FAULTS.iter().map(|(nemesis, ..)| nemesis.number()).collect();
        for number in ["N1", "N2", "N3", "N4", "N5", "N6", "N7", "N8", "N10", "N16", "N17", "N18"] {
            assert!(numbers.contains(number), "{number}");
        }
    }

    #[test]
    fn whoever_needs_coordinators_has_them_and_others_have_them_now_and_then() {
        let plans: Vec<_> = (0..500).map(|seed| Plan::of(seed, LENGTH)).collect();
        let needs = |plan: &&Plan| plan.steps.iter().any(|step| step.nemesis.needs_coordinators());
        assert!(plans.iter().filter(needs).all(|plan| plan.coordinators));
        let rest = plans.iter().filter(|plan| !needs(plan));
        let (with, without): (Vec<_>, Vec<_>) = rest.partition(|plan| plan.coordinators);
        assert!(!with.is_empty() && with.len() < without.len());
    }

    #[test]
    fn every_fault_begins_within_the_schedule() {
        for seed in 0..500 {
            for step in Plan::of(seed, LENGTH).steps {
                assert!(step.at >= BEFORE && step.at < LENGTH, "seed {seed}: {step:?}");
            }
        }
    }
}
