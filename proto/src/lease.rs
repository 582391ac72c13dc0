//! The scheduler lease in the store: values (`SAFETY.md` §1.3) and transactions (§1.6).

#[cfg(test)]
mod stored_tests;
mod txn;
#[cfg(test)]
mod txn_tests;
mod values;
mod view;

pub use txn::{Refused, Stamp, Turn, acquire, ask, hand_over, mint, read, release, take_over};
pub use values::{
    Assertion, Beat, BreakGlass, Candidate, EraValue, Free, Guard, Held, Holder, HolderState, Intent, IntentKind,
    LeaseCause, Owner, Roster, StopProof,
};
pub use view::{Corrupt, LeaseView, RawEntry, Seen};
