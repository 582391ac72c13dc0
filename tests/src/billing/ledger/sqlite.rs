//! The ledger as one SQLite file.
//!
//! **Why `BEGIN IMMEDIATE` is this database's `FOR SHARE`.** A fence check protects only if nobody can install a higher
//! token between the check and the commit. PostgreSQL needs a row lock for that (`FOR SHARE`; M7 shows what a plain
//! `SELECT` lets through). SQLite has one write lock for the whole file, and `BEGIN IMMEDIATE` takes it *before* the
//! first read: while we hold it no install can even begin, and an install that was first is what our check reads. With a
//! plain `BEGIN` the check would read an old snapshot; SQLite would then refuse our write (`SQLITE_BUSY_SNAPSHOT`), which
//! also protects, but by an error that invites a retry.

mod payments;
mod schema;

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::{Installed, LedgerError, Schedule, Writer};
use crate::billing::contract::Token;
use crate::clock::BootNs;

fn sqlite(what: &'static str) -> impl FnOnce(rusqlite::Error) -> LedgerError {
    move |source| LedgerError::Database { what, source: Box::new(source) }
}

/// A connection to the file.
#[derive(Debug)]
pub(super) struct Sqlite {
    connection: Connection,
    writer: Writer,
}

impl Sqlite {
    /// Opens the file and creates what is missing. A call waits at most `patience` for other writers.
    ///
    /// # Errors
    /// When the file cannot be opened or does not become free for `patience`.
    pub(super) fn open(path: &Path, writer: Writer, patience: Duration) -> Result<Self, LedgerError> {
        let connection = schema::open(path, patience).map_err(sqlite("opening the tables"))?;
        Ok(Self { connection, writer })
    }

    fn begin(&mut self) -> Result<Transaction<'_>, LedgerError> {
        self.connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(sqlite("waiting for the write lock"))
    }

    /// Makes `token` the installed one. Idempotent for the same instance. Returns only when no transaction under an
    /// older token can commit any more: it waits for the write lock that such a transaction would hold.
    ///
    /// # Errors
    /// [`LedgerError::Fenced`] if a higher token, or the same one for another instance, is installed.
    pub(super) fn stored_token(&self) -> Result<i64, LedgerError> {
        let read = self.connection.query_row("SELECT token FROM fence WHERE service = 'billing'", [], |row| row.get(0));
        read.map_err(sqlite("reading the fence"))
    }

    pub(super) fn install(&mut self, token: Token, period: Duration, now: BootNs) -> Result<Installed, LedgerError> {
        let writer = self.writer.clone();
        let tx = self.begin()?;
        let schedule = schedule(&tx, period, now)?;
        let changed = tx
            .execute(
                "UPDATE fence SET token = ?1, holder = ?2 WHERE service = 'billing' AND token < ?1",
                params![token.as_i64(), writer.instance.as_str()],
            )
            .map_err(sqlite("installing the token"))?;
        if changed == 0 {
            check_installed(&tx, token, &writer)?;
        } else {
            tx.execute(
                "INSERT INTO installs (commit_order, token, instance, version, at_boot_ns) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![next_order(&tx)?, token.as_i64(), writer.instance.as_str(), writer.version.as_str(), now.0],
            )
            .map_err(sqlite("recording the install"))?;
        }
        let next_tick = last_tick(&tx)? + 1;
        tx.commit().map_err(sqlite("committing the install"))?;
        Ok(Installed { schedule, next_tick })
    }

    /// One unit of the scheduler: charges the tick after the last one under `token`, and returns its number.
    ///
    /// # Errors
    /// [`LedgerError::Fenced`] if the token is not the installed one, [`LedgerError::TooLate`] if the hard deadline came
    /// first; in both cases, as for any error, nothing was written.
    pub(super) fn charge(&mut self, token: Token, hard: BootNs) -> Result<u64, LedgerError> {
        let writer = self.writer.clone();
        let tx = self.begin()?;
        check_installed(&tx, token, &writer)?;
        let tick = last_tick(&tx)? + 1;
        let order = next_order(&tx)?;
        let now = BootNs::now();
        tx.execute(
            "INSERT INTO charges (commit_order, tick, token, instance, version, at_boot_ns) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![order, tick, token.as_i64(), writer.instance.as_str(), writer.version.as_str(), now.0],
        )
        .map_err(sqlite("charging a tick"))?;
        let now = BootNs::now();
        if now >= hard {
            return Err(LedgerError::TooLate { now, hard });
        }
        tx.commit().map_err(sqlite("committing a tick"))?;
        Ok(tick)
    }
}

/// A3: the fence check, inside the transaction whose effects it protects. `=`, not `>=`: a lost install shows.
fn check_installed(tx: &Transaction<'_>, token: Token, writer: &Writer) -> Result<(), LedgerError> {
    let (installed, holder): (i64, String) = tx
        .query_row("SELECT token, holder FROM fence WHERE service = 'billing'", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .map_err(sqlite("reading the fence"))?;
    if installed == token.as_i64() && holder == writer.instance.as_str() {
        return Ok(());
    }
    Err(LedgerError::Fenced { ours: token, installed, holder })
}

fn last_tick(tx: &Transaction<'_>) -> Result<u64, LedgerError> {
    tx.query_row("SELECT coalesce(max(tick), 0) FROM charges", [], |row| row.get(0))
        .map_err(sqlite("reading the last tick"))
}

/// The place of this transaction in the order of commits, which is the order of the write lock.
fn next_order(tx: &Transaction<'_>) -> Result<u64, LedgerError> {
    tx.query_row("UPDATE commit_order SET last = last + 1 RETURNING last", [], |row| row.get(0))
        .map_err(sqlite("taking a place in the commit order"))
}

fn schedule(tx: &Transaction<'_>, period: Duration, now: BootNs) -> Result<Schedule, LedgerError> {
    let ours_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
    tx.execute(
        "INSERT OR IGNORE INTO schedule (id, origin_boot_ns, period_ns) VALUES (1, ?1, ?2)",
        params![now.0, ours_ns],
    )
    .map_err(sqlite("beginning the schedule"))?;
    let (origin, ledger_ns): (u64, u64) = tx
        .query_row("SELECT origin_boot_ns, period_ns FROM schedule", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(sqlite("reading the schedule"))?;
    if ledger_ns != ours_ns {
        return Err(LedgerError::OtherPeriod { ledger_ns, ours_ns });
    }
    Ok(Schedule { origin: BootNs(origin), period })
}

#[cfg(test)]
mod tests;
