//! The contract with the agent beside us, as JSON: what it tells (`LeaseRecord`), what we answer (`Ack`).
//!
//! Pull: `GET /v1/lease?instance=ID` on the agent's Unix socket. Push: `POST /handover/lease` on our own port.
//! Unknown fields are ignored on both sides, so that either may be one version ahead.

use std::fmt;
use std::time::Duration;

use handover_proto::ids::InstanceId;
use serde::{Deserialize, Serialize};

use crate::clock::{BootNs, ClockName};

/// A fencing token: on the wire a decimal string (JSON numbers lose digits above 2^53), in SQLite a 64-bit integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token(i64);

/// A text or number that cannot be a fencing token.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a fencing token: a decimal number from 1 to 9223372036854775807 in a string is")]
pub struct TokenError(String);

impl Token {
    /// As SQLite keeps it; always above 0.
    pub fn as_i64(self) -> i64 {
        self.0
    }
}

impl TryFrom<i64> for Token {
    type Error = TokenError;
    fn try_from(number: i64) -> Result<Self, TokenError> {
        if number > 0 { Ok(Self(number)) } else { Err(TokenError(number.to_string())) }
    }
}

impl TryFrom<String> for Token {
    type Error = TokenError;
    fn try_from(text: String) -> Result<Self, TokenError> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|n| digits && *n > 0).map(Self).ok_or(TokenError(text))
    }
}

impl From<Token> for String {
    fn from(token: Token) -> Self {
        token.0.to_string()
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the agent says of our right to schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Told {
    /// Schedule under the token, up to the soft deadline.
    Active,
    /// Finish the current unit, start none.
    Quiesce,
    /// Not ours.
    Stopped,
    /// The token is dead: drop what is queued.
    Fenced,
    /// The agent does not know; never treated as held (I11).
    #[serde(other)]
    Unknown,
}

/// One message of the agent. Messages only ever extend the right; silence ends it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// Format, 1.
    pub v: u32,
    /// Whom it is for.
    pub instance: InstanceId,
    /// What we may do.
    pub state: Told,
    /// The fencing token; null where none is held.
    #[serde(default)]
    pub token: Option<Token>,
    /// Grows with every change; a lower one than seen is stale.
    pub seq: u64,
    /// The operation (hand over) that asks.
    #[serde(default)]
    pub op: Option<String>,
    /// The agent's boot id.
    #[serde(default)]
    pub boot_id: String,
    /// The agent's time namespace.
    #[serde(default)]
    pub time_ns: String,
    /// No new unit from here on, CLOCK_BOOTTIME of the agent.
    #[serde(default)]
    pub soft_deadline_boot_ns: u64,
    /// Work has stopped from here on, CLOCK_BOOTTIME of the agent.
    #[serde(default)]
    pub hard_deadline_boot_ns: u64,
    /// The same as a span, for a reader with another clock.
    #[serde(default)]
    pub remaining_soft_ms: u64,
    /// The same as a span.
    #[serde(default)]
    pub remaining_hard_ms: u64,
    /// For people.
    #[serde(default)]
    pub reason: String,
}

/// Up to when we may work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Deadline {
    /// No new unit at or after this moment.
    pub soft: BootNs,
    /// Nothing may be committed at or after this moment.
    pub hard: BootNs,
}

impl LeaseRecord {
    /// The deadline on our clock. `asked_at` is when we *sent* the request that this record answers; a pushed record has
    /// none. `None` if the record was pushed by an agent with another clock: its spans began to run at a moment that we
    /// cannot know, and counting them from receipt would be too long.
    pub fn deadline(&self, ours: &ClockName, asked_at: Option<BootNs>) -> Option<Deadline> {
        if self.boot_id == ours.boot_id && self.time_ns == ours.time_ns {
            return Some(Deadline {
                soft: BootNs(self.soft_deadline_boot_ns),
                hard: BootNs(self.hard_deadline_boot_ns),
            });
        }
        asked_at.map(|sent| Deadline {
            soft: sent.after(Duration::from_millis(self.remaining_soft_ms)),
            hard: sent.after(Duration::from_millis(self.remaining_hard_ms)),
        })
    }
}

/// What we answer to a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Answer {
    /// The token is installed in the ledger; units may run.
    Started,
    /// Nothing runs and nothing will, until a new ACTIVE.
    Quiesced,
    /// Not done; the detail says why.
    Failed,
}

/// Our answer to one pushed record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Format, 1.
    pub v: u32,
    /// The record's token; null if it had none.
    pub token: Option<Token>,
    /// The record's seq.
    pub seq: u64,
    /// What became of it.
    pub state: Answer,
    /// Units running.
    pub in_flight: u32,
    /// The longest piece of work that we cannot abort, in milliseconds.
    pub c_unit_ms: u64,
    /// Units that have ended so far.
    pub progress: u64,
    /// `progress` grows at least this often while a unit runs, in milliseconds.
    pub progress_interval_ms: u64,
    /// The highest token that is installed in the ledger; null: none, or not asked.
    pub stored_token: Option<Token>,
    /// The ledger ends a statement and waits for its lock no longer than this, in milliseconds.
    pub statement_timeout_ms: u64,
    /// For people; says why for FAILED.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> LeaseRecord {
        let text = r#"{"v":1,"instance":"00000000000000aa","state":"ACTIVE","token":"281474976710705","seq":12,"op":null,
            "boot_id":"b","time_ns":"time:[1]","soft_deadline_boot_ns":123,"hard_deadline_boot_ns":456,
            "remaining_soft_ms":5000,"remaining_hard_ms":7000,"reason":"held","from_a_later_version":true}"#;
        serde_json::from_str(text).expect("the contract's own example")
    }

    fn clock(boot_id: &str, time_ns: &str) -> ClockName {
        ClockName { boot_id: boot_id.to_owned(), time_ns: time_ns.to_owned() }
    }

    #[test]
    fn a_token_keeps_all_its_digits_and_is_never_zero_or_negative() {
        assert_eq!(record().token.map(String::from).as_deref(), Some("281474976710705"));
        for bad in ["0", "-1", "+5", "", "9223372036854775808", "1.0"] {
            Token::try_from(bad.to_owned()).expect_err(bad);
        }
    }

    #[test]
    fn with_the_same_clock_the_absolute_deadlines_count() {
        let deadline = record().deadline(&clock("b", "time:[1]"), None).expect("comparable");
        assert_eq!(deadline, Deadline { soft: BootNs(123), hard: BootNs(456) });
    }

    #[test]
    fn with_another_clock_only_a_pull_gives_a_deadline_counted_from_its_sending() {
        for other in [clock("c", "time:[1]"), clock("b", "time:[2]")] {
            assert_eq!(record().deadline(&other, None), None);
            let deadline = record().deadline(&other, Some(BootNs(7))).expect("from sending");
            assert_eq!(deadline, Deadline { soft: BootNs(5_000_000_007), hard: BootNs(7_000_000_007) });
        }
    }

    #[test]
    fn a_state_from_a_later_version_is_unknown_and_never_active() {
        assert_eq!(serde_json::from_str::<Told>("\"FAILSAFE\"").expect("other"), Told::Unknown);
    }
}
