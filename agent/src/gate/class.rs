//! Is a request a read or a write? Pure.
//!
//! Reads and writes have weights of their own, so that a candidate can be given reads long before it is trusted with writes.

mod rule;

use std::borrow::Cow;

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
    let path = &plain(path);
    let rule = if climbs(path) { None } else { rules.iter().find(|rule| rule.takes(method, path)) };
    rule.map_or_else(|| by_method(method), ClassRule::class)
}

fn by_method(method: &str) -> Class {
    if matches!(method, "GET" | "HEAD" | "OPTIONS") { Class::Read } else { Class::Write }
}

/// The same path with every letter as itself that need not be encoded: services take `/%61` for `/a` (RFC 3986 §6.2.2.2).
fn plain(path: &str) -> Cow<'_, str> {
    let mut pieces = path.split('%');
    let first = pieces.next().unwrap_or_default();
    if first.len() == path.len() {
        return Cow::Borrowed(path);
    }
    let mut plain = first.to_owned();
    for piece in pieces {
        let digits = piece.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte)) {
            Some(byte) => {
                plain.push(char::from(byte));
                plain.push_str(&piece[2..]);
            }
            None => {
                plain.push('%');
                plain.push_str(piece);
            }
        }
    }
    Cow::Owned(plain)
}

/// It leads out of the segments before.
fn climbs(path: &str) -> bool {
    path.split('/').any(|segment| segment == "..")
}

#[cfg(test)]
mod tests;
