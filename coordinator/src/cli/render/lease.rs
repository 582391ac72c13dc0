//! The scheduler lease, its history and the orders for it.

use handover_proto::wire::{LeaseStatus, OrderStatus, TurnRow, TurnsReply};

use crate::cli::table::table;
use crate::cli::words::{age, date, span};

/// Who holds the scheduler lease, and who could.
pub(in crate::cli) fn lease(status: &LeaseStatus, now_ms: u64) -> Vec<String> {
    let mut lines = vec![format!("Lease     {}", status.state)];
    if !status.agent.is_empty() {
        let by = format!("{}  instance {}  version {}", status.agent, status.instance, status.version);
        lines.push(format!("{:<9} {by}", if status.state == "free" { "Last" } else { "Holder" }));
        let since = format!("since {} ({})", date(status.since_ms), age(status.since_ms, now_ms));
        lines.push(format!("Turn      {}  token {}  era {}  {since}", status.turn, status.token, status.era));
        lines.push(format!("Cause     {}", status.cause));
        lines.push(format!("Beat      {}", if status.beating { "present" } else { "absent" }));
    }
    lines.extend(deadline(status));
    lines.extend(dark(status, now_ms));
    lines.push(format!("Guard     {}", status.guard));
    lines.extend(frozen(status));
    if !status.intent.is_empty() {
        lines.push(format!("Intent    {}", status.intent));
    }
    let list = |names: &[String], none: &str| if names.is_empty() { none.to_owned() } else { names.join(", ") };
    lines.push(format!("Could     {}", list(&status.candidates, "nobody else")));
    lines.push(format!("Roster    {}", list(&status.roster, "none yet")));
    lines.push(format!("Store     {}", status.store));
    lines
}

/// How fresh the holder's right is.
fn deadline(status: &LeaseStatus) -> Option<String> {
    let word = &status.holder_state;
    match status.remaining_soft_ms {
        Some(ms) if ms > 0 => {
            Some(format!("Deadline  {} left, renewed all the time  ({word})", span(ms.unsigned_abs())))
        }
        Some(ms) => Some(format!("Deadline  passed {} ago  ({word})", span(ms.unsigned_abs()))),
        None if status.state == "held" => Some("Deadline  not known: the holder's agent is not heard".to_owned()),
        None => None,
    }
}

/// Since when nobody works under it.
pub(super) fn dark(status: &LeaseStatus, now_ms: u64) -> Option<String> {
    let for_ms = now_ms.saturating_sub(status.dark_since_ms);
    (status.dark_since_ms > 0).then(|| {
        format!("Dark      for {}, since {}: {}", span(for_ms), date(status.dark_since_ms), status.dark_because)
    })
}

/// Who keeps others from taking it over.
pub(super) fn frozen(status: &LeaseStatus) -> Option<String> {
    let freeze = status.freeze.as_ref()?;
    let because = if freeze.because.is_empty() { "no reason given" } else { &freeze.because };
    Some(format!("Frozen    by {} since {}: {because}", freeze.by, date(freeze.at_ms)))
}

/// The orders, oldest first.
pub(in crate::cli) fn orders(orders: &[OrderStatus]) -> Vec<String> {
    if orders.is_empty() {
        return vec!["nothing was ordered outside of rollouts".to_owned()];
    }
    let row = |order: &OrderStatus| {
        let state =
            if order.reason.is_empty() { order.state.clone() } else { format!("{}: {}", order.state, order.reason) };
        let cells = [order.number.to_string(), date(order.at_ms), order.by.clone(), order.sentence.clone(), state];
        cells.to_vec()
    };
    table(&["ORDER", "GIVEN", "BY", "WHAT", "STATE"], &orders.iter().map(row).collect::<Vec<_>>())
}

/// One order with its log.
pub(in crate::cli) fn order_log(order: &OrderStatus) -> Vec<String> {
    let mut lines = vec![self::order(order)];
    lines.extend(order.lines.iter().map(|line| format!("{}  {}", date(line.at_ms), line.what)));
    lines
}

/// An order that is open, in one line.
pub(super) fn order(order: &OrderStatus) -> String {
    let due = if order.due_ms > 0 { format!(" at {}", date(order.due_ms)) } else { String::new() };
    // A staging says it host by host.
    let waiting = order.blocker.as_ref().filter(|_| order.due_ms == 0 && order.hosts.is_empty());
    let waiting = waiting.map(|blocker| format!(", waiting for {}", blocker.waiting_for)).unwrap_or_default();
    format!("Order     {}: {}{due}, by {} ({}{waiting})", order.number, order.sentence, order.by, order.state)
}

/// The turns, newest first.
pub(in crate::cli) fn turns(reply: &TurnsReply) -> Vec<String> {
    if reply.turns.is_empty() {
        return vec!["no turn of the scheduler lease is recorded".to_owned()];
    }
    let rows: Vec<Vec<String>> = reply.turns.iter().map(|row| cells(row, reply.at_ms)).collect();
    table(&["TURN", "HOLDER", "VERSION", "TOKEN", "SINCE", "DARK", "CAUSE", "ENDED"], &rows)
}

fn cells(row: &TurnRow, now_ms: u64) -> Vec<String> {
    if row.gap_to > 0 {
        let which = if row.gap_to == row.turn { row.turn.to_string() } else { format!("{}-{}", row.turn, row.gap_to) };
        let none = || "-".to_owned();
        return vec![which, none(), none(), none(), none(), none(), "gap: no coordinator saw it".to_owned(), none()];
    }
    let ended = match (row.ended.as_str(), row.held) {
        ("", true) => format!("holds ({})", age(row.at_ms, now_ms)),
        ("", false) => format!("free ({})", age(row.at_ms, now_ms)),
        (ended, _) => ended.to_owned(),
    };
    let holder = if row.held { row.agent.clone() } else { "nobody".to_owned() };
    let version = if row.held { row.version.clone() } else { "-".to_owned() };
    let dark = row.dark_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
    vec![row.turn.to_string(), holder, version, row.token.clone(), date(row.at_ms), dark, row.cause.clone(), ended]
}
