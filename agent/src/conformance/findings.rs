//! What the kit says, rule by rule.

use std::fmt;

use serde::Serialize;

/// The service's obligations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Rule {
    /// Starts a unit only if ACTIVE and before the soft deadline.
    A1,
    /// A unit ends by the hard deadline.
    A2,
    /// Every write runs the fence check in its own transaction.
    A3,
    /// QUIESCED only when nothing runs, nothing is armed, nothing is open.
    A4,
    /// Starts stopped.
    A5,
    /// Carries no state over fork and exec.
    A6,
    /// Effects elsewhere go through an outbox.
    A7,
    /// QUIESCED and FENCED are final.
    A8,
}

/// How it stands with one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Kept, as far as it was tried.
    Pass,
    /// Broken.
    Fail,
    /// Could not be told.
    NotCheckable,
}

/// One line of the kit's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which rule.
    pub rule: Rule,
    /// In words.
    pub says: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// What was seen.
    pub seen: String,
    /// What to change, or what would make it checkable; empty: nothing.
    pub change: String,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// No rule is broken.
    pub passed: bool,
    /// One for each rule, in order.
    pub findings: Vec<Finding>,
}

impl Rule {
    /// All of them, in order.
    pub const ALL: [Self; 8] = [Self::A1, Self::A2, Self::A3, Self::A4, Self::A5, Self::A6, Self::A7, Self::A8];

    /// The obligation in words.
    pub fn says(self) -> &'static str {
        match self {
            Self::A1 => "a unit starts only if ACTIVE and before the soft deadline",
            Self::A2 => "a unit ends within c_unit, and by the hard deadline",
            Self::A3 => "every write checks the fence in its own transaction",
            Self::A4 => "QUIESCED only with nothing in flight, no timer armed, no transaction open",
            Self::A5 => "it starts stopped",
            Self::A6 => "no work is carried over fork and exec",
            Self::A7 => "effects elsewhere go through an outbox written under the fence",
            Self::A8 => "QUIESCED and FENCED are final: resuming needs a new ACTIVE",
        }
    }

    /// A finding.
    pub fn found(self, verdict: Verdict, seen: impl Into<String>, change: impl Into<String>) -> Finding {
        Finding { rule: self, says: self.says(), verdict, seen: seen.into(), change: change.into() }
    }
}

impl Findings {
    /// Of one finding for each rule.
    pub fn new(findings: Vec<Finding>) -> Self {
        Self { passed: findings.iter().all(|finding| finding.verdict != Verdict::Fail), findings }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { rule, says, verdict, seen, change } in &self.findings {
            let word = match verdict {
                Verdict::Pass => "pass",
                Verdict::Fail => "FAIL",
                Verdict::NotCheckable => "not checkable",
            };
            writeln!(f, "{rule:?}  {word:<13}  {says}")?;
            writeln!(f, "      seen: {seen}")?;
            if !change.is_empty() {
                writeln!(f, "      {}: {change}", if *verdict == Verdict::Fail { "change" } else { "to check it" })?;
            }
        }
        let (failed, open) = (self.count(Verdict::Fail), self.count(Verdict::NotCheckable));
        write!(f, "{failed} of {} rules broken, {open} not checkable", self.findings.len())
    }
}

impl Findings {
    fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count()
    }
}
