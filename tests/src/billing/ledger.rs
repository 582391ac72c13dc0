//! The ledger that all instances share, and the fence in it (`SAFETY.md` §1.11): a SQLite file, or PostgreSQL with the
//! shipped SQL guard.
//!
//! **What the tables must not hide.** `charges` has no unique tick: once per tick is what lease, fence and "the tick
//! after the last one, read in the same transaction" have to achieve, and a checker counts whether they did. `payments`
//! is unique by idempotency key, since there the key *is* the promise.

mod at;
pub mod postgres;
mod sqlite;

pub use at::LedgerAt;

use std::time::Duration;

use handover_proto::ids::{InstanceId, Version};

use self::postgres::Postgres;
use self::sqlite::Sqlite;
use crate::billing::contract::Token;
use crate::clock::BootNs;

/// What the ledger refused or failed at.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The token is not, or no longer, the installed one.
    #[error("FENCED: token {ours} is not the installed one, which is {installed} of instance {holder}")]
    Fenced {
        /// The token of the unit or install.
        ours: Token,
        /// The installed one.
        installed: i64,
        /// Who installed it.
        holder: String,
    },
    /// The unit was not ready to commit before its hard deadline.
    #[error("rolled back: at {now} the hard deadline {hard} was over")]
    TooLate {
        /// When it would have been committed.
        now: BootNs,
        /// The deadline.
        hard: BootNs,
    },
    /// The file was begun with another tick period.
    #[error("the ledger has a tick of {ledger_ns} ns, this instance was started for {ours_ns} ns: use one period")]
    OtherPeriod {
        /// In the file.
        ledger_ns: u64,
        /// Ours.
        ours_ns: u64,
    },
    /// The database failed.
    #[error("{what} in the ledger")]
    Database {
        /// The operation.
        what: &'static str,
        /// The database's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An address that is none.
    #[error("--ledger {0:?}: write the path of a SQLite file, or postgres://USER@HOST:PORT/DATABASE")]
    Address(String),
}

/// Who writes.
#[derive(Debug, Clone)]
pub struct Writer {
    /// The process.
    pub instance: InstanceId,
    /// Its version.
    pub version: Version,
}

/// When ticks are due: tick n at `origin + (n - 1) * period`. Begun by the first install ever, then the same for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Tick 1 is due here.
    pub origin: BootNs,
    /// From tick to tick.
    pub period: Duration,
}

impl Schedule {
    /// When tick `tick` (from 1) is due.
    pub fn due(&self, tick: u64) -> BootNs {
        let steps = tick.saturating_sub(1);
        BootNs(
            self.origin
                .0
                .saturating_add(steps.saturating_mul(u64::try_from(self.period.as_nanos()).unwrap_or(u64::MAX))),
        )
    }
}

/// What an install found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Installed {
    /// When ticks are due.
    pub schedule: Schedule,
    /// The first tick that nobody has charged.
    pub next_tick: u64,
}

/// One write of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// The client's idempotency key.
    pub key: String,
    /// Whose account.
    pub account: String,
    /// How much, may be negative.
    pub cents: i64,
}

/// What became of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paid {
    /// Written now.
    New,
    /// The same payment was written before.
    Again,
    /// Another payment was written under this key before.
    Conflict,
}

/// A connection to the ledger. Every call may block: open and use it on a thread without a runtime.
#[derive(Debug)]
pub struct Ledger(Database);

#[derive(Debug)]
enum Database {
    Sqlite(Sqlite),
    Postgres(Box<Postgres>),
}

impl Ledger {
    /// Opens the ledger and creates what is missing. A call waits at most `patience` for other writers.
    ///
    /// # Errors
    /// When it cannot be opened or does not become free for `patience`.
    pub fn open(at: &LedgerAt, writer: Writer, patience: Duration) -> Result<Self, LedgerError> {
        Ok(Self(match at {
            LedgerAt::File(path) => Database::Sqlite(Sqlite::open(path, writer, patience)?),
            LedgerAt::Postgres { url, check } => {
                Database::Postgres(Box::new(Postgres::open(url, *check, writer, patience)?))
            }
        }))
    }

    /// Makes `token` the installed one. Idempotent for the same instance. Returns only when no transaction under an
    /// older token can commit any more.
    ///
    /// # Errors
    /// [`LedgerError::Fenced`] if a higher token, or the same one for another instance, is installed.
    pub fn install(&mut self, token: Token, period: Duration, now: BootNs) -> Result<Installed, LedgerError> {
        match &mut self.0 {
            Database::Sqlite(ledger) => ledger.install(token, period, now),
            Database::Postgres(ledger) => ledger.install(token, period, now),
        }
    }

    /// The highest token that was ever installed; none: none was.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn stored_token(&mut self) -> Result<Option<Token>, LedgerError> {
        let token = match &mut self.0 {
            Database::Sqlite(ledger) => ledger.stored_token()?,
            Database::Postgres(ledger) => ledger.stored_token()?,
        };
        Ok(Token::try_from(token).ok())
    }

    /// One unit of the scheduler: charges the tick after the last one under `token`, and returns its number. `work` is
    /// what the unit does before it commits: in PostgreSQL between check and commit, with SQLite before both, since its
    /// check locks out every other writer.
    ///
    /// # Errors
    /// [`LedgerError::Fenced`] if the token is not the installed one, [`LedgerError::TooLate`] if the hard deadline came
    /// first; in both cases, as for any error, nothing was written (or, if the connection broke at the commit, nobody
    /// knows; the next unit reads what stands).
    pub fn charge(&mut self, token: Token, hard: BootNs, work: impl FnOnce()) -> Result<u64, LedgerError> {
        match &mut self.0 {
            Database::Sqlite(ledger) => {
                work();
                ledger.charge(token, hard)
            }
            Database::Postgres(ledger) => ledger.charge(token, hard, work),
        }
    }

    /// Writes payments in one transaction, so that clients who wait at the same time share one fsync. All or none.
    ///
    /// # Errors
    /// When the database fails; then none is written, or nobody knows, and the same keys may be tried again.
    pub fn pay(&mut self, payments: &[Payment]) -> Result<Vec<Paid>, LedgerError> {
        match &mut self.0 {
            Database::Sqlite(ledger) => ledger.pay(payments),
            Database::Postgres(ledger) => ledger.pay(payments),
        }
    }

    /// The balance of an account in cents; 0 for one that was never paid into.
    ///
    /// # Errors
    /// When the database fails.
    pub fn balance(&mut self, account: &str) -> Result<i64, LedgerError> {
        match &mut self.0 {
            Database::Sqlite(ledger) => ledger.balance(account),
            Database::Postgres(ledger) => ledger.balance(account),
        }
    }
}
