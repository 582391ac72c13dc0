//! The evidence as rows: the ledger's tables and the lines of the activity files.

mod pg;
mod sqlite;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::billing::activity::Line;
use crate::billing::ledger::{LedgerAt, Schedule};
use crate::clock::BootNs;

/// Evidence that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// The ledger.
    #[error("reading the ledger {path}")]
    Ledger {
        /// Which.
        path: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
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

/// Reads the ledger in one snapshot, while services may still be writing. Blocks.
///
/// # Errors
/// [`RowsError::Ledger`].
pub fn ledger(at: &LedgerAt) -> Result<LedgerRows, RowsError> {
    match at {
        LedgerAt::File(path) => sqlite::read(path).map_err(Into::into),
        // On a thread of its own: the client blocks on a runtime, and the caller's thread may have one already.
        LedgerAt::Postgres { url, .. } => std::thread::scope(|scope| scope.spawn(|| pg::read(url)).join())
            .map_err(|_| "the reading thread panicked".into())
            .and_then(|read| read.map_err(Into::into)),
    }
    .map_err(|source: Box<dyn std::error::Error + Send + Sync>| RowsError::Ledger { path: at.to_string(), source })
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
