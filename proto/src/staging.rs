//! Bringing a version to hosts ahead of its window: what is asked for, and what agents say to it.
//!
//! The request is desired state like an assignment, but a key of its own: it concerns nothing that serves, so that it
//! neither changes a host's serial nor waits for anything that does.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::assignment::Cause;
use crate::ids::{AgentId, Version};
use crate::numbers::Term;
use crate::stored::Rest;

/// What stands under the staging key: these hosts are to have this version in place. Its mod revision tells one request
/// from the next; deleted, nothing is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagingRequest {
    /// Version of the stored form.
    pub v: u32,
    /// The term of the coordinator that decided it.
    pub term: Term,
    /// Why: a rollout, or the order whose number stands where a rollout's step does.
    pub cause: Cause,
    /// Which version.
    pub version: Version,
    /// On which hosts.
    pub hosts: BTreeSet<AgentId>,
    /// Of a newer coordinator.
    #[serde(flatten)]
    pub rest: Rest,
}

/// What an agent can do for a request, as its registration says; an older agent says nothing. A word of a newer agent is taken
/// for the least of them: a registration that cannot be read would stop everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stages {
    /// It fetches what is not there.
    Fetches,
    /// It verifies what others have put in place.
    #[serde(other)]
    Verifies,
}

macro_rules! words {
    ($(#[$about:meta])* $kind:ident: $($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $kind {
            $($(#[$doc])* $name,)*
        }

        impl $kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word that stands in reports and JSON.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }

        impl FromStr for $kind {
            type Err = UnknownWord;
            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                Self::ALL.iter().copied().find(|one| one.as_str() == text).ok_or_else(|| UnknownWord(text.to_owned()))
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

/// A word that is not in the list: from a newer peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown word {0:?} about a staging")]
pub struct UnknownWord(String);

words! {
    /// How far an agent is with a request.
    StagingState:
    /// It cannot begin yet, for the reason that it gives.
    Waiting => "waiting",
    /// Files are on their way.
    Fetching => "fetching",
    /// What is there is being verified.
    Verifying => "verifying",
    /// The version is in place, and verified.
    Staged => "staged",
    /// It will not be, for the reason that it gives; nothing was put in place.
    Refused => "refused",
}

words! {
    /// Why a version is not put in place.
    StagingRefusal:
    /// It is not there, and the agent's config does not say where to fetch it from.
    NoFetcher => "no-fetcher",
    /// A file did not come.
    Fetch => "fetch",
    /// What came is not what it should be: signature, manifest or digest.
    Artifact => "artifact",
    /// What is in its place already is not what it should be.
    InPlace => "in-place",
    /// It does not fit on the disk.
    Space => "space",
    /// The disk refuses.
    Disk => "disk",
    /// Something else; the sentence says what.
    Other => "other",
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stored::{STORED_VERSION, decode, encode};

    #[test]
    fn every_word_reads_back() {
        for state in StagingState::ALL {
            assert_eq!(state.as_str().parse(), Ok(*state));
            assert_eq!(serde_json::to_string(state).expect("json"), format!("\"{state}\""));
        }
        for refusal in StagingRefusal::ALL {
            assert_eq!(refusal.as_str().parse(), Ok(*refusal));
            assert_eq!(serde_json::to_string(refusal).expect("json"), format!("\"{refusal}\""));
        }
        assert!("bored".parse::<StagingState>().is_err());
    }

    #[test]
    fn what_a_newer_agent_can_do_is_read_as_the_least() {
        let read = |text: &str| serde_json::from_str::<Stages>(text).expect("a word");
        assert_eq!(read("\"resumes\""), Stages::Verifies);
        for stages in [Stages::Fetches, Stages::Verifies] {
            assert_eq!(read(&serde_json::to_string(&stages).expect("json")), stages);
        }
    }

    #[test]
    fn a_request_keeps_what_a_newer_coordinator_wrote() {
        let request = StagingRequest {
            v: STORED_VERSION,
            term: Term::from_wire(7),
            cause: Cause { rollout: None, step: 3, plan_hash: String::new() },
            version: "1.5.0".parse().expect("a version"),
            hosts: BTreeSet::from(["app-01".parse().expect("a name")]),
            rest: Rest::from_iter([("pace".to_owned(), 3.into())]),
        };
        let bytes = encode(&request).expect("bytes");
        assert_eq!(decode::<StagingRequest>("key", &bytes).expect("a request"), request);
    }
}
