//! The lease's history, newest first, with its gaps.

use handover_proto::wire::TurnRow;

use crate::core::turns::TurnRecord;

/// One row for each record, and one for each gap between two of them; `last`: how many turns at most, 0: all.
pub(super) fn rows(records: &[TurnRecord], last: usize) -> Vec<TurnRow> {
    let mut rows = Vec::new();
    for (index, record) in records.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|index| records.get(index));
        if let Some(gap) = before.filter(|before| before.turn.saturating_add(1) < record.turn) {
            rows.push(TurnRow { turn: gap.turn + 1, gap_to: record.turn - 1, ..TurnRow::default() });
        }
        rows.push(row(record, before, records.get(index + 1)));
    }
    rows.reverse();
    if last > 0 {
        rows.truncate(last);
    }
    rows
}

fn row(record: &TurnRecord, before: Option<&TurnRecord>, next: Option<&TurnRecord>) -> TurnRow {
    let ended = next.map(|next| record.ended_by(next));
    TurnRow {
        turn: record.turn,
        token: record.token().map(|token| token.get().to_string()).unwrap_or_default(),
        agent: record.owner.agent.to_string(),
        instance: record.owner.instance.to_string(),
        version: record.owner.version.to_string(),
        held: record.proof.is_none(),
        at_ms: record.at_ms,
        cause: record.why(),
        ended: ended.unwrap_or_default(),
        dark_ms: record.dark_ms(before),
        gap_to: 0,
    }
}
