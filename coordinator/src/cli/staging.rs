//! `handover stage`: a line for each host as it changes.

use std::collections::BTreeMap;

use handover_proto::wire::give_request::What;
use handover_proto::wire::{GiveCancel, GiveStage, OrderStatus, StagingRow};

use super::args::Stage;
use super::commands::Session;
use super::outcome::{CliError, Outcome};
use crate::core::staging::percent;

/// A host that fetches is shown again after this much more of it.
const STEP_PERCENT: u64 = 25;

impl Session {
    /// `handover stage`.
    ///
    /// # Errors
    /// [`CliError`]; what a rule forbids is [`CliError::Refused`].
    pub(super) async fn stage(&mut self, args: &Stage) -> Result<Outcome, CliError> {
        let Some(version) = &args.version else { return self.cancel_staging(&args.because).await };
        let agents = args.hosts.iter().map(ToString::to_string).collect();
        let what = What::Stage(GiveStage { version: version.to_string(), agents });
        let reply = self.give(what, &args.because).await?;
        self.follow_order(reply, args.detach).await
    }

    async fn cancel_staging(&mut self, because: &str) -> Result<Outcome, CliError> {
        let picture = self.picture(String::new()).await?;
        let open = picture.orders.iter().find(|order| order.what == "stage" && order.ended_ms == 0);
        let none = || CliError::Refused { kind: String::new(), sentence: "nothing is being staged".to_owned() };
        let number = open.ok_or_else(none)?.number;
        self.tell(What::Cancel(GiveCancel { number }), because).await
    }
}

/// How far each host was when it was shown last.
#[derive(Debug, Default)]
pub(super) struct Hosts(BTreeMap<String, (String, u64)>);

impl Hosts {
    /// A line for each host that goes on or waits otherwise than before. Its end stands in the order's log.
    pub(super) fn news(&mut self, order: &OrderStatus) -> Vec<String> {
        let open = |row: &&StagingRow| !matches!(row.state.as_str(), "staged" | "refused" | "gone");
        order.hosts.iter().filter(open).filter_map(|row| self.line(row)).collect()
    }

    fn line(&mut self, row: &StagingRow) -> Option<String> {
        let quarter = percent(row.done_bytes, row.total_bytes) / STEP_PERCENT;
        let now = (row.state.clone(), quarter);
        let before = self.0.insert(row.agent.clone(), now.clone());
        (before.as_ref() != Some(&now)).then(|| line(row))
    }
}

/// How far one host is.
pub(super) fn line(row: &StagingRow) -> String {
    let StagingRow { agent, state, done_bytes, total_bytes, reason, sentence, .. } = row;
    match state.as_str() {
        "fetching" if *total_bytes > 0 => {
            format!("{agent} fetching: {done_bytes} of {total_bytes} bytes ({} %)", percent(*done_bytes, *total_bytes))
        }
        "fetching" | "verifying" => format!("{agent} {state}"),
        "asked" | "away" | "waiting" => format!("{agent} {state} ({reason}): {sentence}"),
        "refused" => format!("{agent} refuses ({reason}): {sentence}"),
        _ => format!("{agent} {state}: {sentence}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(state: &str, done_bytes: u64) -> StagingRow {
        StagingRow { agent: "app-01".into(), state: state.into(), done_bytes, total_bytes: 1000, ..Default::default() }
    }

    fn order(row: StagingRow) -> OrderStatus {
        OrderStatus { hosts: vec![row], ..OrderStatus::default() }
    }

    #[test]
    fn a_host_is_shown_when_its_state_changes_and_at_each_quarter() {
        let mut hosts = Hosts::default();
        let mut lines = |row| hosts.news(&order(row)).len();
        assert_eq!(lines(row("asked", 0)), 1);
        assert_eq!(lines(row("asked", 0)), 0);
        let shown: Vec<usize> = [0, 100, 249, 250, 300, 900, 999].map(|done| lines(row("fetching", done))).into();
        assert_eq!(shown, [1, 0, 0, 1, 0, 1, 0]);
        assert_eq!(lines(row("verifying", 1000)), 1);
        assert_eq!(lines(row("staged", 1000)), 0, "the order's log says it");
    }

    #[test]
    fn a_line_says_how_much_has_come_or_why_nothing_does() {
        assert_eq!(line(&row("fetching", 250)), "app-01 fetching: 250 of 1000 bytes (25 %)");
        let away = StagingRow { reason: "agent-silent".into(), sentence: "it is not heard".into(), ..row("away", 0) };
        assert_eq!(line(&away), "app-01 away (agent-silent): it is not heard");
        let refused = StagingRow { reason: "space".into(), sentence: "too little room".into(), ..row("refused", 0) };
        assert_eq!(line(&refused), "app-01 refuses (space): too little room");
    }
}
