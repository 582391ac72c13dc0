//! Checkers 1 and 5: who held the right to schedule and when, where two held it at once, and where nobody did.
//!
//! An interval begins with `active` and ends with `inactive` of the same instance and token. One that was never ended
//! belongs to a process that died: it ended with the last line that the process wrote, or, if that says that a unit had
//! started, with that start. (What a dead process's unit still did is the fence's question, checker 2.) So look only once
//! the processes have ended or stopped; of one that still works the newest moments are missing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::billing::activity::{Event, Line, Why};
use crate::billing::contract::Token;
use crate::clock::BootNs;
use crate::span;

/// An interval in which a process could start units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interval {
    /// The process.
    pub instance: String,
    /// Its version.
    pub version: String,
    /// Its token.
    pub token: Token,
    /// First moment.
    #[serde(rename = "from_boot_ns")]
    pub from: BootNs,
    /// Last moment.
    #[serde(rename = "to_boot_ns")]
    pub to: BootNs,
    /// Why it ended; `None`: the process died or still runs.
    pub why: Option<Why>,
}

/// Two intervals of different tokens at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Overlap {
    /// The one that began first.
    pub first: Interval,
    /// The other.
    pub second: Interval,
    /// How long both lasted.
    #[serde(rename = "lasted_ms", serialize_with = "span::as_ms")]
    pub lasted: Duration,
}

/// A turn of the lease: from one holder to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Turn {
    /// Token that ended.
    pub from: Token,
    /// Token that began.
    pub to: Token,
    /// The holder before was told to quiesce: a planned hand-over.
    pub planned: bool,
    /// From its end until the next could start units.
    #[serde(rename = "dark_ms", serialize_with = "span::as_ms")]
    pub dark: Duration,
    /// From its end until the next started its first unit; `None` if it never did. Includes up to a tick's period.
    #[serde(rename = "to_first_unit_ms", serialize_with = "span::maybe_as_ms")]
    pub to_first_unit: Option<Duration>,
}

/// What both checkers found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct HolderReport {
    /// Every interval, by its beginning.
    pub intervals: Vec<Interval>,
    /// Every pair that overlaps.
    pub overlaps: Vec<Overlap>,
    /// The sum of all overlaps.
    #[serde(rename = "overlapped_ms", serialize_with = "span::as_ms")]
    pub overlapped: Duration,
    /// Every turn.
    pub turns: Vec<Turn>,
    /// The longest time without a holder, between the first interval's begin and the last one's end.
    #[serde(rename = "longest_dark_ms", serialize_with = "span::as_ms")]
    pub longest_dark: Duration,
    /// All such time.
    #[serde(rename = "total_dark_ms", serialize_with = "span::as_ms")]
    pub total_dark: Duration,
}

impl HolderReport {
    /// The longest overlap; zero if there is none.
    pub fn longest_overlap(&self) -> Duration {
        self.overlaps.iter().map(|overlap| overlap.lasted).max().unwrap_or_default()
    }

    /// The longest dark time of a planned hand-over, if there was one.
    pub fn longest_planned(&self) -> Option<Duration> {
        self.turns.iter().filter(|turn| turn.planned).map(|turn| turn.dark).max()
    }
}

/// Puts the lines of all processes together to intervals. Lines must be ordered by time.
pub fn intervals(lines: &[Line]) -> Vec<Interval> {
    let mut open: BTreeMap<String, Interval> = BTreeMap::new();
    let mut closed = Vec::new();
    for line in lines {
        let instance = line.instance.to_string();
        match line.event {
            Event::Active => {
                let (from, to) = (line.at_boot_ns, line.at_boot_ns);
                let (token, version) = (line.token, line.version.to_string());
                let interval = Interval { instance: instance.clone(), version, token, from, to, why: None };
                closed.extend(open.insert(instance, interval));
            }
            Event::Inactive { why } => {
                if let Some(interval) = open.remove(&instance) {
                    closed.push(Interval { to: line.at_boot_ns, why: Some(why), ..interval });
                }
            }
            Event::UnitStart { .. } | Event::UnitEnd { .. } => {
                if let Some(interval) = open.get_mut(&instance) {
                    interval.to = line.at_boot_ns;
                }
            }
        }
    }
    closed.extend(open.into_values());
    closed.sort_by_key(|interval| (interval.from, interval.to));
    closed
}

/// Looks for overlaps, turns and darkness. Intervals must be ordered by their beginning.
pub fn check(intervals: &[Interval], lines: &[Line]) -> HolderReport {
    let mut report = HolderReport { intervals: intervals.to_vec(), ..HolderReport::default() };
    for (i, first) in intervals.iter().enumerate() {
        for second in intervals[i + 1..].iter().take_while(|second| second.from < first.to) {
            let lasted = first.to.min(second.to).since(second.from);
            if !lasted.is_zero() {
                report.overlapped += lasted;
                report.overlaps.push(Overlap { first: first.clone(), second: second.clone(), lasted });
            }
        }
    }
    let mut held_until: Option<&Interval> = None;
    for interval in intervals {
        if let Some(before) = held_until {
            let dark = interval.from.since(before.to);
            report.longest_dark = report.longest_dark.max(dark);
            report.total_dark += dark;
            if before.token != interval.token {
                report.turns.push(turn(before, interval, dark, lines));
            }
        }
        if held_until.is_none_or(|before| interval.to >= before.to) {
            held_until = Some(interval);
        }
    }
    report
}

fn turn(before: &Interval, next: &Interval, dark: Duration, lines: &[Line]) -> Turn {
    let first_unit = lines.iter().find(|line| {
        line.token == next.token
            && line.instance.as_str() == next.instance
            && line.at_boot_ns >= next.from
            && matches!(line.event, Event::UnitStart { .. })
    });
    Turn {
        from: before.token,
        to: next.token,
        planned: before.why == Some(Why::Quiesced),
        dark,
        to_first_unit: first_unit.map(|line| line.at_boot_ns.since(before.to)),
    }
}

#[cfg(test)]
mod tests;
