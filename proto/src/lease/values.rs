//! What stands under the lease's keys.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize};

use crate::assignment::Cause;
use crate::ids::{AgentId, InstanceId, OpId, Version};
use crate::numbers::{Era, Term, Token};
use crate::stored::{Rest, STORED_VERSION};
use crate::txn::LeaseId;

/// The longest lease that etcd grants, in seconds. More is nobody's grant, and a span of time could not hold it with
/// the margins that are added.
const MAX_TTL_S: u64 = 9_000_000_000;

/// The holder key: written only when ownership changes, so its mod revision counts the turns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Version of the stored form.
    pub v: u32,
    /// Held, or free.
    #[serde(flatten)]
    pub state: HolderState,
    /// The era it was written in.
    pub era: Era,
    /// Dense count of changes, for people.
    pub turn: u64,
    /// Of the transaction that wrote it: whoever wonders whether his own one happened looks here.
    pub op: OpId,
    /// Why ownership changed.
    pub cause: LeaseCause,
    /// Wall clock of the writer, Unix milliseconds; for people, never for decisions.
    pub at_ms: u64,
    /// When the service of whoever held before was known to have stopped, as `at_ms`; none: nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_at_ms: Option<u64>,
    // No `rest`: every turn is a value of its own, so nothing is carried along; and beside the flattened `state`, serde
    // would put that one's fields into it as well, which makes a value that cannot be read.
}

/// Who holds, or how the last turn ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "UPPERCASE")]
pub enum HolderState {
    /// Somebody holds.
    Held(Held),
    /// Nobody holds, and it is proved that the last one stopped.
    Free(Free),
}

/// A turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Who.
    pub owner: Owner,
    /// The etcd lease that its beat is bound to.
    pub lease_id: LeaseId,
    /// As etcd granted it, in seconds.
    #[serde(deserialize_with = "granted")]
    pub ttl_s: u64,
}

/// The end of a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Free {
    /// Who held last.
    pub last: Owner,
    /// Why it is certain that he stopped.
    pub stop_proof: StopProof,
}

/// One running copy of the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Its process.
    pub instance: InstanceId,
    /// Its agent.
    pub agent: AgentId,
    /// Its host.
    pub host: String,
    /// The host's boot id: the clock that its deadlines are counted on.
    pub boot_id: String,
    /// The version it runs.
    pub version: Version,
}

/// Why it is certain that a holder stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StopProof {
    /// It acknowledged QUIESCED for its token.
    Quiesced,
    /// No process of it is left.
    Dead,
    /// Two operators say so (break-glass).
    Operator,
}

/// Why ownership changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum LeaseCause {
    /// Nobody held, or the holder had stopped.
    Acquire,
    /// The holder was lost and the quarantine has passed.
    TakeOver,
    /// Asked for by the coordinator.
    HandOver {
        /// Its rollout and step.
        asked: Cause,
        /// Its term.
        term: Term,
    },
    /// Given up without a successor.
    Release,
    /// The same holder with a new process, or after its etcd lease was lost.
    Renewed,
    /// Two people moved it past the protocol (T6).
    BreakGlass(BreakGlass),
    /// Written by a newer agent.
    #[serde(other)]
    Other,
}

/// Two people's order to move the lease past the protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakGlass {
    /// Who gave it.
    pub by: String,
    /// Who agreed: somebody else.
    pub second: String,
    /// Why, in a sentence.
    pub because: String,
    /// What they answer for; none: the quarantine was waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asserting: Option<Assertion>,
}

/// What two people may answer for in the place of a quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Assertion {
    /// The holder's host has no power: nothing on it works any more.
    HostPoweredOff,
    /// Every effect of the service passes the fence at its database, so that an old holder can do no harm.
    FenceEnforced,
}

/// The beat: present as long as etcd believes in the holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Version of the stored form.
    pub v: u32,
    /// The holder.
    pub instance: InstanceId,
    /// As in the holder key.
    pub op: OpId,
}

/// An instance that could hold, bound to its own etcd lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Version of the stored form.
    pub v: u32,
    /// Who.
    pub owner: Owner,
    /// Its etcd lease.
    pub lease_id: LeaseId,
    /// As etcd granted it, in seconds; equal for all candidates of a service (K7).
    #[serde(deserialize_with = "granted")]
    pub ttl_s: u64,
    /// The assignment lets it hold, its readiness is true, and at least two renewals were accepted.
    pub ready: bool,
    /// It has traffic: preferred over one that has none.
    pub serving: bool,
    /// The intent it has prepared for.
    pub prepared_for: Option<OpId>,
    /// The intent it declined as holder, and went on.
    pub declined: Option<OpId>,
    /// The token under which its service has reported STARTED.
    pub active: Option<Token>,
    /// When it did: its agent's wall clock, Unix milliseconds, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_at_ms: Option<u64>,
    /// Where it stands among those that could take a lost or free lease: the lowest goes first.
    #[serde(default = "unranked")]
    pub rank: u32,
    /// How far its agent lets clocks run apart, in millionths; equal for all candidates of a service (K7). None: an
    /// older agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rho_ppm: Option<u32>,
    /// Of its agent's program; empty: an older agent, which knows no park intents.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub agent_version: String,
    /// The highest token in its database, as its service reported it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored_token: Option<Token>,
    /// Of a newer agent.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A TTL as it stands in the store: somebody else's word.
fn granted<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    u64::deserialize(deserializer).map(|ttl_s| ttl_s.min(MAX_TTL_S))
}

/// Where a candidate stands whose agent knows no ranks: behind all that do.
fn unranked() -> u32 {
    u32::MAX
}

/// The agents that may ever take over. One that is not listed may not.
///
/// Agents and not instances: an instance's id is random per start, so after a power cut nobody listed would exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roster {
    /// Version of the stored form.
    pub v: u32,
    /// Their names.
    pub agents: BTreeSet<AgentId>,
    /// Of a newer agent.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Says that only the agents' roles may write the lease's keys: written by `handover store setup --apply`, as root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// Version of the stored form.
    pub v: u32,
    /// When the roles were applied: wall clock, Unix milliseconds, for people.
    pub at_ms: u64,
    /// Of a newer program.
    #[serde(flatten)]
    pub rest: Rest,
}

/// What the coordinator asks for. Consumed once the holder key carries its op id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Version of the stored form.
    pub v: u32,
    /// The hand-over's id.
    pub op: OpId,
    /// What is asked.
    pub kind: IntentKind,
    /// Who holds.
    pub from: InstanceId,
    /// Who is to hold; none: nobody, it is parked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<InstanceId>,
    /// How long the service may take to finish its unit of work, in milliseconds; then the hand-over is declined.
    pub quiesce_timeout_ms: u64,
    /// The coordinator's term.
    pub term: Term,
    /// Its rollout and step.
    pub cause: Cause,
}

/// What an intent asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IntentKind {
    /// Forward: to the candidate.
    Handoff,
    /// Back: to the current version.
    Return,
    /// To nobody: the holder quiesces and releases.
    Park,
}

/// The era key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EraValue {
    /// Version of the stored form.
    pub v: u32,
    /// The era.
    pub era: Era,
    /// Who raised it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Who agreed: somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<String>,
    /// Why, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

impl EraValue {
    /// The era alone, with nobody's name to it.
    pub fn of(era: Era) -> Self {
        Self { v: STORED_VERSION, era, by: None, second: None, because: None }
    }
}

impl Intent {
    /// Whether it names somebody else than `instance`. A park intent names nobody.
    pub fn is_for_other(&self, instance: &InstanceId) -> bool {
        self.to.as_ref().is_some_and(|to| to != instance)
    }
}

impl Holder {
    /// Who holds now.
    pub fn held(&self) -> Option<&Held> {
        match &self.state {
            HolderState::Held(held) => Some(held),
            HolderState::Free(_) => None,
        }
    }

    /// Whether `instance` holds now.
    pub fn is_held_by(&self, instance: &InstanceId) -> bool {
        self.held().is_some_and(|held| held.owner.instance == *instance)
    }

    /// Who holds, or held last.
    pub fn owner(&self) -> &Owner {
        match &self.state {
            HolderState::Held(held) => &held.owner,
            HolderState::Free(free) => &free.last,
        }
    }
}

impl Beat {
    /// The beat of a turn.
    pub(super) fn of(instance: &InstanceId, op: &OpId) -> Self {
        Self { v: STORED_VERSION, instance: instance.clone(), op: op.clone() }
    }
}
