//! How far the hosts of a staging are.

use handover_proto::blocker::BlockerKind;
use handover_proto::ids::{AgentId, Version};
use handover_proto::wire::{Blocker, OrderStatus, StagingRow};

use crate::core::fleet::Fleet;
use crate::core::staging::{HostEnd, HostStand, stand};
use crate::core::standing::{Phase, StandingOrder, What};

/// One row per host, in order of their names; of another order: none.
pub(super) fn rows(order: &StandingOrder, fleet: &Fleet) -> Vec<StagingRow> {
    let What::Stage { version, hosts } = &order.what else { return Vec::new() };
    let since_ms = match order.phase {
        Phase::Staging { since_ms } => since_ms,
        _ => order.at_ms,
    };
    // Nobody has asked for it any more, or not yet, if it is not there.
    let requested = fleet.staging.as_ref().filter(|_| !order.is_over());
    let row = |host: &AgentId| match (order.staged.get(host), requested) {
        (Some(end), _) => Some(ended(host, end)),
        (None, Some(requested)) => Some(standing(host, version, &stand(fleet, host, requested), since_ms)),
        (None, None) => None,
    };
    hosts.iter().filter_map(row).collect()
}

fn standing(host: &AgentId, version: &Version, stand: &HostStand, since_ms: u64) -> StagingRow {
    let row = match stand {
        HostStand::Ended(end) => return ended(host, end),
        HostStand::Away { .. } => StagingRow { state: "away".into(), ..StagingRow::default() },
        HostStand::Asked { .. } => StagingRow { state: "asked".into(), ..StagingRow::default() },
        HostStand::Underway(staging) => StagingRow {
            state: staging.state.as_str().into(),
            done_bytes: staging.done_bytes,
            total_bytes: staging.total_bytes,
            ..StagingRow::default()
        },
    };
    let Some(blocker) = stand.blocker(host, version, since_ms) else { return row };
    let reason = blocker.kind.as_str().to_owned();
    StagingRow { agent: host.to_string(), reason, sentence: blocker.waiting_for, since_ms: blocker.since_ms, ..row }
}

fn ended(host: &AgentId, end: &HostEnd) -> StagingRow {
    let (state, reason, sentence) = match end {
        HostEnd::Staged { what } => ("staged", "", what.clone()),
        HostEnd::Refused { why, sentence } => ("refused", why.as_str(), sentence.clone()),
        HostEnd::Gone => ("gone", "", "it is no longer registered".to_owned()),
    };
    StagingRow {
        agent: host.to_string(),
        state: state.into(),
        reason: reason.into(),
        sentence,
        ..StagingRow::default()
    }
}

/// What an open staging waits for, and what was refused meanwhile, host by host.
pub(super) fn blockers(order: &OrderStatus) -> Vec<Blocker> {
    let blocker = |row: &StagingRow| match row.state.as_str() {
        "staged" | "gone" => None,
        "refused" => Some(Blocker {
            kind: BlockerKind::Refused.as_str().to_owned(),
            since_ms: order.at_ms,
            waiting_for: format!("{}, which refuses to stage ({}): {}", row.agent, row.reason, row.sentence),
        }),
        _ => Some(Blocker { kind: row.reason.clone(), since_ms: row.since_ms, waiting_for: row.sentence.clone() }),
    };
    order.hosts.iter().filter_map(blocker).collect()
}
