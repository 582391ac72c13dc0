//! The ledger's tables out of PostgreSQL.

use std::collections::BTreeMap;
use std::time::Duration;

use postgres::{Client, IsolationLevel, NoTls, Row};

use super::{Commit, LedgerRows, What};
use crate::billing::ledger::Schedule;
use crate::clock::BootNs;

fn commit(row: &Row) -> Commit {
    let number = |column| row.get::<_, i64>(column).unsigned_abs();
    let what = row.get::<_, Option<i64>>(5).map_or(What::Install, |tick| What::Charge(tick.unsigned_abs()));
    let (token, instance, version) = (row.get(1), row.get(2), row.get(3));
    Commit { order: number(0), token, instance, version, at: BootNs(number(4)), what }
}

pub(super) fn read(url: &str) -> Result<LedgerRows, postgres::Error> {
    let mut client = Client::connect(url, NoTls)?;
    let mut tx = client.build_transaction().read_only(true).isolation_level(IsolationLevel::RepeatableRead).start()?;
    let commits = tx.query(
        "SELECT commit_order, token, instance, version, at_boot_ns, NULL::bigint FROM installs
         UNION ALL SELECT commit_order, token, instance, version, at_boot_ns, tick FROM charges ORDER BY 1",
        &[],
    )?;
    let schedule = tx.query_opt("SELECT origin_boot_ns, period_ns FROM schedule", &[])?;
    let schedule = schedule.map(|row| {
        let (origin, period): (i64, i64) = (row.get(0), row.get(1));
        Schedule { origin: BootNs(origin.unsigned_abs()), period: Duration::from_nanos(period.unsigned_abs()) }
    });
    let mut payments: BTreeMap<String, Vec<(String, i64)>> = BTreeMap::new();
    for row in tx.query("SELECT idempotency_key, account, cents FROM payments", &[])? {
        payments.entry(row.get(0)).or_default().push((row.get(1), row.get(2)));
    }
    Ok(LedgerRows { commits: commits.iter().map(commit).collect(), schedule, payments })
}
