//! The ledger's tables, and how a connection to them is set up.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, TransactionBehavior};

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS fence (service TEXT PRIMARY KEY, token INTEGER NOT NULL, holder TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS commit_order (last INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS schedule (id INTEGER PRIMARY KEY CHECK (id = 1), origin_boot_ns INTEGER NOT NULL,
    period_ns INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS installs (commit_order INTEGER PRIMARY KEY, token INTEGER NOT NULL, instance TEXT NOT NULL,
    version TEXT NOT NULL, at_boot_ns INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS charges (commit_order INTEGER PRIMARY KEY, tick INTEGER NOT NULL, token INTEGER NOT NULL,
    instance TEXT NOT NULL, version TEXT NOT NULL, at_boot_ns INTEGER NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS charges_tick ON charges (tick);
CREATE TABLE IF NOT EXISTS payments (idempotency_key TEXT PRIMARY KEY, account TEXT NOT NULL, cents INTEGER NOT NULL,
    instance TEXT NOT NULL, version TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS balances (account TEXT PRIMARY KEY, cents INTEGER NOT NULL) STRICT;
INSERT OR IGNORE INTO fence (service, token, holder) VALUES ('billing', 0, '');
INSERT INTO commit_order (last) SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM commit_order);
";

/// Opens the file, with every table there. Each later call waits up to `patience` for another writer.
pub(super) fn open(path: &Path, patience: Duration) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(path)?;
    let mut since = Instant::now();
    // SQLite's own handler sleeps longer with each try, up to 100 ms, so that of several writers the newest wins. An even
    // millisecond is fair enough, and short beside a unit.
    connection.busy_handler(Some(move |tries| {
        if tries == 0 {
            since = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(1));
        since.elapsed() < patience
    }))?;
    let until = Instant::now() + patience;
    // Switching to WAL does not ask the busy handler when two processes open a new file at once.
    while let Err(error) = connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;") {
        if error.sqlite_error_code() != Some(ErrorCode::DatabaseBusy) || Instant::now() >= until {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute_batch(TABLES)?;
    tx.commit()?;
    Ok(connection)
}
