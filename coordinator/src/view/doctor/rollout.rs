//! The rollout: stuck, paused and forgotten, failed.

use handover_proto::blocker::BlockerKind;
use handover_proto::wire::{Blocker, Finding};

use super::{Patient, age, fail, ok, warn};

const CHECK: &str = "rollout";
/// Longer than a start, a soak or a drain usually takes; what takes longer on purpose is worth one warning.
const STUCK_MS: u64 = 600_000;
/// A pause is for a look; an hour is for lunch.
const PAUSED_MS: u64 = 3_600_000;

pub(super) fn findings(of: &Patient<'_>) -> Vec<Finding> {
    let Some(rollout) = &of.status.rollout else { return Vec::new() };
    let id = &rollout.rollout;
    let long = |since_ms: u64| since_ms > 0 && of.at_ms.saturating_sub(since_ms) >= STUCK_MS;
    // A soak takes as long as it was planned to.
    let waits = |blocker: &&Blocker| blocker.kind != BlockerKind::Soak.as_str() && long(blocker.since_ms);
    let one = match rollout.state.as_str() {
        "failed" => {
            let fix =
                format!("handover rollout history {id} has every step; start the next one when the cause is mended");
            fail(CHECK, format!("rollout {id} failed: {}", rollout.reason), fix)
        }
        "paused" => {
            let paused = of.waits.iter().find(|blocker| blocker.kind == BlockerKind::Paused.as_str());
            let since = paused.map_or(rollout.started_ms, |blocker| blocker.since_ms);
            let sentence = format!("rollout {id} has been paused for {}: {}", age(since, of.at_ms), rollout.reason);
            let fix = "handover rollout resume, or abort; hosts run two versions meanwhile";
            let long = of.at_ms.saturating_sub(since) >= PAUSED_MS;
            if long { fail(CHECK, sentence, fix) } else { warn(CHECK, sentence, fix) }
        }
        "running" | "rolling-back" => match of.waits.iter().find(waits) {
            Some(blocker) => {
                let since = age(blocker.since_ms, of.at_ms);
                let sentence = format!("rollout {id} has been stuck for {since}, waiting for {}", blocker.waiting_for);
                fail(CHECK, sentence, "mend that; or handover rollout abort, which goes back")
            }
            None => ok(CHECK, format!("rollout {id} moves, step {} of {}", rollout.step, rollout.steps)),
        },
        state => ok(CHECK, format!("rollout {id} is {state}")),
    };
    vec![one]
}
