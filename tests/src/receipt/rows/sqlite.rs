//! The ledger's tables out of a SQLite file.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};

use super::{Commit, LedgerRows, What};
use crate::billing::ledger::Schedule;
use crate::clock::BootNs;

fn commit(row: &Row<'_>) -> rusqlite::Result<Commit> {
    let what = row.get::<_, Option<u64>>(5)?.map_or(What::Install, What::Charge);
    let (order, token, instance, version) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
    Ok(Commit { order, token, instance, version, at: BootNs(row.get(4)?), what })
}

pub(super) fn read(path: &Path) -> rusqlite::Result<LedgerRows> {
    // Not read-only: a WAL file without a living writer needs its shared-memory file created.
    let mut connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
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
            let (origin, period) = (BootNs(row.get(0)?), Duration::from_nanos(row.get(1)?));
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
