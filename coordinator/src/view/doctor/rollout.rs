//! The rollout: stuck, paused and forgotten, failed. And a version that is long in being staged, by a rollout or an order.

use handover_proto::blocker::BlockerKind;
use handover_proto::wire::{Blocker, Finding, OrderStatus};

use super::{Patient, age, fail, ok, warn};

const CHECK: &str = "rollout";
/// Longer than a start, a soak or a drain usually takes; what takes longer on purpose is worth one warning.
const STUCK_MS: u64 = 600_000;
/// A pause is for a look; an hour is for lunch.
const PAUSED_MS: u64 = 3_600_000;

pub(super) fn findings(of: &Patient<'_>) -> Vec<Finding> {
    of_rollout(of).into_iter().chain(of.status.orders.iter().filter_map(|order| staging(order, of.at_ms))).collect()
}

/// An order that waits for somebody to do something; files that are on their way may take long.
fn staging(order: &OrderStatus, at_ms: u64) -> Option<Finding> {
    let blocker = order.blocker.as_ref().filter(|_| order.state == "staging")?;
    let moves = blocker.kind == BlockerKind::Staging.as_str();
    if moves || blocker.since_ms == 0 || at_ms.saturating_sub(blocker.since_ms) < STUCK_MS {
        return None;
    }
    let (number, what, since) = (order.number, &order.sentence, age(blocker.since_ms, at_ms));
    let sentence = format!("order {number} ({what}) has waited for {since}: {}", blocker.waiting_for);
    Some(warn("staging", sentence, "mend that; or handover stage --cancel: hosts that have the version keep it"))
}

fn of_rollout(of: &Patient<'_>) -> Option<Finding> {
    let rollout = of.status.rollout.as_ref()?;
    let id = &rollout.rollout;
    let long = |since_ms: u64| since_ms > 0 && of.at_ms.saturating_sub(since_ms) >= STUCK_MS;
    // A soak takes as long as it was planned to.
    let waits = |blocker: &&Blocker| blocker.kind != BlockerKind::Soak.as_str() && long(blocker.since_ms);
    // What only takes long comes last.
    let fetches = |blocker: &&Blocker| blocker.kind == BlockerKind::Staging.as_str();
    Some(match rollout.state.as_str() {
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
        "running" | "rolling-back" => match of.waits.iter().filter(waits).min_by_key(fetches) {
            // As long as a file comes it is fetched; the agent gives up by itself when none does.
            Some(blocker) if fetches(&blocker) => {
                let since = age(blocker.since_ms, of.at_ms);
                let sentence = format!("rollout {id} has waited for {since}, for {}", blocker.waiting_for);
                warn(
                    CHECK,
                    sentence,
                    "nothing has been touched yet: handover rollout abort costs nothing, if it is too long",
                )
            }
            Some(blocker) => {
                let since = age(blocker.since_ms, of.at_ms);
                let sentence = format!("rollout {id} has been stuck for {since}, waiting for {}", blocker.waiting_for);
                fail(CHECK, sentence, "mend that; or handover rollout abort, which goes back")
            }
            None => ok(CHECK, format!("rollout {id} moves, step {} of {}", rollout.step, rollout.steps)),
        },
        state => ok(CHECK, format!("rollout {id} is {state}")),
    })
}
