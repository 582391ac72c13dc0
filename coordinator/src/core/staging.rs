//! How far the hosts are that are to have a version in place ahead of its window. Orders and rollouts ask the same way.

use handover_proto::assignment::Cause;
use handover_proto::blocker::{Blocker, BlockerKind};
use handover_proto::ids::{AgentId, Version};
use handover_proto::numbers::Serial;
use handover_proto::staging::{StagingRefusal, StagingRequest, StagingState};
use serde::{Deserialize, Serialize};

use super::fleet::{Fleet, Heard, Staging};

/// So much of an agent's sentence is kept where it stands alone: a record of the journal has a limit.
const SENTENCE_CHARS: usize = 1000;
/// And so much where it stands among those of all hosts: an order has to fit into one request to the store.
const SHORT_CHARS: usize = 200;
/// So many hosts are named beside the first one that refuses.
const NAMED: usize = 20;

/// What stands under the staging key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requested {
    /// The value.
    pub request: StagingRequest,
    /// The key's mod revision.
    pub serial: Serial,
}

/// What happens to the staging key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Written: hosts begin.
    Request(StagingRequest),
    /// Deleted: hosts stop, and keep what they have.
    Withdraw,
}

/// How a host has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "kebab-case")]
pub enum HostEnd {
    /// The version is in place.
    Staged {
        /// What is, in the agent's words.
        what: String,
    },
    /// It is not.
    Refused {
        /// Why.
        why: StagingRefusal,
        /// In the agent's words.
        sentence: String,
    },
    /// The agent is no longer registered.
    Gone,
}

/// How far a host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostStand {
    /// It is not heard.
    Away {
        /// Unix milliseconds.
        since_ms: u64,
    },
    /// It is heard, and has not taken the request up.
    Asked {
        /// Why not, if it says so.
        sentence: String,
    },
    /// It has.
    Underway(Staging),
    /// It has ended.
    Ended(HostEnd),
}

/// How far a host is with this request. After a restore of the store a serial comes again: an answer about another version is
/// none.
pub fn stand(fleet: &Fleet, host: &AgentId, requested: &Requested) -> HostStand {
    let Some(agent) = fleet.agents.get(host) else { return HostStand::Ended(HostEnd::Gone) };
    let report = match (agent.heard, agent.seen()) {
        (Heard::Silent { since_ms }, _) => return HostStand::Away { since_ms },
        (Heard::Yes, report) => report.and_then(|report| report.staging.as_ref()),
    };
    if agent.registration.stages.is_none() {
        let sentence = format!("agent {} is too old to stage; upgrade it", agent.registration.agent_version);
        return HostStand::Ended(HostEnd::Refused { why: StagingRefusal::Other, sentence });
    }
    match report {
        Some(staging) if staging.is_for(requested) => match (staging.state, staging.refusal) {
            (StagingState::Staged, _) => {
                HostStand::Ended(HostEnd::Staged { what: kept(&staging.sentence, SENTENCE_CHARS) })
            }
            (StagingState::Refused, why) => HostStand::Ended(HostEnd::Refused {
                why: why.unwrap_or(StagingRefusal::Other),
                sentence: kept(&staging.sentence, SENTENCE_CHARS),
            }),
            (StagingState::Waiting | StagingState::Fetching | StagingState::Verifying, _) => {
                HostStand::Underway(staging.clone())
            }
        },
        // It says why it cannot read the key.
        Some(staging) if staging.serial == Serial::default() => HostStand::Asked { sentence: staging.sentence.clone() },
        Some(_) | None => HostStand::Asked { sentence: String::new() },
    }
}

fn kept(sentence: &str, chars: usize) -> String {
    sentence.chars().take(chars).collect()
}

/// Why hosts have not got the version: the first one in whole, others by name and reason; none: all of them have.
pub fn refusals<'a>(ends: impl IntoIterator<Item = (&'a AgentId, &'a HostEnd)>, version: &Version) -> Option<String> {
    let mut bad = ends.into_iter().filter(|(_, end)| !end.is_staged());
    let first = bad.next().map(|(host, end)| end.in_words(host, version))?;
    let others: Vec<String> = bad.map(|(host, end)| format!("{host} ({})", end.word())).collect();
    let named = others.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    Some(match others.len() {
        0 => first,
        1..=NAMED => format!("{first}; also {named}"),
        all => format!("{first}; also {named} and {} more", all - NAMED),
    })
}

impl HostStand {
    /// Why it has not ended; none: it has. `since_ms` is when it was asked.
    pub fn blocker(&self, host: &AgentId, version: &Version, since_ms: u64) -> Option<Blocker> {
        let blocker = |kind, since_ms, waiting_for| Some(Blocker { kind, since_ms, waiting_for });
        match self {
            Self::Ended(_) => None,
            Self::Away { since_ms } => {
                let waiting_for = format!("{host} to stage {version}: it is not heard, and begins when it is back");
                blocker(BlockerKind::AgentSilent, *since_ms, waiting_for)
            }
            Self::Asked { sentence } if sentence.is_empty() => {
                blocker(BlockerKind::Delivery, since_ms, format!("{host} to begin with staging {version}"))
            }
            Self::Asked { sentence } => {
                let waiting_for = format!(
                    "{host} to read that it is to stage {version}: {sentence} (after an upgrade, `handover store setup` \
                     grants it)"
                );
                blocker(BlockerKind::Store, since_ms, waiting_for)
            }
            Self::Underway(staging) => {
                let waiting_for = format!("{host} to stage {version}: {}", staging.in_words());
                blocker(BlockerKind::Staging, staging.since_ms, waiting_for)
            }
        }
    }
}

impl HostEnd {
    /// In a sentence, which names the host.
    pub fn in_words(&self, host: &AgentId, version: &Version) -> String {
        match self {
            Self::Staged { what } => format!("{host} has {version} in place: {what}"),
            Self::Refused { why, sentence } => format!("{host} refuses {version} ({why}): {sentence}"),
            Self::Gone => format!("{host} is no longer registered"),
        }
    }

    /// The same as it is kept for each host of an order.
    pub fn in_short(self) -> Self {
        match self {
            Self::Staged { what } => Self::Staged { what: kept(&what, SHORT_CHARS) },
            Self::Refused { why, sentence } => Self::Refused { why, sentence: kept(&sentence, SHORT_CHARS) },
            Self::Gone => Self::Gone,
        }
    }

    /// In one word.
    fn word(&self) -> &'static str {
        match self {
            Self::Staged { .. } => "staged",
            Self::Refused { why, .. } => why.as_str(),
            Self::Gone => "gone",
        }
    }

    /// Whether the version is in place.
    pub fn is_staged(&self) -> bool {
        matches!(self, Self::Staged { .. })
    }
}

impl Staging {
    fn is_for(&self, requested: &Requested) -> bool {
        self.serial == requested.serial && self.version.as_ref() == Some(&requested.request.version)
    }

    /// How far it is, or what it waits for.
    pub fn in_words(&self) -> String {
        match (self.state, self.total_bytes) {
            (StagingState::Waiting, _) => self.sentence.clone(),
            (StagingState::Verifying, _) => "it verifies what is there".to_owned(),
            (_, 0) => "it fetches the manifest".to_owned(),
            (_, total) => {
                format!("it has {} of {total} bytes ({} %)", self.done_bytes, percent(self.done_bytes, total))
            }
        }
    }
}

/// Whole percents; of nothing: none.
pub fn percent(done: u64, total: u64) -> u64 {
    u64::try_from(u128::from(done) * 100 / u128::from(total.max(1))).unwrap_or(100).min(100)
}

impl Requested {
    /// Whether it was written for this.
    pub fn is_for(&self, cause: &Cause) -> bool {
        self.request.cause == *cause
    }

    /// For what it was written, in words.
    pub fn whose(&self) -> String {
        match (&self.request.cause.rollout, self.request.cause.step) {
            (Some(rollout), _) => format!("rollout {rollout}"),
            (None, number) => format!("order {number}"),
        }
    }
}
