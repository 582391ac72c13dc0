//! Plain output while watching: one line per change, for logs and pipes.

use std::collections::BTreeMap;

use handover_proto::wire::{FleetRow, StatusReply};

use super::words::{clock, version};

/// Remembers what was said last.
#[derive(Debug, Default)]
pub(super) struct Changes {
    last: Option<Said>,
}

#[derive(Debug, PartialEq, Eq)]
struct Said {
    rollout: String,
    state: String,
    step: String,
    waiting: String,
    lease: String,
    rows: BTreeMap<(String, String), String>,
}

impl Changes {
    /// The lines that say how `reply` differs from the one before; counters are no change.
    pub(super) fn lines(&mut self, reply: &StatusReply) -> Vec<String> {
        let now = Said::of(reply);
        let lines = now.since(self.last.as_ref());
        self.last = Some(now);
        lines.into_iter().map(|line| format!("{} {line}", clock(reply.at_ms))).collect()
    }
}

impl Said {
    fn of(reply: &StatusReply) -> Self {
        let rollout = reply.rollout.clone().unwrap_or_default();
        let reason = if rollout.reason.is_empty() { String::new() } else { format!(": {}", rollout.reason) };
        let (from, to) = (version(&rollout.from_version), version(&rollout.to_version));
        let lease = reply.lease.as_ref().map(|lease| match lease.agent.as_str() {
            "" => lease.state.clone(),
            agent => format!("{} by {agent}/{} ({})", lease.state, lease.version, lease.token),
        });
        Self {
            rollout: format!("rollout {} of {}: {from} -> {to}", rollout.rollout, reply.service),
            state: format!("{}{reason}", rollout.state),
            step: format!("step {}/{}: {}", rollout.step, rollout.steps, rollout.step_what),
            waiting: reply.blockers.first().map(|blocker| blocker.waiting_for.clone()).unwrap_or_default(),
            lease: lease.unwrap_or_default(),
            rows: reply.fleet.iter().map(|row| ((row.agent.clone(), row.slot.clone()), describe(row))).collect(),
        }
    }

    fn since(&self, last: Option<&Self>) -> Vec<String> {
        let mut lines = Vec::new();
        let mut say = |now: &str, before: Option<&str>, prefix: &str| {
            if !now.is_empty() && Some(now) != before {
                lines.push(format!("{prefix}{now}"));
            }
        };
        say(&self.rollout, last.map(|l| l.rollout.as_str()), "");
        say(&self.step, last.map(|l| l.step.as_str()), "");
        for ((agent, slot), row) in &self.rows {
            let before = last.and_then(|l| l.rows.get(&(agent.clone(), slot.clone()))).map(String::as_str);
            say(row, before, &format!("{agent}/{slot} "));
        }
        say(&self.lease, last.map(|l| l.lease.as_str()), "lease ");
        say(&self.waiting, last.map(|l| l.waiting.as_str()), "waiting: ");
        say(&self.state, last.map(|l| l.state.as_str()), "");
        lines
    }
}

fn describe(row: &FleetRow) -> String {
    let heard = if row.alive { "" } else { ", not heard" };
    let assigned = if row.reported == row.assigned { String::new() } else { format!(" -> {}", row.assigned) };
    format!("{} {}{assigned} reads {} % writes {} %{heard}", row.version, row.reported, row.reads, row.writes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use handover_proto::wire::RolloutStatus;

    fn reply(step: u32, in_flight: u64, reported: &str) -> StatusReply {
        let row = FleetRow {
            agent: "app-01".into(),
            slot: "a".into(),
            version: "1.4.2".into(),
            reported: reported.into(),
            assigned: "SERVING".into(),
            in_flight,
            alive: true,
            ..FleetRow::default()
        };
        let rollout = RolloutStatus { step, steps: 9, state: "running".into(), ..RolloutStatus::default() };
        StatusReply { rollout: Some(rollout), fleet: vec![row], at_ms: 1_795_271_327_000, ..StatusReply::default() }
    }

    #[test]
    fn a_counter_that_moves_says_nothing() {
        let mut changes = Changes::default();
        assert!(!changes.lines(&reply(1, 5, "SERVING")).is_empty(), "the first look is said whole");
        assert!(changes.lines(&reply(1, 6, "SERVING")).is_empty());
    }

    #[test]
    fn each_change_is_one_line_with_its_time() {
        let mut changes = Changes::default();
        changes.lines(&reply(1, 0, "READY"));
        let lines = changes.lines(&reply(2, 0, "SERVING"));
        assert_eq!(lines, ["14:28:47Z step 2/9: ", "14:28:47Z app-01/a 1.4.2 SERVING reads 0 % writes 0 %"]);
    }

    #[test]
    fn the_outcome_is_said_last_and_with_its_reason() {
        let mut changes = Changes::default();
        changes.lines(&reply(1, 0, "SERVING"));
        let mut ended = reply(1, 0, "READY");
        ended.rollout = Some(RolloutStatus {
            state: "rolled-back".into(),
            reason: "errors".into(),
            ..ended.rollout.expect("a rollout")
        });
        assert_eq!(changes.lines(&ended).last().expect("a line"), "14:28:47Z rolled-back: errors");
    }
}
