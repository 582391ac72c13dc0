//! The right to schedule, as a value: what billing may do, given what it was told. Pure; the time comes in.
//!
//! ```text
//!            ACTIVE, installed             QUIESCE, STOPPED, FENCED, UNKNOWN, fenced by the ledger
//! Stopped ------------------------> Active -----------------------------------------------------> Ended
//!    ^ A5: where every process starts  ^  |  ACTIVE, same token: deadline only ever grows           |
//!    |                                 |  +--> Active                                               |
//!    |                                 +------------------------------------------------------------+
//!    |                                                ACTIVE with a higher seq, installed (A8)
//! ```
//! Silence needs no arrow: [`Right::may_start`] compares with the soft deadline each time (A1).

use crate::billing::contract::{Deadline, LeaseRecord, Token, Told};
use crate::clock::BootNs;

/// Where billing stands towards the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Never held in this process (A5).
    Stopped,
    /// Units may start while now is before `deadline.soft`.
    Active {
        /// Under which token.
        token: Token,
        /// Up to when.
        deadline: Deadline,
    },
    /// Held once; final for this token until a new ACTIVE (A8).
    Ended {
        /// The token it was.
        token: Token,
        /// What ended it.
        why: Ended,
    },
}

/// What ended the right to schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The agent asked for a hand-over or took the right back.
    Told(Told),
    /// The ledger holds a higher token.
    FencedByLedger,
}

/// What a record asks of the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Install this token, then call [`Right::installed`].
    Install {
        /// The token to install.
        token: Token,
        /// The deadline to work under once it is.
        deadline: Deadline,
    },
    /// Still active; the deadline grew or stayed.
    Extended,
    /// Nothing may start any more.
    Ended,
    /// Ignored.
    Refused(Refusal),
}

/// Why a record is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An older record than one already heard.
    #[error("stale: seq {seq} is below {seen}, which was heard before")]
    Stale {
        /// The record's.
        seq: u64,
        /// Ours.
        seen: u64,
    },
    /// ACTIVE under the very seq that ended the right: resuming needs a new ACTIVE (A8).
    #[error("seq {seq} ended the right to schedule: resuming needs an ACTIVE with a higher seq")]
    NotNew {
        /// The record's.
        seq: u64,
    },
    /// ACTIVE that names no token.
    #[error("ACTIVE without a fencing token")]
    NoToken,
}

/// The right to schedule of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Right {
    seen: u64,
    standing: Standing,
}

impl Right {
    /// The right that every process starts with: none (A5).
    pub fn none() -> Self {
        Self { seen: 0, standing: Standing::Stopped }
    }

    /// Where we stand.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Takes in one record; `deadline` is the record's, on our clock.
    pub fn hear(&mut self, record: &LeaseRecord, deadline: Deadline) -> Heard {
        if record.seq < self.seen {
            return Heard::Refused(Refusal::Stale { seq: record.seq, seen: self.seen });
        }
        let repeated = record.seq == self.seen;
        self.seen = record.seq;
        if record.state != Told::Active {
            self.end(Ended::Told(record.state));
            return Heard::Ended;
        }
        let Some(told) = record.token else { return Heard::Refused(Refusal::NoToken) };
        match self.standing {
            Standing::Active { token, deadline: ours } if token == told => {
                // I15: a deadline never moves backwards except to stop.
                let deadline = Deadline { soft: ours.soft.max(deadline.soft), hard: ours.hard.max(deadline.hard) };
                self.standing = Standing::Active { token, deadline };
                Heard::Extended
            }
            Standing::Ended { .. } if repeated => Heard::Refused(Refusal::NotNew { seq: record.seq }),
            Standing::Stopped | Standing::Active { .. } | Standing::Ended { .. } => {
                self.end(Ended::Told(Told::Stopped));
                Heard::Install { token: told, deadline }
            }
        }
    }

    /// The token is installed in the ledger, so that units may start.
    pub fn installed(&mut self, token: Token, deadline: Deadline) {
        self.standing = Standing::Active { token, deadline };
    }

    /// The ledger holds another token than ours.
    pub fn fenced(&mut self) {
        self.end(Ended::FencedByLedger);
    }

    /// The right ends for the current token, if there is one.
    pub fn end(&mut self, why: Ended) {
        if let Standing::Active { token, .. } = self.standing {
            self.standing = Standing::Ended { token, why };
        }
    }

    /// A1: a unit may start only under this token, and must be committed before this deadline's hard part.
    pub fn may_start(&self, now: BootNs) -> Option<(Token, Deadline)> {
        match self.standing {
            Standing::Active { token, deadline } if now < deadline.soft => Some((token, deadline)),
            Standing::Active { .. } | Standing::Stopped | Standing::Ended { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
