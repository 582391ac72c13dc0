//! The scheduler lease in the store: values (`SAFETY.md` §1.3) and transactions (§1.6).

mod orders;
#[cfg(test)]
mod orders_tests;
mod roster;
#[cfg(test)]
mod stored_tests;
mod txn;
#[cfg(test)]
mod txn_tests;
mod values;
mod view;

pub use orders::{after_last_turn, ask, break_glass, mend_era, raise_era};
pub use roster::{MAX_LISTED, list_agents};
pub use txn::{Refused, Stamp, Turn, acquire, hand_over, mint, read, release, take_over};
pub use values::{
    Assertion, Beat, BreakGlass, Candidate, EraValue, Free, Guard, Held, Holder, HolderState, Intent, IntentKind,
    LeaseCause, Owner, Roster, StopProof,
};
pub use view::{Corrupt, LeaseView, RawEntry, Seen};
