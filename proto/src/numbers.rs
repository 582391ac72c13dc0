//! Numbers that order things: era, term, serial and fencing token.
//!
//! Revisions go back when a store is restored from a backup, so whatever must never go back carries an **era** in its
//! upper bits: 15 bits of era, 48 of revision, the sign bit free so that it fits SQL BIGINT (`SAFETY.md` §1.5).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::txn::Revision;

const REVISION_BITS: u32 = 48;
const MAX_REVISION: i64 = (1 << REVISION_BITS) - 1;
/// The highest era that fits.
pub const MAX_ERA: u16 = (1 << 15) - 1;

/// Raised by an operator after a store was restored; see `P/lease/era`.
///
/// One above [`MAX_ERA`], written by hand, cannot be read: nobody could hold under it, and whoever remembered it could not
/// believe in any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "u16")]
pub struct Era(pub u16);

/// An era that fits no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("era {0} is above {MAX_ERA}, the highest that fits a token")]
pub struct EraTooHigh(u16);

impl TryFrom<u16> for Era {
    type Error = EraTooHigh;

    fn try_from(era: u16) -> Result<Self, EraTooHigh> {
        if era > MAX_ERA { Err(EraTooHigh(era)) } else { Ok(Self(era)) }
    }
}

/// A revision or an era that does not fit its bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("era {era} with revision {revision} does not fit 15 + 48 bits; nothing was changed")]
pub struct NumberError {
    era: u16,
    revision: Revision,
}

fn pack(era: Era, revision: Revision) -> Result<i64, NumberError> {
    if era.0 > MAX_ERA || !(1..=MAX_REVISION).contains(&revision) {
        return Err(NumberError { era: era.0, revision });
    }
    Ok((i64::from(era.0) << REVISION_BITS) | revision)
}

/// What fences a turn of the lease: grows with every change of ownership and every new process of the service.
///
/// Made from the holder key's `mod_revision`, always from a read, never from a reply's header (`SAFETY.md` §1.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token(i64);

/// The right of one coordinator to decide: from the leader key's `create_revision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Term(i64);

/// Which assignment: the `mod_revision` of the key that holds it. 0: none yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Serial(pub Revision);

impl Token {
    /// The token of the turn that began in `revision`.
    ///
    /// # Errors
    /// If a number does not fit.
    pub fn new(era: Era, revision: Revision) -> Result<Self, NumberError> {
        pack(era, revision).map(Self)
    }

    /// As a service reports it; any number is a token, and the lowest fences nothing.
    pub fn from_wire(number: i64) -> Self {
        Self(number)
    }

    /// As the service stores it (SQL BIGINT).
    pub fn get(self) -> i64 {
        self.0
    }

    /// The era it was minted in.
    pub fn era(self) -> Era {
        Era((self.0 >> REVISION_BITS) as u16)
    }
}

impl Term {
    /// The term of the leader whose key was created in `revision`.
    ///
    /// # Errors
    /// If a number does not fit.
    pub fn new(era: Era, revision: Revision) -> Result<Self, NumberError> {
        pack(era, revision).map(Self)
    }

    /// From the wire; any number is a term, and the lowest wins nothing.
    pub fn from_wire(number: i64) -> Self {
        Self(number)
    }

    /// As it goes over the wire.
    pub fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // People read the revision; the era only where there has been one.
        match self.era() {
            Era(0) => write!(f, "#{}", self.0),
            Era(era) => write!(f, "#{era}.{}", self.0 & MAX_REVISION),
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_higher_era_beats_any_revision_of_a_lower_one() {
        let old = Token::new(Era(1), MAX_REVISION).expect("fits");
        let new = Token::new(Era(2), 1).expect("fits");
        assert!(new > old);
        assert_eq!((old.era(), new.era()), (Era(1), Era(2)));
        assert!(Token::new(Era(MAX_ERA), MAX_REVISION).expect("fits").get() > 0, "fits a signed BIGINT");
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        for (era, revision) in [(0, 0), (0, -1), (0, MAX_REVISION + 1), (MAX_ERA + 1, 1)] {
            assert!(Token::new(Era(era), revision).is_err(), "{era} {revision}");
            assert!(Term::new(Era(era), revision).is_err(), "{era} {revision}");
        }
    }

    #[test]
    fn an_era_that_fits_no_token_cannot_be_read() {
        assert_eq!(serde_json::from_str::<Era>("32767").expect("the highest"), Era(MAX_ERA));
        let error = serde_json::from_str::<Era>("32768").expect_err("nobody could hold under it").to_string();
        assert!(error.contains("32768") && error.contains("32767"), "{error}");
    }

    #[test]
    fn people_see_the_revision_and_the_era_only_if_there_is_one() {
        assert_eq!(Token::new(Era(0), 48).expect("fits").to_string(), "#48");
        assert_eq!(Token::new(Era(2), 48).expect("fits").to_string(), "#2.48");
    }
}
