//! The evidence as rows: the ledger's tables and the lines of the activity files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};

use crate::billing::activity::Line;
use crate::billing::ledger::Schedule;
use crate::clock::BootNs;

/// Evidence that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// The ledger.
    #[error("reading the ledger {path}")]
    Ledger {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// An activity file.
    #[error("reading the activity file {path}")]
    Activity {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line of an activity file that is not the last, cut-off one.
    #[error("line {line} of the activity file {path}: {detail}")]
    Line {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// Why.
        detail: String,
    },
}

/// What a transaction of the scheduler wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// A token became the installed one.
    Install,
    /// This tick was charged.
    Charge(u64),
}

/// One committed transaction of the scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Its place in the order of commits.
    pub order: u64,
    /// Under which token.
    pub token: i64,
    /// By which instance.
    pub instance: String,
    /// Of which version.
    pub version: String,
    /// When: read inside the transaction, a commit's length before it was durable.
    pub at: BootNs,
    /// What.
    pub what: What,
}

/// The ledger's content.
#[derive(Debug, Clone, Default)]
pub struct LedgerRows {
    /// Installs and charges in the order of commits.
    pub commits: Vec<Commit>,
    /// When ticks are due; `None` if nobody ever held.
    pub schedule: Option<Schedule>,
    /// Payments by idempotency key: account and cents of every row that has it.
    pub payments: BTreeMap<String, Vec<(String, i64)>>,
}

fn commit(row: &Row<'_>) -> rusqlite::Result<Commit> {
    let what = row.get::<_, Option<u64>>(5)?.map_or(What::Install, What::Charge);
    let (order, token, instance, version) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
    Ok(Commit { order, token, instance, version, at: BootNs(row.get(4)?), what })
}

/// Reads the ledger in one snapshot, while services may still be writing.
///
/// # Errors
/// [`RowsError::Ledger`].
pub fn ledger(path: &Path) -> Result<LedgerRows, RowsError> {
    // Not read-only: a WAL file without a living writer needs its shared-memory file created.
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .and_then(|mut connection| read_ledger(&mut connection))
        .map_err(|source| RowsError::Ledger { path: path.to_owned(), source })
}

fn read_ledger(connection: &mut Connection) -> rusqlite::Result<LedgerRows> {
    let tx = connection.transaction()?;
    let commits = tx
        .prepare(
            "SELECT commit_order, token, instance, version, at_boot_ns, NULL FROM installs
             UNION ALL SELECT commit_order, token, instance, version, at_boot_ns, tick FROM charges ORDER BY 1",
        )?
        .query_map([], commit)?
        .collect::<Result<_, _>>()?;
    let schedule = tx
        .query_row("SELECT origin_boot_ns, period_ns FROM schedule", [], |row| {
            let (origin, period) = (BootNs(row.get(0)?), std::time::Duration::from_nanos(row.get(1)?));
            Ok(Schedule { origin, period })
        })
        .optional()?;
    let mut payments: BTreeMap<String, Vec<(String, i64)>> = BTreeMap::new();
    let mut query = tx.prepare("SELECT idempotency_key, account, cents FROM payments")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        payments.entry(row.get(0)?).or_default().push((row.get(1)?, row.get(2)?));
    }
    Ok(LedgerRows { commits, schedule, payments })
}

/// Reads activity files, merged by time. The last line of a file may be cut off: its writer was killed.
///
/// # Errors
/// [`RowsError::Activity`] and [`RowsError::Line`].
pub fn activity(paths: &[&Path]) -> Result<Vec<Line>, RowsError> {
    let mut lines = Vec::new();
    for path in paths {
        let text =
            std::fs::read_to_string(path).map_err(|source| RowsError::Activity { path: path.to_path_buf(), source })?;
        for (number, line) in text.split_inclusive('\n').enumerate() {
            match serde_json::from_str(line) {
                Ok(line) => lines.push(line),
                Err(_) if !line.ends_with('\n') => {}
                Err(error) => {
                    let detail = error.to_string();
                    return Err(RowsError::Line { path: path.to_path_buf(), line: number + 1, detail });
                }
            }
        }
    }
    // Stable: lines of one process with equal times keep their order.
    lines.sort_by_key(|line: &Line| line.at_boot_ns);
    Ok(lines)
}

#[cfg(test)]
mod tests;
