//! Checker 1: never two instances that may start units at one time, under two tokens, for longer than a clock's reading.
//!
//! A process that was stopped from outside (SIGSTOP, a frozen host) cannot know of it before it runs again, and finishes
//! the unit that it was in. Such an overlap is excused, and counted, if it lies in the pause or right after it; there the
//! fence (checker 2) is what counts.

use std::time::Duration;

use serde::Serialize;

use super::{Checked, Window};
use crate::billing::activity::Line;
use crate::receipt::holders::{self, HolderReport, Overlap};

/// Overlap up to this is the two clocks' readings, not two holders.
pub const CLOCK_READING: Duration = Duration::from_millis(1);
/// After a pause the process finishes its unit, and learns at the next look that its time is over.
const AFTER_PAUSE: Duration = Duration::from_millis(1500);

/// A pause that the process could not notice while it lasted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pause {
    /// The instance that was paused.
    pub instance: String,
    /// From its stop to its continuation.
    pub window: Window,
}

impl Pause {
    fn excuses(&self, overlap: &Overlap) -> bool {
        let ours = [&overlap.first, &overlap.second].into_iter().any(|interval| interval.instance == self.instance);
        let end = overlap.second.from.after(overlap.lasted);
        ours && self.window.from <= end && end <= self.window.to.after(AFTER_PAUSE)
    }
}

/// Looks at every pair of intervals. The report is what darkness is measured on, too.
pub fn check(lines: &[Line], pauses: &[Pause]) -> (Checked, HolderReport) {
    let report = holders::check(&holders::intervals(lines), lines);
    let mut checked = Checked::new("single-holder");
    checked.need("intervals", report.intervals.len());
    checked.count("turns", report.turns.len());
    let mut excused = 0;
    for overlap in report.overlaps.iter().filter(|overlap| overlap.lasted > CLOCK_READING) {
        if pauses.iter().any(|pause| pause.excuses(overlap)) {
            excused += 1;
            continue;
        }
        let Overlap { first, second, lasted } = overlap;
        checked.find(format!(
            "{} under token {} and {} under token {} could both start units for {lasted:?}, from {} on",
            first.instance, first.token, second.instance, second.token, second.from
        ));
    }
    checked.count("overlaps excused by a pause", excused);
    (checked, report)
}

#[cfg(test)]
mod tests {
    use super::super::ms;
    use super::*;
    use crate::billing::activity::{Event, Why};
    use crate::billing::contract::Token;

    fn line(at: u64, instance: u8, token: i64, event: Event) -> Line {
        Line {
            at_boot_ns: ms(at),
            instance: format!("{instance:016x}").parse().expect("id"),
            version: "1.0.0".parse().expect("version"),
            token: Token::try_from(token).expect("token"),
            event,
        }
    }

    fn turns(edges: &[(u64, u64, u8, i64)]) -> Vec<Line> {
        let mut lines = Vec::new();
        for (from, to, instance, token) in edges {
            lines.push(line(*from, *instance, *token, Event::Active));
            lines.push(line(*to, *instance, *token, Event::Inactive { why: Why::Quiesced }));
        }
        lines.sort_by_key(|line| line.at_boot_ns);
        lines
    }

    #[test]
    fn turns_one_after_the_other_are_clean() {
        let (checked, report) = check(&turns(&[(0, 100, 1, 5), (103, 200, 2, 9), (201, 300, 1, 11)]), &[]);
        assert_eq!((checked.found.len(), report.turns.len()), (0, 2), "{checked:?}");
    }

    #[test]
    fn two_holders_at_once_are_found() {
        let (checked, _) = check(&turns(&[(0, 100, 1, 5), (97, 200, 2, 9)]), &[]);
        assert_eq!(checked.found.len(), 1, "{checked:?}");
        assert!(checked.found[0].contains("3ms"), "{checked:?}");
    }

    #[test]
    fn a_restarted_process_under_the_same_token_is_found_as_well() {
        let (checked, _) = check(&turns(&[(0, 100, 1, 5), (50, 200, 2, 5)]), &[]);
        assert_eq!(checked.found.len(), 1, "{checked:?}");
    }

    #[test]
    fn an_overlap_is_excused_only_for_the_paused_instance_and_only_at_its_pause() {
        let lines = turns(&[(0, 5_100, 1, 5), (4_000, 6_000, 2, 9)]);
        let pause = |instance: u8, from, to| Pause {
            instance: format!("{instance:016x}"),
            window: Window { from: ms(from), to: ms(to) },
        };
        assert_eq!(check(&lines, &[pause(1, 1_000, 5_000)]).0.found.len(), 0, "it ran on for 100 ms after its pause");
        assert_eq!(check(&lines, &[pause(3, 1_000, 5_000)]).0.found.len(), 1, "another instance's pause");
        assert_eq!(check(&lines, &[pause(1, 500, 1_000)]).0.found.len(), 1, "a pause long before");
    }

    #[test]
    fn a_run_in_which_nobody_held_proves_nothing() {
        assert_eq!(check(&[], &[]).0.found.len(), 1);
    }
}
