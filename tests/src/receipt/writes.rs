//! Checker 7 for writes: what was acknowledged is in the ledger, once and as it was sent.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::load::request;
use crate::load::tally::LoadReceipt;

/// What became of the clients' writes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct WriteReport {
    /// Acknowledged to the client.
    pub acknowledged: u64,
    /// Acknowledged, and not in the ledger: the worst there is. The first of their keys.
    pub missing: Vec<String>,
    /// How many are missing.
    pub missing_count: u64,
    /// Rows beyond the first with the same key.
    pub doubled: u64,
    /// In the ledger with another account or amount than was sent.
    pub altered: u64,
    /// Not acknowledged, yet in the ledger: allowed, the client may ask again under its key.
    pub unacknowledged_written: u64,
    /// Not acknowledged and not in the ledger: allowed.
    pub unacknowledged_absent: u64,
    /// In the ledger under this run's name, and never sent.
    pub invented: u64,
}

/// Missing keys that are named.
const NAMED: usize = 20;

/// Compares the load's memory with the ledger's rows, by key.
pub fn check(load: &LoadReceipt, payments: &BTreeMap<String, Vec<(String, i64)>>) -> WriteReport {
    let mut report = WriteReport { acknowledged: load.acknowledged.len() as u64, ..WriteReport::default() };
    let mut sent = 0;
    for (numbers, acknowledged) in [(&load.acknowledged, true), (&load.unacknowledged, false)] {
        for n in numbers {
            let key = request::key(&load.run, *n);
            let rows = payments.get(&key).map_or(&[][..], Vec::as_slice);
            sent += u64::from(!rows.is_empty());
            report.doubled += (rows.len() as u64).saturating_sub(1);
            let expected = (request::account(*n), request::cents(*n));
            report.altered += rows.iter().filter(|row| **row != expected).count() as u64;
            match (acknowledged, rows.is_empty()) {
                (true, true) => {
                    report.missing_count += 1;
                    if report.missing.len() < NAMED {
                        report.missing.push(key);
                    }
                }
                (true, false) => {}
                (false, false) => report.unacknowledged_written += 1,
                (false, true) => report.unacknowledged_absent += 1,
            }
        }
    }
    let prefix = format!("{}-", load.run);
    let ours = payments.keys().filter(|key| key.starts_with(&prefix)).count() as u64;
    report.invented = ours.saturating_sub(sent);
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::tally::Tally;

    fn load(acknowledged: &[u64], unacknowledged: &[u64]) -> LoadReceipt {
        let (acknowledged, unacknowledged) = (acknowledged.to_vec(), unacknowledged.to_vec());
        LoadReceipt { acknowledged, unacknowledged, ..Tally::new("run".to_owned(), 1.0).receipt() }
    }

    fn ledger(numbers: &[u64]) -> BTreeMap<String, Vec<(String, i64)>> {
        let mut rows: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for n in numbers {
            rows.entry(request::key("run", *n)).or_default().push((request::account(*n), request::cents(*n)));
        }
        rows
    }

    #[test]
    fn acknowledged_writes_must_be_there_and_others_may() {
        let report = check(&load(&[1, 2], &[3, 4]), &ledger(&[1, 2, 3]));
        let expected =
            WriteReport { acknowledged: 2, unacknowledged_written: 1, unacknowledged_absent: 1, ..Default::default() };
        assert_eq!(report, expected);
    }

    #[test]
    fn a_missing_write_is_named() {
        let report = check(&load(&[1, 2], &[]), &ledger(&[1]));
        assert_eq!((report.missing_count, report.missing), (1, vec!["run-2".to_owned()]));
    }

    #[test]
    fn a_doubled_an_altered_and_an_invented_row_are_each_found() {
        assert_eq!(check(&load(&[1], &[]), &ledger(&[1, 1])).doubled, 1);
        assert_eq!(check(&load(&[1], &[]), &ledger(&[1, 7])).invented, 1);
        let mut rows = ledger(&[1]);
        for row in rows.values_mut().flatten() {
            row.1 += 1;
        }
        assert_eq!(check(&load(&[1], &[]), &rows).altered, 1);
    }
}
