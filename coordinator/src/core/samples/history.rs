//! A sliding window over what was counted lap by lap.

use std::collections::VecDeque;
use std::time::Duration;

use crate::core::fleet::Traffic;
use crate::core::spec::Health;

/// How far back the window reaches to gather the minimum of samples. Further back says nothing about now; and a suspicion
/// that cannot be confirmed is forgotten after this time.
const LOOK_BACK: Duration = Duration::from_secs(60);

/// What was counted, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct History {
    laps: VecDeque<(Duration, Traffic)>,
}

impl History {
    /// Adds what was counted until `boot`.
    pub(super) fn push(&mut self, boot: Duration, delta: Traffic) {
        if delta != Traffic::default() {
            self.laps.push_back((boot, delta));
        }
    }

    /// Drops what is too old for any window.
    pub(super) fn forget(&mut self, health: &Health, boot: Duration) {
        let oldest = LOOK_BACK.max(health.dwell);
        while self.laps.front().is_some_and(|(at, _)| boot.saturating_sub(*at) > oldest) {
            self.laps.pop_front();
        }
    }

    /// Everything within the dwell, and as much before it as it takes to have the minimum of samples.
    pub(super) fn recent(&self, health: &Health, counted: impl Fn(Traffic) -> u64, boot: Duration) -> Traffic {
        let mut sum = Traffic::default();
        for (at, delta) in self.laps.iter().rev() {
            let age = boot.saturating_sub(*at);
            // The lap that is exactly a dwell old is out, so that one burst of errors alone never fills the dwell.
            let inside = age < health.dwell || age.is_zero();
            if !inside && counted(sum) >= health.min_samples {
                break;
            }
            sum = Traffic { reads: sum.reads.plus(delta.reads), writes: sum.writes.plus(delta.writes) };
        }
        sum
    }
}
