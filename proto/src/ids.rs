//! Names and versions, parsed once at the edge and trusted afterwards.
//!
//! Names become parts of store keys, of unit names and of URI names in certificates, so they are kept to what all three
//! take as it is: lower-case letters, digits and single inner dashes, at most 63 characters (a DNS label, RFC 1123 §2.1).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that is not a name, a version or an id. Says what was given and what would do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a valid {what}: {rule}")]
pub struct IdError {
    what: &'static str,
    given: String,
    rule: &'static str,
}

const NAME_RULE: &str = "use 1 to 63 lower-case letters, digits and dashes, with a letter or digit at both ends";
const VERSION_RULE: &str =
    "use 1 to 64 letters, digits, '.', '-', '_' and '+', with a letter or digit first (it names a directory)";
const HEX_RULE: &str = "use the id as Handover prints it: lower-case hexadecimal digits";

fn is_name(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().last())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn is_version(text: &str) -> bool {
    text.len() <= 64
        && text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '+'))
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $valid:expr, $rule:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text, as it stands in keys, file names and logs.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(&text) { Ok(Self(text)) } else { Err(IdError { what: $what, given: text, rule: $rule }) }
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// One installation's name: several may share an etcd cluster. First part of every key.
    Env, "environment name", is_name, NAME_RULE);
text_id!(
    /// The service that is upgraded.
    Service, "service name", is_name, NAME_RULE);
text_id!(
    /// One agent, which is one service on one host.
    AgentId, "agent name", is_name, NAME_RULE);
text_id!(
    /// A person who gives orders, or a program that acts for one, as the certificate says.
    OperatorId, "operator name", is_name, NAME_RULE);
text_id!(
    /// A place on a host where one instance can run.
    SlotId, "slot name", is_name, NAME_RULE);
text_id!(
    /// A version of the service, also the name of its directory under `builds`.
    Version, "version", is_version, VERSION_RULE);
text_id!(
    /// One start of the service's process: random, never reused (`SAFETY.md` §1.2).
    InstanceId, "instance id", |text| is_hex(text, 16), HEX_RULE);
text_id!(
    /// One rollout: random, short enough to be typed.
    RolloutId, "rollout id", |text| is_hex(text, 6), HEX_RULE);
text_id!(
    /// What one lease transaction or hook is known by, so that a repeat is recognised.
    OpId, "operation id", |text| is_hex(text, 16), HEX_RULE);

fn random_hex(digits: usize) -> String {
    let mut text = format!("{:016x}", rand::random::<u64>());
    text.truncate(digits);
    text
}

impl Default for Env {
    /// `default`, for installations that need only one.
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl InstanceId {
    /// A new id; the agent records it before it starts the process.
    pub fn random() -> Self {
        Self(random_hex(16))
    }
}

impl RolloutId {
    /// A new id.
    pub fn random() -> Self {
        Self(random_hex(6))
    }
}

impl OpId {
    /// A new id.
    pub fn random() -> Self {
        Self(random_hex(16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_break_a_key_or_a_unit_name_are_refused() {
        for bad in ["", "a/b", "Upper", "-a", "a-", "a b", "ä", &"x".repeat(64)] {
            let error = bad.parse::<AgentId>().expect_err(bad);
            assert!(error.to_string().contains("agent name"), "{error}");
        }
        assert_eq!("default".parse(), Ok(Env::default()));
        assert_eq!("app-01".parse::<AgentId>().expect("a name").as_str(), "app-01");
    }

    #[test]
    fn versions_cannot_leave_their_directory() {
        for bad in ["../1", ".1", "1/2", "", "1 2"] {
            bad.parse::<Version>().expect_err(bad);
        }
        for good in ["1.4.2", "2026-11-21", "v1.0.0-rc.1+build5"] {
            good.parse::<Version>().expect(good);
        }
    }

    #[test]
    fn random_ids_parse_back_and_differ() {
        let (a, b) = (InstanceId::random(), InstanceId::random());
        assert_ne!(a, b);
        assert_eq!(a.as_str().parse::<InstanceId>(), Ok(a.clone()));
        assert_eq!(RolloutId::random().as_str().len(), 6);
        OpId::random().as_str().parse::<OpId>().expect("an op id");
    }

    #[test]
    fn serde_refuses_what_parsing_refuses() {
        assert!(serde_json::from_str::<SlotId>("\"A b\"").is_err());
        assert_eq!(serde_json::to_string(&"a".parse::<SlotId>().expect("slot")).expect("json"), "\"a\"");
    }
}
