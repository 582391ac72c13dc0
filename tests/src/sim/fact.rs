//! What happens in a run, as the checkers and the trace see it: plain values with the true time beside them.

use std::fmt;
use std::hash::{Hash, Hasher};

use handover_proto::blocker::BlockerKind;
use handover_proto::txn::{LeaseId, Revision};

/// One process of the service, counted through the run.
pub type Who = usize;
/// A fencing token, as the service stores it.
pub type Token = i64;

/// Which of the lease's transactions changed the turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// T1.
    Acquire,
    /// T2.
    TakeOver,
    /// T3.
    HandOver,
    /// T4.
    Release,
    /// T5.
    Mint,
    /// T6.
    Operator,
}

/// A turn as a revision of the holder key shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Turn {
    /// The holder key's mod revision.
    pub revision: Revision,
    /// The token that it makes.
    pub token: Token,
    /// By which transaction.
    pub kind: Kind,
    /// Who holds; none: it is free.
    pub holder: Option<Who>,
    /// The host of whoever holds, or held last.
    pub host: usize,
    /// The beat in the same revision: who, its mod revision, its etcd lease.
    pub beat: Option<(Option<Who>, Revision, LeaseId)>,
    /// The etcd lease that the holder's candidate key stands on.
    pub candidate: Option<LeaseId>,
    /// How long a taker has to have seen the beat absent, by its own clock, in true microseconds; 0: it has proof.
    pub quarantine_us: u64,
    /// The newest turn that the acting agent knew of when it asked: what it never heard of, it cannot compare.
    pub knew: Revision,
}

/// How an etcd lease stands when a deadline is told that hangs on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stands {
    /// The store cannot expire it before this true moment.
    Until(u64),
    /// It expired by itself at this true moment.
    Expired(u64),
    /// Taken away before its time, by a defect or an operator.
    Revoked,
}

/// What an operation on the holder key did, as its caller knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Returned {
    /// It saw this turn (0: none).
    Read(Revision),
    /// It wrote the turn of this revision.
    Wrote(Revision),
    /// It did nothing, for certain.
    Nothing,
    /// Nobody knows.
    Unknown,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "each variant says what its fields are; one sentence for each field would say it twice")]
pub enum Fact {
    /// A unit of work begins; the newest turn that its agent knew of.
    Began { who: Who, token: Token, knew: Revision },
    /// It ends, or its process does.
    Ended { who: Who },
    /// The process does not execute from here on, and its clocks will show it or not.
    Froze { who: Who },
    /// The database has made this the only valid token.
    Installed { who: Who, token: Token },
    /// An effect is committed.
    Committed { who: Who, token: Token, tick: u64 },
    /// Ownership changes.
    Turned(Turn),
    /// The beat goes away without a change of ownership.
    BeatLost { revision: Revision },
    /// A service is told ACTIVE, with the hard deadline as a true moment, and what it hangs on.
    Told { who: Who, token: Token, hard_us: u64, stands: Stands },
    /// An agent's last word on why it waits, and whether it is one that should act.
    Waits { host: usize, acts: bool, why: Option<BlockerKind> },
    /// An agent is gone.
    Down { host: usize },
    /// An operation on the holder key begins: a read, or a write on top of the turn of a revision.
    Asks { id: u64, on: Option<Revision> },
    /// The store carried the write out.
    Did { id: u64, revision: Revision },
    /// Its caller knows this of it.
    Hears { id: u64, returned: Returned },
    /// An agent says that nobody works under this token, now or later.
    Certified { token: Token, dead: bool },
    /// The store went back to an earlier state, in which the holder key has this revision (0: none) and this turn.
    Restored { holder: Revision, turn: Option<(Token, Who)> },
    /// Something goes wrong, or is asked for.
    Nemesis(String),
    /// Somebody should work again from this long after now.
    Healed { within_us: u64 },
    /// At the end: what is left in the store that nobody needs.
    Left { what: String },
}

impl Hash for Fact {
    /// For the trace's hash: the same facts, the same number.
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Self::Began { who, token, knew } => (who, token, knew).hash(state),
            Self::Installed { who, token } => (who, token).hash(state),
            Self::Ended { who } | Self::Froze { who } => who.hash(state),
            Self::Committed { who, token, tick } => (who, token, tick).hash(state),
            Self::Turned(turn) => turn.hash(state),
            Self::BeatLost { revision } => revision.hash(state),
            Self::Told { who, token, hard_us, stands } => (who, token, hard_us, stands).hash(state),
            Self::Waits { host, acts, why } => {
                (host, acts).hash(state);
                why.as_ref().map(std::mem::discriminant).hash(state);
            }
            Self::Down { host } => host.hash(state),
            Self::Asks { id, on } => (id, on).hash(state),
            Self::Did { id, revision } => (id, revision).hash(state),
            Self::Hears { id, returned } => (id, returned).hash(state),
            Self::Certified { token, dead } => (token, dead).hash(state),
            Self::Restored { holder, turn } => (holder, turn).hash(state),
            Self::Healed { within_us } => within_us.hash(state),
            Self::Nemesis(what) | Self::Left { what } => what.hash(state),
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nemesis(what) => write!(f, "*** {what}"),
            other => write!(f, "{other:?}"),
        }
    }
}
