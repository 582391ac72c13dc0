//! Mistakes that chaos has to catch on real processes (`SAFETY.md` §3.3): where each is planted, under which faults it
//! shows, and which checker has to find it.
//!
//! The lease has more than one net: the deadline, the quarantine and the database's guard each hide a mistake of another.
//! So some are planted with a hole in a second net, without which nothing wrong would ever come of them.

use std::time::Duration;

use super::nemesis::Nemesis;
use super::nemesis::plot::Plot;
use super::nemesis::process::Victim;
use super::nemesis::store::{Hand, StoreFault};
use super::plan::{Plan, Step};

/// One mistake.
#[derive(Debug, Clone, Copy)]
pub struct Mistake {
    /// Its name.
    pub name: &'static str,
    /// How it is planted, as `--plant` takes it.
    pub planted: &'static [&'static str],
    /// Under which faults it shows.
    pub faults: Faults,
    /// Who may find it. Another's finding does not count.
    pub checkers: &'static [&'static str],
}

/// Faults, and whether the lease is handed over meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    /// Each begins at, what, for so long; in seconds.
    steps: &'static [(u64, Nemesis, u64)],
    /// Between two planned hand-overs, at least.
    hand_over_every: Duration,
}

/// Hand-overs again and again.
const fn busy(steps: &'static [(u64, Nemesis, u64)]) -> Faults {
    Faults { steps, hand_over_every: Duration::from_millis(1500) }
}

/// The lease stays where it is, if nothing happens to it: a hand-over at the wrong moment would hide the mistake.
const fn quiet(steps: &'static [(u64, Nemesis, u64)]) -> Faults {
    Faults { steps, hand_over_every: Duration::from_secs(3600) }
}

/// The holder's agent is stopped for longer than its lease and the quarantine: another one takes over, and nobody but the
/// deadline tells the service.
const FOLLOWED: Faults = busy(&[(2, Nemesis::Freeze(Victim::HolderAgent), 28)]);
/// Nothing but planned hand-overs, and something harmless.
const PLANNED: Faults = busy(&[(2, Nemesis::Store(StoreFault::Compact), 0)]);
/// The lease is revoked while its holder cannot hear of it.
const REVOKED: Faults = quiet(&[(3, Nemesis::Operator(Hand::RevokeDeafHolder), 12)]);
/// The agent of a holder that was cut off comes back, reads, and cannot renew.
const RETURNED: Faults = quiet(&[(2, Nemesis::Plot(Plot::Reborn), 24)]);
/// A transaction that ends the turn arrives when the holder has long given up waiting for its answer.
const LATE: Faults = quiet(&[(2, Nemesis::Plot(Plot::LateRelease), 14)]);
/// A deposed leader answers a keep-alive, and the read after it when it has heard of the other.
const DEPOSED: Faults = quiet(&[(2, Nemesis::Plot(Plot::DeposedAnswer), 26)]);
const KILLED: Faults = busy(&[(4, Nemesis::Kill(Victim::HolderApp), 0)]);

/// Units so long that a new holder's install falls into one, and short beside the limits of their database session.
const LONG_UNITS: &str = "behaviour=unit = \"120ms\"";
const NO_DEADLINE: &str = "BILLING_MISTAKES=ignores-deadline";

const fn mistake(
    name: &'static str,
    planted: &'static [&'static str],
    faults: Faults,
    checkers: &'static [&'static str],
) -> Mistake {
    Mistake { name, planted, faults, checkers }
}

/// All of them. Those with [`AGENTS`] need an agent that is built with its feature `mutants`.
pub const ALL: [Mistake; 15] = [
    // The service's own.
    mistake("units-without-deadline", &[NO_DEADLINE], FOLLOWED, &["single-holder"]),
    mistake("quiesced-is-a-lie", &["BILLING_MISTAKES=lies-quiesced"], PLANNED, &["single-holder"]),
    mistake("start-before-install", &["BILLING_MISTAKES=starts-before-install", "check=none"], PLANNED, &["fence"]),
    mistake("no-check", &[NO_DEADLINE, "check=none"], FOLLOWED, &["fence"]),
    mistake("check-without-lock", &[NO_DEADLINE, "check=plain", LONG_UNITS], FOLLOWED, &["fence"]),
    mistake("check-for-key-share", &[NO_DEADLINE, "check=key-share", LONG_UNITS], FOLLOWED, &["fence"]),
    mistake("check-outside", &[NO_DEADLINE, "check=outside", LONG_UNITS], FOLLOWED, &["fence"]),
    // The agent's.
    mistake("no-quarantine", &["HANDOVER_PLANT=no-quarantine", "check=none"], REVOKED, &["single-holder"]),
    mistake("quarantine-from-the-event", &["HANDOVER_PLANT=quarantine-from-the-event"], REVOKED, &["single-holder"]),
    mistake(
        "hand-over-before-quiesced",
        &["HANDOVER_PLANT=hand-over-before-quiesced", "check=plain", LONG_UNITS],
        PLANNED,
        &["single-holder", "fence"],
    ),
    // The quarantine waits out even a deadline that was counted anew, once.
    mistake(
        "base-from-the-restart",
        &["HANDOVER_PLANT=base-from-the-restart,no-quarantine", "check=none"],
        RETURNED,
        &["single-holder"],
    ),
    mistake("unknown-is-failure", &["HANDOVER_PLANT=unknown-is-failure", "check=none"], LATE, &["single-holder"]),
    mistake(
        "same-token-for-a-new-process",
        &["HANDOVER_PLANT=same-token-for-a-new-process"],
        KILLED,
        &["single-holder", "fence", "darkness"],
    ),
    mistake("create-revision-as-token", &["HANDOVER_PLANT=create-revision-as-token"], PLANNED, &["darkness", "fence"]),
    // As above; and a busy machine answers the read in time.
    mistake(
        "no-term-check",
        &["HANDOVER_PLANT=no-term-check,no-quarantine", "check=none", "lease=attempt = \"1500ms\""],
        DEPOSED,
        &["single-holder"],
    ),
];

/// The variable that plants a mistake into an agent.
pub const AGENTS: &str = "HANDOVER_PLANT";

impl Mistake {
    /// The mistake of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|mistake| mistake.name == name)
    }

    /// Whether it is planted into the agent.
    pub fn is_agents(&self) -> bool {
        self.planted.iter().any(|planted| planted.starts_with(AGENTS))
    }

    /// The schedule under which it shows.
    pub fn plan(&self, seed: u64, length: Duration) -> Plan {
        let step = |(at, nemesis, lasts): &(u64, Nemesis, u64)| Step {
            at: Duration::from_secs(*at),
            lasts: Duration::from_secs(*lasts),
            nemesis: *nemesis,
        };
        let steps: Vec<Step> = self.faults.steps.iter().map(step).collect();
        let coordinators = steps.iter().any(|step| step.nemesis.needs_coordinators());
        let hand_over_every = self.faults.hand_over_every;
        Plan { steps, hand_over_every, coordinators, ..Plan::of(seed, length) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn at_least_twelve_mistakes_each_with_a_name_of_its_own_and_somebody_to_find_it() {
        let names: BTreeSet<_> = ALL.iter().map(|mistake| mistake.name).collect();
        assert!(names.len() == ALL.len() && ALL.len() >= 12);
        for mistake in ALL {
            assert!(!mistake.checkers.is_empty() && !mistake.faults.steps.is_empty(), "{}", mistake.name);
        }
    }
}
