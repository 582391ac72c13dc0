//! Mistakes that the simulator plants into the decision code, to prove that its checkers would find them.
//!
//! Without the feature `mutants` [`planted`] is a constant `false` and nothing can be planted: shipped builds have none of
//! it. The feature is off by default, no crate that is shipped turns it on, and a test of the agent guards that.

/// A mistake (`SAFETY.md` §3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mistake {
    /// A process that is started anew takes up the turn of the one before it.
    SameTokenForNewProcess,
    /// A deadline counts from the receipt of the renewal's answers.
    CountsFromReceipt,
    /// Keep-alive and barrier may be answered in different terms.
    NoTermCheck,
    /// The TTL that was asked for counts, whatever the store granted.
    RequestedTtl,
    /// A taker does not wait.
    NoQuarantine,
    /// The quarantine counts from the time-stamp in the holder key.
    QuarantineFromEvent,
    /// T3 is sent before the service has acknowledged QUIESCED.
    HandOverBeforeQuiesced,
    /// T3 does not compare the successor's candidate key.
    SuccessorNotCompared,
    /// The token is made of the create revision.
    CreateRevisionToken,
    /// A transaction without an answer counts as one that did nothing.
    UnknownIsFailure,
    /// An agent that starts anew counts a whole TTL from its start.
    BaseFromRestart,
}

#[cfg(feature = "mutants")]
mod on {
    use std::cell::Cell;

    use super::Mistake;

    thread_local! {
        /// One bit for each that is planted.
        static PLANTED: Cell<u32> = const { Cell::new(0) };
    }

    const fn bit(mistake: Mistake) -> u32 {
        1 << mistake as u32
    }

    /// Whether this mistake is to be made, on this thread.
    pub fn planted(mistake: Mistake) -> bool {
        PLANTED.get() & bit(mistake) != 0
    }

    /// Plants a mistake on this thread, or none. Returns whether this build can.
    pub fn plant(mistake: Option<Mistake>) -> bool {
        PLANTED.set(mistake.map_or(0, bit));
        true
    }

    /// Plants what the environment names on this thread: for real processes. After a comma, a hole in a second net.
    ///
    /// # Errors
    /// If it names no mistake: a run under it would prove nothing.
    pub fn plant_from_env() -> Result<(), super::NoSuchMistake> {
        let Ok(names) = std::env::var(super::VARIABLE) else { return Ok(()) };
        let mut all = 0;
        for name in names.split(',') {
            let mistake = super::NAMES.into_iter().find(|(known, _)| *known == name);
            all |= bit(mistake.ok_or_else(|| super::NoSuchMistake(name.to_owned()))?.1);
        }
        PLANTED.set(all);
        Ok(())
    }
}

#[cfg(not(feature = "mutants"))]
mod on {
    use super::Mistake;

    /// Whether this mistake is to be made: never.
    #[inline(always)]
    pub const fn planted(_: Mistake) -> bool {
        false
    }

    /// Plants nothing. Returns whether this build can: it cannot.
    pub const fn plant(_: Option<Mistake>) -> bool {
        false
    }

    /// Plants nothing.
    ///
    /// # Errors
    /// Never.
    pub const fn plant_from_env() -> Result<(), super::NoSuchMistake> {
        Ok(())
    }
}

pub use on::{plant, plant_from_env, planted};

/// Names the mistakes that a process with the feature makes, with commas between them.
pub const VARIABLE: &str = "HANDOVER_PLANT";

/// The names of those that chaos plants into real agents.
pub const NAMES: [(&str, Mistake); 8] = [
    ("same-token-for-a-new-process", Mistake::SameTokenForNewProcess),
    ("no-term-check", Mistake::NoTermCheck),
    ("no-quarantine", Mistake::NoQuarantine),
    ("quarantine-from-the-event", Mistake::QuarantineFromEvent),
    ("hand-over-before-quiesced", Mistake::HandOverBeforeQuiesced),
    ("create-revision-as-token", Mistake::CreateRevisionToken),
    ("unknown-is-failure", Mistake::UnknownIsFailure),
    ("base-from-the-restart", Mistake::BaseFromRestart),
];

/// The environment asks for a mistake that there is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("HANDOVER_PLANT={0}: there is no mistake of this name")]
pub struct NoSuchMistake(String);

#[cfg(all(test, not(feature = "mutants")))]
mod tests {
    use super::*;

    #[test]
    fn a_build_without_the_feature_makes_no_mistake() {
        const NEVER: bool = planted(Mistake::NoQuarantine);
        assert!(!plant(Some(Mistake::NoQuarantine)) && !NEVER);
    }
}
