//! Checker 5: how long nobody worked, per cause, against the table of `SAFETY.md` §1.9. Looked at twice: by the rights to
//! start units, as the services wrote them down, and by the effects in the database, which a service that hangs or cannot
//! reach the database does not have.
//!
//! A gap may last as long as its planned hand-over may, or, if something was done to the site, until that was over and
//! then its own time. Faults chain: one that begins in the time that an earlier one excuses carries it on.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::{Checked, Window};
use crate::clock::BootNs;
use crate::receipt::holders::Interval;
use crate::receipt::rows::{Commit, What};
use crate::span;

/// A planned hand-over, at most (§1.9: 1 s), and as much again for a machine whose two cores a dozen processes and the load
/// share; nothing was wrong.
pub const PLANNED: Duration = Duration::from_secs(2);

/// So many periods after a charge the next one is missed: one is the period itself, and units take their time.
const PERIODS: u32 = 4;

/// Something that was done to the site, and the darkness that it may cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// What, as the table calls it.
    pub cause: String,
    /// From its beginning until it was undone.
    pub window: Window,
    /// How long after its end the work may still rest; `None`: a process that is gone counts from the beginning.
    pub after: Duration,
}

/// Darkness of one cause.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Dark {
    /// Gaps.
    pub times: u64,
    /// Of all of them the longest.
    #[serde(rename = "longest_ms", serialize_with = "span::as_ms")]
    pub longest: Duration,
    /// Together.
    #[serde(rename = "total_ms", serialize_with = "span::as_ms")]
    pub total: Duration,
}

/// The times in which somebody could start units.
pub fn by_rights(intervals: &[Interval]) -> Vec<Window> {
    intervals.iter().map(|interval| Window { from: interval.from, to: interval.to }).collect()
}

/// The times in which ticks were charged, each of which is good for some periods.
pub fn by_effects(commits: &[Commit], period: Duration) -> Vec<Window> {
    let charges = commits.iter().filter(|commit| matches!(commit.what, What::Charge(_)));
    charges.map(|commit| Window { from: commit.at, to: commit.at.after(period * PERIODS) }).collect()
}

/// Measures gaps between the first light and `until`, and holds them against what the faults excuse. Lights must be in
/// the order of their beginnings.
pub fn check(lit: &[Window], faults: &[Fault], until: BootNs) -> (Checked, BTreeMap<String, Dark>) {
    let mut checked = Checked::new("darkness");
    checked.need("lights", lit.len());
    let mut table: BTreeMap<String, Dark> = BTreeMap::new();
    let mut faults = faults.to_vec();
    faults.sort_by_key(|fault| fault.window.from);
    let gaps = gaps(lit, until);
    checked.count("gaps", gaps.len());
    for gap in gaps {
        let (allowed, cause) = allowed(&gap, &faults);
        let lasted = gap.to.since(gap.from);
        let dark = table.entry(cause.to_owned()).or_default();
        dark.times += 1;
        dark.total += lasted;
        dark.longest = dark.longest.max(lasted);
        if gap.to > allowed {
            let limit = allowed.since(gap.from);
            checked.find(format!("dark for {lasted:?} from {} on; {cause} excuses {limit:?}", gap.from));
        }
    }
    (checked, table)
}

/// Times without light.
fn gaps(lights: &[Window], until: BootNs) -> Vec<Window> {
    let mut gaps = Vec::new();
    let mut lit = lights.first().map_or(until, |first| first.from);
    for light in lights {
        if light.from > lit {
            gaps.push(Window { from: lit, to: light.from });
        }
        lit = lit.max(light.to);
    }
    if until > lit {
        gaps.push(Window { from: lit, to: until });
    }
    gaps
}

/// Until when a gap is excused, and by what.
fn allowed<'a>(gap: &Window, faults: &'a [Fault]) -> (BootNs, &'a str) {
    let (mut until, mut cause) = (gap.from.after(PLANNED), "hand-over");
    for fault in faults {
        let end = fault.window.to.after(fault.after);
        // It reaches into the gap, and the gap was not over by rights when it began.
        if end >= gap.from && fault.window.from <= until && end > until {
            (until, cause) = (end, &fault.cause);
        }
    }
    (until, cause)
}

#[cfg(test)]
mod tests {
    use super::super::ms;
    use super::*;

    fn lit(spans: &[(u64, u64)]) -> Vec<Window> {
        spans.iter().map(|(from, to)| Window { from: ms(*from), to: ms(*to) }).collect()
    }

    fn fault(cause: &str, from: u64, to: u64, after: u64) -> Fault {
        let window = Window { from: ms(from), to: ms(to) };
        Fault { cause: cause.to_owned(), window, after: Duration::from_millis(after) }
    }

    fn found(spans: &[(u64, u64)], faults: &[Fault], until: u64) -> usize {
        check(&lit(spans), faults, ms(until)).0.found.len()
    }

    #[test]
    fn a_hand_over_in_time_is_clean_and_longer_darkness_without_cause_is_found() {
        assert_eq!(found(&[(0, 100), (2_100, 3_000)], &[], 3_000), 0);
        assert_eq!(found(&[(0, 100), (2_101, 3_000)], &[], 3_000), 1);
        assert_eq!(found(&[(0, 100)], &[], 2_200), 1, "nobody at the end counts, too");
    }

    #[test]
    fn a_fault_excuses_darkness_until_its_end_and_its_own_time_and_no_longer() {
        let faults = [fault("quorum lost", 50, 5_000, 1_000)];
        let (checked, table) = check(&lit(&[(0, 100), (6_000, 9_000)]), &faults, ms(9_000));
        assert_eq!((checked.found.len(), table["quorum lost"].longest), (0, Duration::from_millis(5_900)));
        assert_eq!(found(&[(0, 100), (6_001, 9_000)], &faults, 9_000), 1);
    }

    #[test]
    fn a_fault_that_was_long_over_or_came_later_excuses_nothing() {
        let spans = [(0, 10_000), (13_000, 20_000)];
        assert_eq!(found(&spans, &[fault("early", 0, 2_000, 1_000)], 20_000), 1);
        assert_eq!(found(&spans, &[fault("late", 12_500, 15_000, 1_000)], 20_000), 1);
    }

    #[test]
    fn faults_chain_if_the_second_begins_in_time() {
        let spans = [(0, 1_000), (9_000, 20_000)];
        let chain = [fault("one", 900, 3_000, 2_000), fault("two", 4_500, 8_000, 1_500)];
        assert_eq!(found(&spans, &chain, 20_000), 0);
        let broken = [fault("one", 900, 3_000, 1_000), fault("two", 4_500, 8_000, 1_500)];
        assert_eq!(found(&spans, &broken, 20_000), 1);
    }

    #[test]
    fn charges_light_their_periods_and_a_service_that_hangs_is_dark_though_it_holds() {
        let charge = |n: u64| Commit {
            order: n,
            token: 5,
            instance: "a".to_owned(),
            version: "1".to_owned(),
            at: ms(if n < 10 { n * 100 } else { n * 100 + 3_000 }),
            what: What::Charge(n),
        };
        let commits: Vec<_> = (0..20).map(charge).collect();
        let lit = by_effects(&commits, Duration::from_millis(100));
        let (checked, table) = check(&lit, &[], ms(4_900));
        assert_eq!((checked.found.len(), table["hand-over"].longest), (1, Duration::from_millis(2_700)), "{checked:?}");
    }

    #[test]
    fn a_run_without_any_holder_proves_nothing() {
        assert_eq!(found(&[], &[], 1_000), 1);
    }
}
