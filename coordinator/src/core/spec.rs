//! The operator's TOML: text becomes a [`Spec`] or an error that names file, line, field and fix.
//!
//! Everything but the service's name and version has a default. Durations and percentages are text with a unit; unknown
//! keys are refused, because a misspelt limit must not silently be none.

mod raw;

use std::fmt;
use std::time::Duration;

use handover_proto::assignment::DrainPolicy;
use handover_proto::ids::{Service, Version};
use serde::{Deserialize, Serialize};

use super::duration;

/// What an operator wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The service to upgrade.
    pub service: Service,
    /// The version that is to serve.
    pub version: Version,
    /// How a host is changed.
    pub way: Way,
    /// Hosts that change at the same time; at least 1.
    pub wave_size: usize,
    /// The floor: hosts that serve at any moment. None: one less than the fleet has, and with start-first at least one.
    pub min_serving: Option<usize>,
    /// Whether every host has the version in place before anything is touched. None: where an agent knows how to fetch.
    pub stage: Option<bool>,
    /// Shares of the reads in percent, growing, the last one 100. Writes follow in one step.
    pub shift: Vec<u32>,
    /// How long every shift is watched before the next step.
    pub step_soak: Duration,
    /// How long the new version serves alone before the old one, kept warm until then, is retired.
    pub soak: Duration,
    /// Limits that hold during the whole rollout.
    pub rules: Rules,
}

/// How a host is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// The candidate runs beside the current version, on another slot, before traffic moves.
    StartFirst,
    /// The host is taken out, and the candidate takes the current version's place, in its slot.
    StopFirst,
}

/// Limits that hold during the whole rollout; frozen into the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// A candidate that is not READY this long after its start was asked for sends the rollout back.
    #[serde(with = "duration", rename = "start_deadline_ms")]
    pub start_deadline: Duration,
    /// When a serving candidate is unhealthy.
    pub health: Health,
    /// How a slot that loses its traffic is drained.
    pub drain: DrainPolicy,
    /// How long the holder's service may take to finish its unit of work when the lease is to move.
    #[serde(with = "duration", rename = "quiesce_timeout_ms")]
    pub quiesce_timeout: Duration,
    /// Hosts whose agent has this label `zone` go first where several could take the lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefer_zone: Option<String>,
}

/// When a serving candidate is unhealthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Share of its answers that may be errors or lost.
    pub max_error_rate: Rate,
    /// The share has to be above the limit for this long.
    #[serde(with = "duration", rename = "dwell_ms")]
    pub dwell: Duration,
    /// Fewer requests than this are not judged.
    pub min_samples: u64,
    /// A serving candidate that is not ready for this long sends the rollout back.
    #[serde(with = "duration", rename = "unready_dwell_ms")]
    pub unready_dwell: Duration,
    /// What becomes of a rollout when nobody measures how its candidate answers.
    #[serde(default, skip_serializing_if = "Unmeasured::is_default")]
    pub unmeasured: Unmeasured,
}

/// What becomes of a rollout whose candidate has been watched, but nobody has measured how it answers (mode `signal`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unmeasured {
    /// It pauses, and an operator vouches for the step by resuming it (`SAFETY.md` E16: no data, no promotion).
    #[default]
    Pause,
    /// It goes on: what the instance says of its readiness is enough.
    GoOn,
}

impl Unmeasured {
    /// Left out of stored plans, so that those of before keep their hash.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A share, in hundredths of a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rate {
    /// 0 to 10 000.
    pub basis_points: u32,
}

impl Rate {
    /// Whether `bad` of `all` is more than this share.
    pub fn is_crossed_by(self, bad: u64, all: u64) -> bool {
        u128::from(bad) * 10_000 > u128::from(all) * u128::from(self.basis_points)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.basis_points / 100, self.basis_points % 100);
        if part == 0 { write!(f, "{whole} %") } else { write!(f, "{whole}.{part:02} %") }
    }
}

/// A spec that cannot be used: where, what, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {}{message}", field_prefix(field))]
pub struct SpecError {
    /// As the operator named it.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// The key; empty if the line has none.
    pub field: String,
    /// What is wrong and how to put it right.
    pub message: String,
}

fn field_prefix(field: &str) -> String {
    if field.is_empty() { String::new() } else { format!("{field}: ") }
}

impl Spec {
    /// Reads the operator's TOML. `file` is only for the error's text.
    ///
    /// # Errors
    /// [`SpecError`] with the first thing that is wrong.
    pub fn parse(file: &str, text: &str) -> Result<Self, SpecError> {
        raw::parse(text).map_err(|wrong| wrong.at(file, text))
    }
}
