//! Checker 3: every tick charged exactly once, and when.
//!
//! Ticks are numbered by schedule: tick n is *due* at `origin + (n - 1) · period`, whoever holds. So time without a holder
//! leaves no hole; it shows as ticks that were charged *late*: a period or more after they were due, when already the next
//! one was. A tick is *owed* if it was due a period or more before the end of the run and is not charged. A *hole* is a
//! tick that is not charged although a later one is; no dark window explains one, since a holder charges the tick after
//! the last.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use serde::Serialize;

use crate::billing::ledger::Schedule;
use crate::clock::BootNs;
use crate::receipt::rows::{Commit, What};
use crate::span;

/// What the tick checker found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TickReport {
    /// The highest tick that was charged; 0 if none was.
    pub last: u64,
    /// Different ticks that were charged.
    pub charged: u64,
    /// Charges beyond a tick's first.
    pub doubled: u64,
    /// Ticks below the last that nobody charged.
    pub holes: u64,
    /// Ticks that should have been charged by the end of the run and were not.
    pub owed: u64,
    /// Ticks that were charged a period or more after they were due.
    pub late: u64,
    /// How long the first owed tick had been due at the end of the run; zero if none is owed.
    #[serde(rename = "owed_for_ms", serialize_with = "span::as_ms")]
    pub owed_for: Duration,
    /// The tick that was charged latest after it was due; 0 if none was charged.
    pub latest: u64,
    /// By how much it was late.
    #[serde(rename = "latest_by_ms", serialize_with = "span::as_ms")]
    pub latest_by: Duration,
    /// Ticks charged by each version.
    pub by_version: BTreeMap<String, u64>,
}

/// Counts. `until` is the end of the run.
pub fn check(commits: &[Commit], schedule: Option<Schedule>, until: BootNs) -> TickReport {
    let mut report = TickReport::default();
    let mut first: BTreeMap<u64, BootNs> = BTreeMap::new();
    for commit in commits {
        let What::Charge(tick) = commit.what else { continue };
        *report.by_version.entry(commit.version.clone()).or_default() += 1;
        match first.entry(tick) {
            Entry::Vacant(slot) => {
                slot.insert(commit.at);
            }
            Entry::Occupied(_) => report.doubled += 1,
        }
    }
    report.charged = first.len() as u64;
    report.last = first.last_key_value().map_or(0, |(tick, _)| *tick);
    report.holes = report.last - report.charged;
    let Some(schedule) = schedule else { return report };
    for (tick, at) in first {
        let late = at.since(schedule.due(tick));
        report.late += u64::from(late >= schedule.period);
        if report.latest == 0 || late > report.latest_by {
            (report.latest, report.latest_by) = (tick, late);
        }
    }
    // Ticks whose successor was due as well: n periods after the origin, n of them are.
    let overdue = until.since(schedule.origin).as_nanos() / schedule.period.as_nanos().max(1);
    report.owed = u64::try_from(overdue).unwrap_or(u64::MAX).saturating_sub(report.last);
    if report.owed > 0 {
        report.owed_for = until.since(schedule.due(report.last + 1));
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule { origin: BootNs(1000), period: Duration::from_nanos(100) };

    fn charges(rows: &[(u64, u64)]) -> Vec<Commit> {
        let commit = |(tick, at): &(u64, u64)| {
            let (instance, version) = ("a".to_owned(), "1".to_owned());
            Commit { order: *at, token: 1, instance, version, at: BootNs(*at), what: What::Charge(*tick) }
        };
        rows.iter().map(commit).collect()
    }

    fn check_at(rows: &[(u64, u64)], until: u64) -> TickReport {
        check(&charges(rows), Some(SCHEDULE), BootNs(until))
    }

    #[test]
    fn each_tick_once_and_in_time_is_clean() {
        let report = check_at(&[(1, 1001), (2, 1102), (3, 1299)], 1300);
        assert_eq!((report.charged, report.last, report.doubled, report.holes), (3, 3, 0, 0));
        assert_eq!((report.late, report.owed, report.owed_for), (0, 0, Duration::ZERO));
        assert_eq!((report.latest, report.latest_by), (3, Duration::from_nanos(99)));
    }

    #[test]
    fn a_doubled_tick_is_counted_each_time() {
        assert_eq!(check_at(&[(1, 1000), (2, 1100), (2, 1101), (2, 1102)], 1200).doubled, 2);
    }

    #[test]
    fn a_hole_is_a_tick_below_the_last() {
        let report = check_at(&[(1, 1000), (4, 1300), (6, 1500)], 1600);
        assert_eq!((report.holes, report.owed), (3, 0));
    }

    #[test]
    fn darkness_shows_as_late_ticks_not_as_holes() {
        let report = check_at(&[(1, 1000), (2, 1400), (3, 1401), (4, 1402), (5, 1403)], 1500);
        assert_eq!((report.holes, report.late), (0, 3));
        assert_eq!((report.latest, report.latest_by), (2, Duration::from_nanos(300)));
    }

    #[test]
    fn ticks_that_nobody_charged_by_the_end_are_owed() {
        let report = check_at(&[(1, 1000)], 1499);
        assert_eq!(report.owed, 3, "2, 3 and 4 were due by 1300; 5 is not late yet");
        assert_eq!(report.owed_for, Duration::from_nanos(399), "2 has been due since 1100");
        assert_eq!(check_at(&[], 1100).owed, 1);
        assert_eq!(check(&[], None, BootNs(5000)).owed, 0, "nobody ever held, so nothing was scheduled");
    }
}
