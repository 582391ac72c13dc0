//! Is a request a read or a write? Pure.
//!
//! Reads and writes have weights of their own, so that a candidate can be given reads long before it is trusted with writes.

mod rule;

use serde::{Deserialize, Serialize};

pub use rule::{ClassRule, RuleError};

/// What a request does to the service's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Changes nothing.
    Read,
    /// May change something.
    Write,
}

/// The class of a request: the first rule that takes it, else by its method. A path with `..` in it is under no rule,
/// because the service may read it as another path than the one that the rule names.
pub fn class_of(rules: &[ClassRule], method: &str, path: &str) -> Class {
    let rule = if climbs(path) { None } else { rules.iter().find(|rule| rule.takes(method, path)) };
    rule.map_or_else(|| by_method(method), ClassRule::class)
}

fn by_method(method: &str) -> Class {
    if matches!(method, "GET" | "HEAD" | "OPTIONS") { Class::Read } else { Class::Write }
}

/// It leads out of the segments before.
fn climbs(path: &str) -> bool {
    path.split('/').any(|segment| segment.len() <= 6 && segment.to_ascii_lowercase().replace("%2e", ".") == "..")
}

#[cfg(test)]
mod tests;
