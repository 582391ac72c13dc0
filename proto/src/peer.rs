//! Who is who in certificates (`DESIGN.md` §3): URI names of the form `handover://{env}/agent/{name}`,
//! `handover://{env}/coordinator` and `handover://{env}/operator/{name}`.

use std::fmt;
use std::str::FromStr;

use crate::ids::{AgentId, Env, IdError, OperatorId};

const SCHEME: &str = "handover://";

/// A URI name in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerName {
    /// The environment in which it counts.
    pub env: Env,
    /// Who it is there.
    pub role: Role,
}

/// What somebody with a certificate is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// An agent, by its name; agents of several services on one host may share it.
    Agent(AgentId),
    /// A coordinator; they are all alike.
    Coordinator,
    /// A person, or a program that acts for one, at the command line.
    Operator(OperatorId),
}

/// A URI that begins as ours do and is none of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerNameError {
    /// It has another form.
    #[error(
        "{given:?} is not a name of Handover's; use handover://ENV/agent/NAME, handover://ENV/coordinator or handover://ENV/operator/NAME"
    )]
    Form {
        /// The URI.
        given: String,
    },
    /// A part of it is not a name.
    #[error("in {given:?}: {source}")]
    Part {
        /// The URI.
        given: String,
        /// Which part, and the rule.
        source: IdError,
    },
}

impl PeerName {
    /// The name of `role` in `env`.
    pub fn new(env: &Env, role: Role) -> Self {
        Self { env: env.clone(), role }
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.role {
            Role::Agent(name) => write!(f, "{SCHEME}{}/agent/{name}", self.env),
            Role::Coordinator => write!(f, "{SCHEME}{}/coordinator", self.env),
            Role::Operator(name) => write!(f, "{SCHEME}{}/operator/{name}", self.env),
        }
    }
}

impl FromStr for PeerName {
    type Err = PeerNameError;

    fn from_str(text: &str) -> Result<Self, PeerNameError> {
        let form = || PeerNameError::Form { given: text.to_owned() };
        let part = |source| PeerNameError::Part { given: text.to_owned(), source };
        let rest = text.strip_prefix(SCHEME).ok_or_else(form)?;
        let (env, role) = rest.split_once('/').ok_or_else(form)?;
        let env = env.parse().map_err(part)?;
        let role = match role.split_once('/') {
            Some(("agent", name)) => Role::Agent(name.parse().map_err(part)?),
            Some(("operator", name)) => Role::Operator(name.parse().map_err(part)?),
            None if role == "coordinator" => Role::Coordinator,
            _ => return Err(form()),
        };
        Ok(Self { env, role })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_was_written() {
        for text in ["handover://prod/agent/app-01", "handover://prod/coordinator", "handover://eu-1/operator/alice"] {
            assert_eq!(text.parse::<PeerName>().expect(text).to_string(), text);
        }
    }

    #[test]
    fn what_is_not_exactly_a_name_is_none() {
        let near = [
            "handover://prod/coordinator/x",
            "handover://prod/coordinator/",
            "handover://prod/agent",
            "handover://prod/agent/",
            "handover://prod/agent/app-01/x",
            "handover://prod/agent/App",
            "handover:///coordinator",
            "handover://prod/operator/*",
            "Handover://prod/coordinator",
            "spiffe://prod/coordinator",
            "",
        ];
        for text in near {
            let error = text.parse::<PeerName>().expect_err(text).to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
