//! What the model must be able to reach: otherwise its invariants would hold of nothing.

use stateright::Property;

use crate::rules::Rules;
use crate::state::{Kind, Phase, State};

/// Something good, or at least instructive, that some run reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The service works in a turn that began by T1.
    Acquired,
    /// By T2.
    TakenOver,
    /// By T3.
    HandedOver,
    /// By T5.
    Minted,
    /// The lease was given up by T4.
    Released,
    /// An install waits for a COMMIT of a dead process.
    InstallWaits,
    /// A unit is refused by the fence.
    Refused,
    /// Two processes execute work at once: only the fence keeps their effects apart.
    TwoWork,
}

impl Reach {
    /// Its name, as the checker prints it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acquired => "a free lease is acquired, and its holder works",
            Self::TakenOver => "a lost holder's lease is taken over, and the new holder works",
            Self::HandedOver => "a hand-over completes, and the new holder works",
            Self::Minted => "a holder that lost its lease has a new turn, and works",
            Self::Released => "the lease is given up",
            Self::InstallWaits => "an install waits for a transaction of an older token",
            Self::Refused => "the fence refuses a unit",
            Self::TwoWork => "two processes work at once",
        }
    }

    /// The property that stateright looks for.
    pub fn property(self) -> Property<Rules> {
        macro_rules! sometimes {
            ($($name:ident: $condition:expr),* $(,)?) => { match self {
                $(Self::$name => Property::sometimes(self.name(), |_, state| $condition(state)),)*
            } };
        }
        sometimes! {
            Acquired: |state| works(state, Kind::Acquire),
            TakenOver: |state| works(state, Kind::TakeOver),
            HandedOver: |state| works(state, Kind::HandOver),
            Minted: |state| works(state, Kind::Mint),
            Released: |state: &State| state.etcd.holder.cause == Kind::Release,
            InstallWaits: install_waits,
            Refused: |state| any_unit(state, Phase::Doomed),
            TwoWork: |state: &State| !crate::invariant::Invariant::I3.holds(state),
        }
    }
}

/// The present turn began by `cause`, and a unit under its token runs.
fn works(state: &State, cause: Kind) -> bool {
    let holder = state.etcd.holder;
    let service = &state.hosts[usize::from(holder.who.host)].service;
    let unit = service.unit;
    let current = unit.token == holder.era << 4 | holder.rev && service.life == holder.who.life;
    holder.held && (holder.rev > 1 || holder.era > 0) && holder.cause == cause && unit.runs() && current
}

fn install_waits(state: &State) -> bool {
    let waits = |token: u8| state.hosts.iter().any(|host| !host.service.installed && host.service.token > token);
    state.hosts.iter().any(|host| {
        let units = [host.service.unit, host.service.rest];
        units.iter().any(|unit| unit.locks() && waits(unit.token))
    })
}

fn any_unit(state: &State, phase: Phase) -> bool {
    state.hosts.iter().any(|host| host.service.unit.phase == phase || host.service.rest.phase == phase)
}
