//! The judgement over a run: every rule by name, with what was found.

use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

use crate::load::outcome::Outcome;
use crate::load::tally::LoadReceipt;
use crate::receipt::fence::FenceReport;
use crate::receipt::holders::HolderReport;
use crate::receipt::ticks::TickReport;
use crate::receipt::writes::WriteReport;

/// Overlap below this is the two clocks' readings, not two holders (`SAFETY.md` §3.2, checker 1).
const CLOCK_READING: Duration = Duration::from_millis(1);

/// What the run allows.
#[derive(Debug, Clone, Default)]
pub struct Expect {
    /// The run froze a process so that it could not notice: only the fence counts then, not the overlap.
    pub undetected_pause: bool,
    /// The run has bad versions in it on purpose: their own failures are allowed.
    pub service_faults: bool,
    /// Longest time without a holder that is allowed, the end of the run included (by its owed ticks); `None`: any.
    pub longest_dark: Option<Duration>,
}

/// One rule that was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Broken {
    /// The rule's name, stable.
    pub rule: &'static str,
    /// What was found.
    pub found: String,
}

/// Passed, or what was broken.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// No rule was broken.
    pub passed: bool,
    /// The rules that were.
    pub broken: Vec<Broken>,
}

impl Verdict {
    /// 0 if passed, else 4: a human is needed (`DESIGN.md` §12).
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(if self.passed { 0 } else { 4 })
    }
}

/// Applies every rule.
pub fn judge(
    load: &LoadReceipt,
    writes: &WriteReport,
    fence: &FenceReport,
    ticks: &TickReport,
    holders: &HolderReport,
    expect: &Expect,
) -> Verdict {
    let total = &load.total;
    let overlap = if expect.undetected_pause { Duration::ZERO } else { holders.longest_overlap() };
    let faults = if expect.service_faults { 0 } else { total.of(Outcome::ServiceFault) };
    let ended: u64 = total.outcomes.values().sum();
    let longest_dark = holders.longest_dark.max(ticks.owed_for);
    let dark = expect.longest_dark.filter(|limit| longest_dark > *limit);
    let counts = [
        ("nothing-sent", u64::from(total.sent == 0), "no request was sent: the run proves nothing"),
        ("lost", total.lost(), "requests refused, reset or without an answer in time"),
        ("gate-errors", total.of(Outcome::GateError), "requests answered with an error by the gate"),
        ("service-errors", total.of(Outcome::ServiceError), "requests answered 5xx by the service, not on purpose"),
        ("unexpected", total.of(Outcome::Unexpected), "answers that are neither good nor 5xx"),
        ("service-faults", faults, "failures that the service made on purpose, which this run does not allow"),
        ("unaccounted", total.sent.abs_diff(ended), "requests sent without an outcome"),
        ("writes-missing", writes.missing_count, "acknowledged writes that are not in the ledger"),
        ("writes-doubled", writes.doubled, "writes that are in the ledger more than once"),
        ("writes-altered", writes.altered, "writes that the ledger has otherwise than they were sent"),
        ("writes-invented", writes.invented, "writes in the ledger that were never sent"),
        ("fence", fence.violations.len() as u64, "commits that the fence should have stopped"),
        ("ticks-doubled", ticks.doubled, "ticks charged more than once"),
        ("ticks-missed", ticks.holes, "ticks that were skipped"),
        ("overlap", u64::from(overlap > CLOCK_READING), "two held the right to schedule at once"),
        ("dark", u64::from(dark.is_some()), "without a holder for longer than this run allows"),
    ];
    let found = |(rule, count, what): (&'static str, u64, &str)| {
        let detail = match rule {
            "overlap" => format!(" (for {overlap:?})"),
            "dark" => format!(" ({longest_dark:?}, allowed {:?})", dark.unwrap_or_default()),
            "fence" => format!(" (first: {})", fence.violations.first().map_or("", String::as_str)),
            _ => String::new(),
        };
        Broken { rule, found: format!("{count} {what}{detail}") }
    };
    let broken: Vec<_> = counts.into_iter().filter(|(_, count, _)| *count > 0).map(found).collect();
    Verdict { passed: broken.is_empty(), broken }
}

#[cfg(test)]
mod tests;
