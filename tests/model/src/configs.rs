//! The configurations that are explored, each to exhaustion. Every one has delay, loss and late expiry without bound.

use crate::bounds::{Bounds, Start};
use crate::invariant::Invariant;
use crate::reach::Reach;

/// A part of the world, small enough to be explored whole.
#[derive(Debug)]
pub struct Config {
    /// On the command line.
    pub name: &'static str,
    /// What may happen.
    pub bounds: Bounds,
    /// What is not claimed there.
    pub except: &'static [Invariant],
    /// What some run must reach.
    pub reached: &'static [Reach],
}

impl Config {
    /// The invariants that are claimed.
    pub fn claimed(&self) -> impl Iterator<Item = Invariant> {
        Invariant::ALL.into_iter().filter(|invariant| !self.except.contains(invariant))
    }
}

/// All of them.
pub const ALL: [&Config; 16] = [
    &HAND_OVER,
    &REGRANT,
    &UNKNOWN_OUTCOME,
    &EARLY_REVOKE,
    &DEPOSED_LEADER,
    &SLOW_ANSWERS,
    &CLOCK_RATE,
    &QUARANTINE_RATE,
    &THREE_AGENTS,
    &SHORT_GRANT,
    &HUNG,
    &PROCESSES,
    &AGENT_RESTART,
    &SUSPEND,
    &UNDETECTED_PAUSE,
    &RESTORE,
];

const Q: Bounds = Bounds::QUIET;

const fn config(name: &'static str, bounds: Bounds, reached: &'static [Reach]) -> Config {
    Config { name, bounds, except: &[], reached }
}

/// A hand-over, with nothing worse than delay and expiry; then a loss, or the way back.
pub static HAND_OVER: Config =
    config("hand-over", Bounds { turns: 3, intents: 2, leases: 1, ..Q }, &[Reach::HandedOver, Reach::TakenOver]);
/// A successor that changes over to another etcd lease while T3 is under way.
pub static REGRANT: Config = config(
    "regrant",
    Bounds { turns: 2, regrants: true, attempt: 0, steady_candidates: true, timed_only: true, ..Q },
    &[Reach::HandedOver],
);
/// A transaction without an answer, which may still arrive.
pub static UNKNOWN_OUTCOME: Config =
    config("unknown-outcome", Bounds { turns: 3, unknowns: 1, leases: 1, ..Q }, &[Reach::HandedOver, Reach::Minted]);
/// etcd (or an operator) revokes a live lease.
pub static EARLY_REVOKE: Config = config(
    "early-revoke",
    Bounds { turns: 2, revokes: 1, intents: 0, attempt: 0, steady_candidates: true, ..Q },
    &[Reach::TakenOver, Reach::Minted],
);
/// A deposed etcd leader goes on acknowledging renewals.
pub static DEPOSED_LEADER: Config =
    config("deposed-leader", Bounds { turns: 2, stale_acks: true, intents: 0, leases: 1, ..Q }, &[Reach::TakenOver]);
/// Answers that take long.
pub static SLOW_ANSWERS: Config =
    config("slow-answers", Bounds { turns: 2, attempt: 2, hangs: 1, intents: 0, leases: 1, ..Q }, &[Reach::TakenOver]);
/// Clocks that run at different rates.
pub static CLOCK_RATE: Config = config(
    "clock-rate",
    Bounds { turns: 2, slips: 1, hangs: 1, intents: 0, attempt: 0, leases: 1, steady_candidates: true, ..Q },
    &[Reach::TakenOver],
);
/// The same, and a lease that is revoked early: the quarantine is just long enough.
pub static QUARANTINE_RATE: Config = config(
    "quarantine-rate",
    Bounds {
        turns: 2,
        slips: 2,
        adverse_slips: true,
        revokes: 1,
        hangs: 1,
        intents: 0,
        attempt: 0,
        leases: 1,
        steady_candidates: true,
        timed_only: true,
        ..Q
    },
    &[Reach::TakenOver],
);
/// Three agents: two takers race, and a hand-over goes to one while the other watches.
pub static THREE_AGENTS: Config = config(
    "three-agents",
    Bounds { hosts: 3, turns: 2, leases: 1, attempt: 0, steady_candidates: true, ..Q },
    &[Reach::TakenOver, Reach::HandedOver],
);
/// etcd grants less than was asked for.
pub static SHORT_GRANT: Config = config(
    "short-grant",
    Bounds { start: Start::Cold, turns: 2, short_ttl: true, intents: 0, leases: 1, ..Q },
    &[Reach::TakenOver],
);
/// A unit of work that does not end by itself.
pub static HUNG: Config = config(
    "hung",
    Bounds { turns: 2, hangs: 1, intents: 0, gives_up: true, leases: 1, ..Q },
    &[Reach::TakenOver, Reach::Released],
);
/// Processes of the service crash, with and without a child that lives on, and start again.
pub static PROCESSES: Config = config(
    "processes",
    Bounds { turns: 3, services: 1, intents: 0, leases: 1, ..Q },
    &[Reach::Acquired, Reach::InstallWaits],
);
/// Agents crash and start again.
pub static AGENT_RESTART: Config =
    config("agent-restart", Bounds { turns: 2, agents: 1, leases: 1, ..Q }, &[Reach::HandedOver, Reach::TakenOver]);
/// Hosts are suspended between units; the clock goes on.
pub static SUSPEND: Config =
    config("suspend", Bounds { turns: 2, suspends: 1, intents: 0, leases: 1, ..Q }, &[Reach::TakenOver]);
/// Hosts are paused anywhere, without any clock that shows it: only the fence excludes.
pub static UNDETECTED_PAUSE: Config = Config {
    except: &[Invariant::I3],
    ..config(
        "undetected-pause",
        Bounds { turns: 2, suspends: 1, pauses: 1, intents: 0, leases: 1, ..Q },
        &[Reach::TwoWork, Reach::Refused, Reach::InstallWaits],
    )
};
/// etcd is restored from a backup.
pub static RESTORE: Config =
    config("restore", Bounds { turns: 2, restore: true, intents: 0, leases: 1, ..Q }, &[Reach::Acquired]);
