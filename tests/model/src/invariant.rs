//! What must be true (`SAFETY.md` §1.15).

use crate::rules::Rules;
use crate::state::{Phase, State};

/// An invariant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// At most one owner at each revision, and a beat is the owner's, of the same revision.
    I1,
    /// Acquisitions have growing tokens, across restores too.
    I2,
    /// At most one process executes scheduler work.
    I3,
    /// A hand-over has no revision without an owner or without a beat that the successor keeps alive.
    I4,
    /// T3 and T4 only after QUIESCED or with no process left, and no unit under that token afterwards.
    I5,
    /// What commits at the resource bears the highest installed token.
    I6,
    /// No unit begins before the install of its token.
    I7,
    /// T2 without a proof only after the quarantine.
    I8,
    /// The holder key leaves HELD(A) only by A, or by T2.
    I9,
    /// A token that is not above what the resource has stored never becomes ACTIVE.
    I12,
    /// Nothing that the coordinator does changes holder or beat.
    I14,
    /// What follows from I6 and from one token for each process: a unit that commits has read what it changes in the
    /// state in which it changes it, so no tick is charged twice (checker 3 of §3.2).
    ExactlyOnce,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::I1,
        Self::I2,
        Self::I3,
        Self::I4,
        Self::I5,
        Self::I6,
        Self::I7,
        Self::I8,
        Self::I9,
        Self::I12,
        Self::I14,
        Self::ExactlyOnce,
    ];

    /// Its name, as the checker prints it.
    pub fn name(self) -> &'static str {
        match self {
            Self::I1 => "I1 one owner, and the beat is his",
            Self::I2 => "I2 tokens grow",
            Self::I3 => "I3 one process works",
            Self::I4 => "I4 a hand-over has no gap",
            Self::I5 => "I5 handed over or released only when stopped",
            Self::I6 => "I6 effects bear the highest token",
            Self::I7 => "I7 installed before the first unit",
            Self::I8 => "I8 quarantine before T2",
            Self::I9 => "I9 a turn ends by its holder or by T2",
            Self::I12 => "I12 no token twice",
            Self::I14 => "I14 the coordinator moves nothing",
            Self::ExactlyOnce => "no tick is charged twice",
        }
    }

    /// Whether it holds in `state`, as far as a state and the steps that led to it show.
    pub fn holds(self, state: &State) -> bool {
        let now = match self {
            Self::I1 => {
                let etcd = &state.etcd;
                etcd.beat.is_none_or(|beat| etcd.is_held_by(beat.who) && beat.rev == etcd.holder.rev)
            }
            Self::I3 => workers(state) <= 1,
            _ => true,
        };
        now && state.seen.broken & self.bit() == 0
    }

    /// Its bit among what the steps have broken.
    pub fn bit(self) -> u16 {
        1 << (self as u16)
    }

    /// The property that stateright checks.
    pub fn property(self) -> stateright::Property<Rules> {
        macro_rules! always {
            ($($name:ident)*) => { match self {
                $(Self::$name => stateright::Property::always(self.name(), |_, state| Self::$name.holds(state)),)*
            } };
        }
        always!(I1 I2 I3 I4 I5 I6 I7 I8 I9 I12 I14 ExactlyOnce)
    }
}

/// Processes that execute scheduler work at this moment. A host that stands still executes nothing.
fn workers(state: &State) -> usize {
    let running = state.hosts.iter().filter(|host| host.pause == crate::state::Pause::No);
    running.map(|host| usize::from(host.service.unit.runs()) + usize::from(host.service.rest.runs())).sum()
}

impl State {
    /// Notes that a step has broken `invariant`, unless `holds`.
    pub(crate) fn demand(&mut self, invariant: Invariant, holds: bool) {
        if !holds {
            self.seen.broken |= invariant.bit();
        }
    }

    /// A unit has committed: what the others have read is out of date.
    pub(crate) fn outdate_units(&mut self) {
        for host in &mut self.hosts {
            for unit in [&mut host.service.unit, &mut host.service.rest] {
                unit.stale |= unit.phase != Phase::None;
            }
        }
    }
}
