//! Which assignments an agent takes (`DESIGN.md` §3, `SAFETY.md` E2).
//!
//! Older: refused. Same serial and same content: accepted again. Same serial, other content: its own error. A term
//! above any seen is believed only after the leader key was read.

use handover_proto::assignment::{Assignment, AssignmentError};
use handover_proto::numbers::{Serial, Term};
use serde::{Deserialize, Serialize};

/// An assignment that was accepted, with what orders it. Stands in the state file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The highest term seen.
    pub term: Term,
    /// Revision of the assignment's key.
    pub serial: Serial,
    /// The stored value, as it was.
    pub text: String,
    /// What it says.
    #[serde(skip)]
    pub parsed: Option<Assignment>,
}

/// An assignment that is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The term of the coordinator that offers it.
    pub term: Term,
    /// Revision of the assignment's key.
    pub serial: Serial,
    /// The stored value.
    pub text: String,
}

/// What to do with an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is the one that is held already.
    Same,
    /// It is new: record it, then act on it.
    New(Box<Assignment>),
    /// Read the leader key first; then ask again with `verified` at least this term.
    VerifyTerm(Term),
}

/// Why an offer is refused. The agent goes on with what it has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// From a coordinator that was deposed.
    #[error("the assignment comes from term {offered}, but term {seen} has been seen; a newer coordinator leads")]
    StaleTerm {
        /// Of the offer.
        offered: Term,
        /// The highest seen.
        seen: Term,
    },
    /// Older than the one that is held.
    #[error("the assignment has serial {offered}, but {held} is held; read the store and send the present one")]
    StaleSerial {
        /// Of the offer.
        offered: Serial,
        /// Of the one that is held.
        held: Serial,
    },
    /// The same number for two contents: one of them is forged, or the store was restored.
    #[error("serial {0} was accepted with other content; compare the store's key with the agent's state file")]
    Conflict(Serial),
    /// It is not an assignment.
    #[error("the assignment cannot be read: {0}")]
    Garbled(String),
    /// It contradicts itself, or needs a newer agent.
    #[error(transparent)]
    Invalid(#[from] AssignmentError),
}

/// Judges an offer. `verified` is the term that a linearizable read of the leader key showed, if one was made.
///
/// # Errors
/// [`Refusal`]; nothing changes then.
pub fn judge(held: Option<&Accepted>, offer: &Offer, verified: Option<Term>) -> Result<Verdict, Refusal> {
    let seen = held.map_or(Term::default(), |held| held.term);
    if offer.term < seen {
        return Err(Refusal::StaleTerm { offered: offer.term, seen });
    }
    if let Some(verified) = verified.filter(|verified| *verified != offer.term) {
        return Err(Refusal::StaleTerm { offered: offer.term, seen: verified });
    }
    match held.map(|held| (held.serial.cmp(&offer.serial), held)) {
        Some((std::cmp::Ordering::Greater, held)) => {
            return Err(Refusal::StaleSerial { offered: offer.serial, held: held.serial });
        }
        Some((std::cmp::Ordering::Equal, held)) if held.text != offer.text => {
            return Err(Refusal::Conflict(offer.serial));
        }
        Some((std::cmp::Ordering::Equal, _)) => return Ok(Verdict::Same),
        Some((std::cmp::Ordering::Less, _)) | None => {}
    }
    if offer.term > seen && verified.is_none() {
        return Ok(Verdict::VerifyTerm(offer.term));
    }
    let parsed: Assignment = serde_json::from_str(&offer.text).map_err(|error| Refusal::Garbled(error.to_string()))?;
    parsed.check()?;
    Ok(Verdict::New(Box::new(parsed)))
}
