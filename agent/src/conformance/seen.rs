//! What came of the play, as plain data.

use std::time::Duration;

use crate::lease::record::Ack;

/// An answer, or why there is none.
pub type Reply = Result<Ack, String>;

/// Everything that was seen. A scene that was not reached is none.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The longest unit, as the service declared it.
    pub c_unit: Option<Duration>,
    /// How long work was waited for after it should have stopped.
    pub settle: Duration,
    /// Told STOPPED before any ACTIVE, twice.
    pub greeting: Option<(Reply, Reply)>,
    /// ACTIVE, work, then silence.
    pub silence: Option<Silence>,
    /// ACTIVE, work, then QUIESCE.
    pub quiesce: Option<Quiesce>,
    /// An ACTIVE from before that QUIESCE.
    pub stale: Option<Stale>,
    /// ACTIVE under a token below one that was installed.
    pub older: Option<Reply>,
    /// Tokens that it said it started under, and which token its database held then.
    pub stored: Vec<(u64, Option<String>)>,
    /// A higher token was installed behind the back of a working service.
    pub fence: Option<Fence>,
    /// Processes that were born during the turn and lived on after QUIESCED, or why nobody could look.
    pub leaked: Option<Result<Vec<String>, String>>,
    /// Why the play ended before its end.
    pub broke_off: Option<String>,
}

/// ACTIVE, work, then silence.
#[derive(Debug, Clone)]
pub struct Silence {
    /// The first look, after the hard deadline.
    pub first: Reply,
    /// The second, when every unit that was started in time has long ended.
    pub second: Reply,
}

/// ACTIVE, work, then QUIESCE.
#[derive(Debug, Clone)]
pub struct Quiesce {
    /// The last answer before.
    pub before: Ack,
    /// The answer to QUIESCE.
    pub answer: Reply,
    /// The answer to STOPPED, later.
    pub after: Reply,
    /// How long it took to install the next token right after QUIESCED: an open transaction would have held it up.
    pub installed: Option<Result<Duration, String>>,
}

/// An ACTIVE from before the QUIESCE.
#[derive(Debug, Clone)]
pub struct Stale {
    /// The answer to it.
    pub answer: Reply,
    /// What the service had done before it.
    pub before: Option<u64>,
    /// The answer to STOPPED, later.
    pub after: Reply,
}

/// A higher token was installed behind the back of a working service.
#[derive(Debug, Clone)]
pub struct Fence {
    /// The install beneath the working service.
    pub installed: Result<Duration, String>,
    /// Right after it, with units under way let through.
    pub first: Reply,
    /// Later.
    pub second: Reply,
}
