//! Checker 9: nothing waits without saying for what. An object that is not where it is to be, and names no blocker for
//! more than a second, is a finding.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::Checked;
use crate::clock::BootNs;

/// A lap of a loop, and the time to ask.
const SILENCE: Duration = Duration::from_secs(1);

/// One object at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// When the answer came.
    pub at: BootNs,
    /// Which: an agent's lease, a slot, a rollout.
    pub object: String,
    /// It is where it is to be.
    pub settled: bool,
    /// What it says that it waits for.
    pub blocker: Option<String>,
}

/// Walks through the samples, which must be in the order of time. An object that could not be asked has no sample, and
/// that ends what was seen of it.
pub fn check(samples: &[Sample]) -> Checked {
    let mut checked = Checked::new("blockers");
    checked.need("samples", samples.len());
    checked.count("waits", samples.iter().filter(|sample| !sample.settled).count());
    let mut silent: BTreeMap<&str, (BootNs, BootNs)> = BTreeMap::new();
    let mut reported: BTreeMap<&str, BootNs> = BTreeMap::new();
    for sample in samples {
        let object = sample.object.as_str();
        if sample.settled || sample.blocker.is_some() {
            silent.remove(object);
            continue;
        }
        let (since, last) = silent.entry(object).or_insert((sample.at, sample.at));
        if sample.at.since(*last) > SILENCE {
            *since = sample.at;
        }
        *last = sample.at;
        if sample.at.since(*since) > SILENCE && reported.insert(object, *since) != Some(*since) {
            checked.find(format!("{object} waited for more than {SILENCE:?} without a reason, from {since} on"));
        }
    }
    checked
}

#[cfg(test)]
mod tests {
    use super::super::ms;
    use super::*;

    fn samples(rows: &[(u64, bool, Option<&str>)]) -> Vec<Sample> {
        let sample = |(at, settled, blocker): &(u64, bool, Option<&str>)| Sample {
            at: ms(*at),
            object: "a".to_owned(),
            settled: *settled,
            blocker: blocker.map(str::to_owned),
        };
        rows.iter().map(sample).collect()
    }

    #[test]
    fn waiting_with_a_reason_and_a_short_silence_are_clean() {
        let rows = [(0, false, Some("quarantine")), (5_000, false, None), (5_900, false, None), (6_000, true, None)];
        assert_eq!(check(&samples(&rows)).found.len(), 0);
    }

    #[test]
    fn a_long_silence_is_found_once() {
        let rows = [(0, false, None), (600, false, None), (1_200, false, None), (1_800, false, None)];
        assert_eq!(check(&samples(&rows)).found.len(), 1);
    }

    #[test]
    fn an_object_that_could_not_be_asked_in_between_was_not_seen_to_be_silent() {
        assert_eq!(check(&samples(&[(0, false, None), (3_000, false, None), (3_500, false, None)])).found.len(), 0);
        assert_eq!(check(&[]).found.len(), 1);
    }
}
