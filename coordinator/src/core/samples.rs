//! What one coordinator remembers from lap to lap: since when things have been as they are, and how the candidates
//! answered. Starts empty with every coordinator, so that dwell times are always ones that it has seen itself.

use super::fleet::Fleet;
use super::next::Now;
use super::plan::Plan;
use super::progress::Progress;

/// The memory. One per rollout and coordinator.
#[derive(Debug, Clone, Default)]
pub struct Samples {}

impl Samples {
    /// Takes in one look at the fleet. To be called before every [`super::next::next`].
    pub fn observe(&mut self, plan: &Plan, progress: &Progress, fleet: &Fleet, now: Now) {
        let _ = (plan, progress, fleet, now);
    }
}
