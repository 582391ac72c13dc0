//! Checker 6: no voluntary dip below the floor. Seen where traffic is decided: samples of every gate.
//!
//! A host whose service is not ready, for whatever reason, misses from the count and is no dip of ours; one whose service is
//! ready and gets no requests is, unless something is done to the host or was right before.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::{Checked, Window};
use crate::clock::BootNs;

/// A host is back this long after what was done to it ended: its service starts, and its readiness must rise.
const BACK: Duration = Duration::from_secs(5);
/// Two samples of one host are this far apart at most, or it was not watched.
const EVERY: Duration = Duration::from_millis(1500);

/// What one gate says at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// When the answer came.
    pub at: BootNs,
    /// Whose gate.
    pub host: String,
    /// Whether its service is ready, as its own probes say.
    pub ready: bool,
    /// Whether requests are sent to it.
    pub serves: bool,
}

/// Walks through the samples, which must be in the order of time. At `silent` hosts nobody answers, though no traffic suffers.
pub fn check(
    samples: &[Sample],
    hosts: usize,
    min: usize,
    struck: &[(String, Window)],
    silent: &[(String, Window)],
) -> Checked {
    let mut checked = Checked::new("floor");
    checked.need("samples", samples.len());
    let mut last: BTreeMap<&str, &Sample> = BTreeMap::new();
    let (mut dips, mut first) = (0, None);
    for sample in samples {
        last.insert(&sample.host, sample);
        let away = last.values().filter(|seen| seen.ready && !seen.serves && !excused(seen, struck)).count();
        if hosts - away.min(hosts) < min {
            dips += 1;
            first.get_or_insert((sample.at, hosts - away));
        }
    }
    checked.count("hosts", last.len());
    if let Some((at, left)) = first {
        checked
            .find(format!("{dips} samples below the floor of {min} for no fault's sake, first at {at}: {left} serve"));
    }
    unwatched(samples, &[struck, silent].concat(), &mut checked);
    checked
}

fn excused(sample: &Sample, struck: &[(String, Window)]) -> bool {
    struck
        .iter()
        .any(|(host, window)| *host == sample.host && window.from <= sample.at && sample.at <= window.to.after(BACK))
}

/// A dip between two samples is seen only if they are close together.
fn unwatched(samples: &[Sample], struck: &[(String, Window)], checked: &mut Checked) {
    let mut last: BTreeMap<&str, BootNs> = BTreeMap::new();
    for sample in samples {
        let before = last.insert(&sample.host, sample.at).unwrap_or(sample.at);
        let gap = sample.at.since(before);
        let window = Window { from: before, to: sample.at };
        let struck = struck.iter().any(|(host, fault)| {
            let until = Window { from: fault.from, to: fault.to.after(BACK) };
            *host == sample.host && until.meets(window.from, window.to)
        });
        if gap > EVERY && !struck {
            checked.find(format!("{} was not looked at for {gap:?} from {before} on", sample.host));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ms;
    use super::*;

    fn samples(rows: &[(u64, &str, bool)]) -> Vec<Sample> {
        let sample = |(at, host, serves): &(u64, &str, bool)| Sample {
            at: ms(*at),
            host: (*host).to_owned(),
            ready: true,
            serves: *serves,
        };
        rows.iter().map(sample).collect()
    }

    const DIP: [(u64, &str, bool); 5] =
        [(0, "a", true), (0, "b", true), (0, "c", true), (100, "a", false), (200, "b", false)];

    #[test]
    fn one_of_three_away_keeps_a_floor_of_two_and_two_break_it() {
        assert_eq!(check(&samples(&DIP[..4]), 3, 2, &[], &[]).found.len(), 0);
        assert_eq!(check(&samples(&DIP), 3, 2, &[], &[]).found.len(), 1);
    }

    #[test]
    fn a_service_that_is_not_ready_is_no_voluntary_dip() {
        let mut rows = samples(&DIP);
        rows[4].ready = false;
        assert_eq!(check(&rows, 3, 2, &[], &[]).found.len(), 0);
    }

    #[test]
    fn a_host_that_was_struck_is_no_voluntary_dip() {
        let struck = [("b".to_owned(), Window { from: ms(150), to: ms(190) })];
        assert_eq!(check(&samples(&DIP), 3, 2, &struck, &[]).found.len(), 0);
        let other = [("c".to_owned(), Window { from: ms(150), to: ms(190) })];
        assert_eq!(check(&samples(&DIP), 3, 2, &other, &[]).found.len(), 1);
        assert_eq!(check(&samples(&DIP), 3, 2, &[], &struck).found.len(), 1, "silence takes no traffic away");
    }

    #[test]
    fn a_host_that_nobody_looked_at_proves_nothing() {
        let rows = samples(&[(0, "a", true), (1_600, "a", true)]);
        let struck = |host: &str| [(host.to_owned(), Window { from: ms(100), to: ms(200) })];
        assert_eq!(check(&rows, 1, 1, &[], &[]).found.len(), 1);
        assert_eq!(check(&rows, 1, 1, &struck("a"), &[]).found.len(), 0);
        assert_eq!(check(&rows, 1, 1, &struck("b"), &[]).found.len(), 1);
        assert_eq!(check(&rows, 1, 1, &[], &struck("a")).found.len(), 0, "its agent was away, and no traffic suffered");
        assert_eq!(check(&[], 1, 1, &[], &[]).found.len(), 1);
    }
}
