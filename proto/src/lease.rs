//! The scheduler lease in the store: values (`SAFETY.md` §1.3) and transactions (§1.6).

mod txn;
#[cfg(test)]
mod txn_tests;
mod values;
mod view;

pub use txn::{Refused, Turn, acquire, ask, hand_over, mint, read, release, take_over};
pub use values::{
    Beat, Candidate, EraValue, Free, Held, Holder, HolderState, Intent, IntentKind, LeaseCause, Owner, StopProof,
};
pub use view::{Corrupt, LeaseView, RawEntry, Seen};
