//! Checker 3: the toy billing job charges tick n once. No duplicate, no hole, and the same for what left through the
//! outbox, if the service has one ([`crate::receipt::ticks`]).
//!
//! Ticks that are *owed* at the end are darkness, and judged there.

use std::collections::BTreeMap;

use super::Checked;
use crate::billing::ledger::Schedule;
use crate::clock::BootNs;
use crate::receipt::rows::Commit;
use crate::receipt::ticks::{self, TickReport};

/// Counts. `received` are the ticks that the outbox's receiver took in, each delivery once; none: there is no receiver.
pub fn check(
    commits: &[Commit],
    schedule: Option<Schedule>,
    until: BootNs,
    received: Option<&[u64]>,
) -> (Checked, TickReport) {
    let report = ticks::check(commits, schedule, until);
    let mut checked = Checked::new("ticks");
    checked.need("ticks", usize::try_from(report.charged).unwrap_or(usize::MAX));
    checked.counted.push(("ticks charged late", report.late));
    if report.doubled > 0 {
        checked.find(format!("{} charges beyond the first of their tick", report.doubled));
    }
    if report.holes > 0 {
        checked.find(format!("{} ticks below tick {} were never charged", report.holes, report.last));
    }
    if let Some(received) = received {
        check_received(&mut checked, received, report.last);
    }
    (checked, report)
}

fn check_received(checked: &mut Checked, received: &[u64], last: u64) {
    let mut times: BTreeMap<u64, u64> = BTreeMap::new();
    for tick in received {
        *times.entry(*tick).or_default() += 1;
    }
    checked.count("ticks at the receiver", times.len());
    for (tick, times) in times.iter().filter(|(_, times)| **times > 1) {
        checked.find(format!("tick {tick} took effect at the receiver {times} times"));
    }
    if let Some(invented) = times.keys().find(|tick| **tick > last) {
        checked.find(format!("tick {invented} reached the receiver and was never charged"));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::ms;
    use super::*;
    use crate::receipt::rows::What;

    fn run(ticks: &[u64], received: Option<&[u64]>) -> Vec<String> {
        let commit = |(order, tick): (usize, &u64)| {
            let (instance, version, order) = ("a".to_owned(), "1".to_owned(), order as u64);
            Commit { order, token: 5, instance, version, at: ms(order * 100), what: What::Charge(*tick) }
        };
        let commits: Vec<_> = ticks.iter().enumerate().map(commit).collect();
        let schedule = Schedule { origin: ms(0), period: Duration::from_millis(100) };
        check(&commits, Some(schedule), ms(300), received).0.found
    }

    #[test]
    fn each_tick_once_is_clean_here_and_at_the_receiver() {
        assert_eq!(run(&[1, 2, 3], Some(&[1, 2])), Vec::<String>::new());
    }

    #[test]
    fn a_duplicate_a_hole_and_nothing_at_all_are_found() {
        assert_eq!(run(&[1, 2, 2, 3], None).len(), 1);
        assert_eq!(run(&[1, 3], None).len(), 1);
        assert_eq!(run(&[], None).len(), 1);
    }

    #[test]
    fn an_effect_outside_that_happened_twice_or_was_never_charged_is_found() {
        assert_eq!(run(&[1, 2], Some(&[1, 2, 2])).len(), 1);
        assert_eq!(run(&[1, 2], Some(&[1, 3])).len(), 1);
    }
}
