//! Checker 7: every request that a client sent has one outcome, every acknowledged write is in the database as it was sent,
//! and a request may fail only where something was done that takes requests with it.

use std::time::Duration;

use serde::Serialize;

use super::{Checked, Window};
use crate::clock::BootNs;
use crate::load::tally::{Failure, LoadReceipt};
use crate::receipt::writes::WriteReport;

/// How a failure that nothing excuses is told.
pub const NO_FAULT: &str = "for no fault's sake";
/// Failures that are named one by one.
const NAMED: usize = 5;

/// A time in which requests to a gate may fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Excuse {
    /// What was done, for the list.
    pub step: String,
    /// The gate, as the load counts them; `None`: all.
    pub gate: Option<usize>,
    /// When. A request belongs here if it was under way at some moment of it.
    pub window: Window,
}

/// Holds the load against the database. `began` is when the load did, `patience` how long a request may take.
pub fn check(
    load: &LoadReceipt,
    writes: &WriteReport,
    began: BootNs,
    patience: Duration,
    excuses: &[Excuse],
) -> Checked {
    let mut checked = Checked::new("loss");
    let sent = usize::try_from(load.total.sent).unwrap_or(usize::MAX);
    checked.need("requests", sent);
    checked.need("acknowledged writes", usize::try_from(writes.acknowledged).unwrap_or(usize::MAX));
    let ended: u64 = load.total.outcomes.values().sum();
    let counts = [
        (load.total.sent.abs_diff(ended), "requests without one outcome"),
        (writes.missing_count, "acknowledged writes that are not in the database"),
        (writes.doubled, "writes that are in the database more than once"),
        (writes.altered, "writes that the database has otherwise than they were sent"),
        (writes.invented, "writes in the database that nobody sent"),
    ];
    for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
        checked.find(format!("{count} {what}"));
    }
    failures(load, began, patience, excuses, &mut checked);
    checked
}

fn failures(load: &LoadReceipt, began: BootNs, patience: Duration, excuses: &[Excuse], checked: &mut Checked) {
    let excuse = |failure: &Failure| {
        let from = began.after(failure.at);
        let fits = |excuse: &&Excuse| {
            excuse.gate.is_none_or(|gate| gate == failure.gate) && excuse.window.meets(from, from.after(patience))
        };
        excuses.iter().find(fits)
    };
    let (excused, not): (Vec<_>, Vec<_>) = load.failures.iter().partition(|failure| excuse(failure).is_some());
    checked.count("failures excused by what was done", excused.len());
    for failure in not.iter().take(NAMED) {
        let Failure { n, at, gate, outcome, detail, .. } = failure;
        checked.find(format!("request {n} to gate {gate} at {at:?} failed {NO_FAULT}: {outcome:?}, {detail}"));
    }
    if not.len() > NAMED {
        checked.find(format!("and {} more failures {NO_FAULT}", not.len() - NAMED));
    }
}

#[cfg(test)]
mod tests {
    use super::super::ms;
    use super::*;
    use crate::load::outcome::Outcome;
    use crate::load::request::Kind;
    use crate::load::tally::Tally;

    const PATIENCE: Duration = Duration::from_millis(50);

    /// Ten writes, 100 ms apart; number 4 (at 400 ms, gate 1) fails.
    fn load(fails: bool) -> LoadReceipt {
        let mut tally = Tally::new("run".to_owned(), 10.0);
        for n in 0..10 {
            let at = Duration::from_millis(n * 100);
            let gate = if n == 4 { 1 } else { 0 };
            let ticket = tally.leaves(n, Kind::Write, gate, at, at);
            let outcome = if fails && n == 4 { Outcome::Reset } else { Outcome::Ok };
            tally.ends(ticket, outcome, None, String::new(), at);
        }
        tally.receipt()
    }

    fn writes() -> WriteReport {
        WriteReport { acknowledged: 9, ..WriteReport::default() }
    }

    fn found(load: &LoadReceipt, writes: &WriteReport, excuses: &[Excuse]) -> usize {
        check(load, writes, ms(1_000), PATIENCE, excuses).found.len()
    }

    fn excuse(gate: Option<usize>, from: u64, to: u64) -> Excuse {
        Excuse { step: "kill".to_owned(), gate, window: Window { from: ms(from), to: ms(to) } }
    }

    #[test]
    fn a_load_without_failures_is_clean() {
        assert_eq!(found(&load(false), &writes(), &[]), 0);
    }

    #[test]
    fn a_failure_is_excused_only_by_something_done_to_its_gate_while_it_was_under_way() {
        assert_eq!(found(&load(true), &writes(), &[]), 1);
        for (excuse, expected) in [
            (excuse(Some(1), 1_430, 1_600), 0),
            (excuse(None, 1_300, 1_400), 0),
            (excuse(Some(0), 1_300, 1_600), 1),
            (excuse(Some(1), 1_451, 1_600), 1),
            (excuse(Some(1), 1_000, 1_399), 1),
        ] {
            assert_eq!(found(&load(true), &writes(), std::slice::from_ref(&excuse)), expected, "{excuse:?}");
        }
    }

    #[test]
    fn a_lost_write_a_double_one_and_a_request_without_outcome_are_found() {
        assert_eq!(found(&load(false), &WriteReport { missing_count: 1, ..writes() }, &[]), 1);
        assert_eq!(found(&load(false), &WriteReport { doubled: 1, ..writes() }, &[]), 1);
        let mut unaccounted = load(false);
        unaccounted.total.sent += 1;
        assert_eq!(found(&unaccounted, &writes(), &[]), 1);
    }

    #[test]
    fn no_load_proves_nothing() {
        let nothing = Tally::new("run".to_owned(), 1.0).receipt();
        assert_eq!(found(&nothing, &WriteReport::default(), &[]), 2);
    }
}
