//! Where a test makes the coordinator die: `HANDOVER_CRASH_AFTER=<n>:<before|after>`.
//!
//! The process aborts once line `n` of any standing order's log is written (`HANDOVER_CRASH_AFTER=order:<n>:<before|after>`:
//! before or after anybody here knows of it), or once journal record `n` (of any rollout) is committed: `before` its assignments can have gone to
//! an agent, or `after` the agents have accepted them. For the crash loop of the tests; never set it elsewhere.

use std::sync::OnceLock;
use std::time::Duration;

/// How long `after` waits for agents that never accept.
pub(super) const ACCEPTED: Duration = Duration::from_secs(5);

/// On which side of the delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Before,
    After,
}

/// Where this process dies, if anywhere.
fn place() -> Option<(u64, Side)> {
    static PLACE: OnceLock<Option<(u64, Side)>> = OnceLock::new();
    *PLACE.get_or_init(|| parse(&std::env::var("HANDOVER_CRASH_AFTER").ok()?))
}

/// The same for standing orders.
fn order_place() -> Option<(u64, Side)> {
    static PLACE: OnceLock<Option<(u64, Side)>> = OnceLock::new();
    *PLACE.get_or_init(|| parse(std::env::var("HANDOVER_CRASH_AFTER").ok()?.strip_prefix("order:")?))
}

/// Dies here if a test says so: `line` lines stand in a standing order's log.
pub(super) fn reach_order(line: u64, side: Side) {
    if order_place() == Some((line, side)) {
        tracing::error!(line, ?side, "HANDOVER_CRASH_AFTER: aborting");
        std::process::abort();
    }
}

fn parse(text: &str) -> Option<(u64, Side)> {
    let (seq, side) = text.split_once(':')?;
    let side = match side {
        "before" => Side::Before,
        "after" => Side::After,
        _ => return None,
    };
    Some((seq.parse().ok()?, side))
}

/// Whether the process is to die at this place.
pub(super) fn is_at(seq: u64, side: Side) -> bool {
    place() == Some((seq, side))
}

/// Dies here if a test says so, as hard as `kill -9` would.
pub(super) fn reach(seq: u64, side: Side) {
    if is_at(seq, side) {
        tracing::error!(seq, ?side, "HANDOVER_CRASH_AFTER: aborting");
        std::process::abort();
    }
}

/// The watch may tell of the record before the store's answer does: `before` means before either is acted on.
pub(super) fn see(key: &str) {
    if let Some((seq, Side::Before)) = place()
        && key.ends_with(&format!("/events/{seq:08}"))
    {
        reach(seq, Side::Before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_place_is_one() {
        assert_eq!(parse("3:before"), Some((3, Side::Before)));
        assert_eq!(parse("12:after"), Some((12, Side::After)));
        for bad in ["", "3", "before", "x:after", "3:never"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
