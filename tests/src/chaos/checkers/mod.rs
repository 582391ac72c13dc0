//! The ten checkers of `SAFETY.md` §3.2, each a plain function over recorded rows. No I/O, no clock.
//!
//! A checker says what it found and *how much it looked at*: one that looked at nothing has proved nothing, so where
//! evidence is required and missing, that is a finding.

pub mod blockers;
pub mod darkness;
pub mod fence;
pub mod floor;
pub mod leaks;
pub mod loss;
pub mod ops;
pub mod register;
pub mod search;
pub mod single_holder;
pub mod ticks;

use serde::Serialize;

use crate::clock::BootNs;

/// What one checker says of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The checker's name, stable.
    pub name: &'static str,
    /// What it looked at, and how much.
    pub counted: Vec<(&'static str, u64)>,
    /// Every violation, in a sentence.
    pub found: Vec<String>,
}

impl Checked {
    /// A checker that has looked at nothing yet.
    pub fn new(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    /// Notes how much of something was looked at.
    pub fn count(&mut self, what: &'static str, how_much: usize) {
        self.counted.push((what, how_much as u64));
    }

    /// The same, of something without which the checker proves nothing.
    pub fn need(&mut self, what: &'static str, how_much: usize) {
        self.count(what, how_much);
        if how_much == 0 {
            self.found.push(format!("there are no {what} to look at: this proves nothing"));
        }
    }

    /// Notes a violation.
    pub fn find(&mut self, violation: String) {
        self.found.push(violation);
    }
}

/// A time in which something was wrong on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Window {
    /// First moment.
    pub from: BootNs,
    /// Last moment.
    pub to: BootNs,
}

impl Window {
    /// Whether it has a moment in common with `from..=to`.
    pub fn meets(&self, from: BootNs, to: BootNs) -> bool {
        self.from <= to && from <= self.to
    }
}

#[cfg(test)]
pub(crate) fn ms(n: u64) -> BootNs {
    BootNs(n * 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_evidence_is_a_finding_only_where_evidence_is_needed() {
        let mut checked = Checked::new("x");
        checked.count("overlaps", 0);
        assert_eq!(checked.found.len(), 0);
        checked.need("intervals", 0);
        assert_eq!(checked.found.len(), 1);
    }

    #[test]
    fn windows_meet_at_their_edges_too() {
        let window = Window { from: ms(10), to: ms(20) };
        assert!(window.meets(ms(20), ms(30)) && window.meets(ms(5), ms(10)) && window.meets(ms(12), ms(13)));
        assert!(!window.meets(ms(21), ms(30)) && !window.meets(ms(1), ms(9)));
    }
}
