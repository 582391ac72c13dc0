//! Answers as text: pure functions from wire messages to lines.

use handover_proto::wire::{Blocker, FleetRow, HistoryReply, PlanReply, RolloutStatus, StatusReply};

mod lease;

pub(super) use lease::{lease, order_log, orders, turns};

use super::staging;
use super::table::table;
use super::words::{age, clock, date, version};

/// The whole picture: the rollout's head and one row per instance (`DESIGN.md` §12).
pub(super) fn status(reply: &StatusReply) -> Vec<String> {
    let mut lines = match &reply.rollout {
        Some(rollout) => head(reply, rollout),
        None => {
            vec![format!("{}: no rollout yet; current version {}", service(reply), version(&reply.current_version))]
        }
    };
    lines.extend(notes(reply));
    lines.push(String::new());
    lines.extend(fleet(reply));
    lines
}

/// What is out of the ordinary apart from the rollout: a dark lease, a freeze, orders that are open.
pub(super) fn notes(reply: &StatusReply) -> Vec<String> {
    let lease = reply.lease.as_ref();
    let mut lines: Vec<String> = lease.and_then(|lease| lease::dark(lease, reply.at_ms)).into_iter().collect();
    lines.extend(lease.and_then(lease::frozen));
    for order in reply.orders.iter().filter(|order| order.ended_ms == 0) {
        lines.push(lease::order(order));
        lines.extend(order.hosts.iter().map(|row| format!("          {}", staging::line(row))));
    }
    lines
}

fn head(reply: &StatusReply, rollout: &RolloutStatus) -> Vec<String> {
    let end = if rollout.ended_ms == 0 { reply.at_ms } else { rollout.ended_ms };
    let mut lines = vec![
        format!(
            "Rollout   {}  {}  {} -> {}   waves {}/{}",
            rollout.rollout,
            service(reply),
            version(&rollout.from_version),
            version(&rollout.to_version),
            rollout.wave,
            rollout.waves
        ),
        format!(
            "Status    {:<9} step {}/{}  {}   elapsed {}",
            rollout.state,
            rollout.step,
            rollout.steps,
            rollout.step_what,
            age(rollout.started_ms, end)
        ),
    ];
    if rollout.ended_ms == 0 {
        lines.push(format!("Go back   {}", if rollout.can_go_back { "yes" } else { "no" }));
    }
    if !rollout.reason.is_empty() {
        lines.push(format!("Reason    {}", rollout.reason));
    }
    if let Some(blocker) = reply.blockers.first() {
        lines.push(format!("Waiting   {}", blocker.waiting_for));
    }
    lines
}

fn service(reply: &StatusReply) -> &str {
    if reply.service.is_empty() { "(no service is registered)" } else { &reply.service }
}

/// One row per instance.
pub(super) fn fleet(reply: &StatusReply) -> Vec<String> {
    const HEAD: [&str; 10] =
        ["AGENT", "SLOT", "VERSION", "REPORTED", "ASSIGNED", "READ", "WRITE", "INFLIGHT", "LEASE", "SINCE"];
    let rows: Vec<Vec<String>> = reply.fleet.iter().map(|row| cells(row, reply.at_ms)).collect();
    table(&HEAD, &rows)
}

fn cells(row: &FleetRow, now_ms: u64) -> Vec<String> {
    let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let in_flight = match (row.in_flight, row.oldest_ms) {
        (count, oldest) if count > 0 && oldest > 0 => format!("{count} ({})", super::words::span(oldest)),
        (count, _) => count.to_string(),
    };
    // A report of an agent that is not heard is a memory, and is marked as one.
    let reported = if row.alive { dash(&row.reported) } else { format!("{}?", dash(&row.reported)) };
    // Without a report nothing is known of the traffic.
    let known = |text: String| if row.reported_shares { text } else { "-".to_owned() };
    vec![
        row.agent.clone(),
        dash(&row.slot),
        dash(&row.version),
        reported,
        dash(&row.assigned),
        known(format!("{} %", row.reads)),
        known(format!("{} %", row.writes)),
        known(in_flight),
        dash(&row.lease),
        age(row.since_ms, now_ms),
    ]
}

/// Why nothing moves: every blocker, most important first.
pub(super) fn why(reply: &StatusReply) -> Vec<String> {
    if !reply.blockers.is_empty() {
        return reply.blockers.iter().map(|blocker| why_line(blocker, reply.at_ms)).collect();
    }
    let state = reply.rollout.as_ref().map(|rollout| rollout.state.as_str());
    let nothing = match state {
        Some("running" | "rolling-back") => "nothing is waited for: the rollout moves",
        _ => "nothing is waited for: everything is as it is assigned, and no rollout runs",
    };
    [nothing.to_owned()].into_iter().chain(reply.rollout.as_ref().and_then(why_not_done)).collect()
}

/// Why the last rollout did not come to its end.
fn why_not_done(rollout: &RolloutStatus) -> Option<String> {
    let ended = match rollout.state.as_str() {
        "rolled-back" => "was rolled back",
        "failed" => "failed",
        _ => return None,
    };
    let RolloutStatus { rollout, to_version, reason, .. } = rollout;
    Some(format!("the last rollout ({rollout}, to {}) {ended}: {reason}", version(to_version)))
}

fn why_line(blocker: &Blocker, now_ms: u64) -> String {
    format!("{:<13} {:>6}  {}", blocker.kind, age(blocker.since_ms, now_ms), blocker.waiting_for)
}

/// The plan, step by step.
pub(super) fn plan(reply: &PlanReply) -> Vec<String> {
    if !reply.changes {
        return vec![format!("{} is at {} already; nothing to do", reply.service, version(&reply.to_version))];
    }
    let rows = reply.steps.iter().map(|step| {
        vec![step.index.to_string(), step.wave.to_string(), step.kind.clone(), step.what.clone(), step.agents.join(" ")]
    });
    let rows = rows.collect::<Vec<_>>();
    let mut lines = vec![
        format!("Plan      {}  {} -> {}", reply.service, version(&reply.from_version), version(&reply.to_version)),
        format!("Hash      {}", reply.hash),
        String::new(),
    ];
    lines.extend(table(&["STEP", "WAVE", "KIND", "WHAT", "AGENTS"], &rows));
    lines
}

/// The list of rollouts, or one rollout's journal.
pub(super) fn history(reply: &HistoryReply) -> Vec<String> {
    if !reply.lines.is_empty() {
        let line = |line: &handover_proto::wire::JournalLine| {
            vec![line.seq.to_string(), clock(line.at_ms), line.term.to_string(), line.what.clone()]
        };
        return table(&["SEQ", "AT", "TERM", "WHAT"], &reply.lines.iter().map(line).collect::<Vec<_>>());
    }
    let row = |rollout: &RolloutStatus| {
        vec![
            rollout.rollout.clone(),
            format!("{} -> {}", version(&rollout.from_version), version(&rollout.to_version)),
            rollout.state.clone(),
            date(rollout.started_ms),
            if rollout.ended_ms == 0 { "-".to_owned() } else { age(rollout.started_ms, rollout.ended_ms) },
            rollout.reason.clone(),
        ]
    };
    table(
        &["ROLLOUT", "VERSIONS", "STATE", "STARTED", "TOOK", "REASON"],
        &reply.rollouts.iter().map(row).collect::<Vec<_>>(),
    )
}

#[cfg(test)]
mod tests;
