//! Standing orders: what an operator asks for outside of a rollout, stored until it is carried out.
//!
//! Every order is one value in the store with its own log. Like a rollout it is carried out level by level: [`next::next`]
//! looks at order and fleet and says the one thing to do now; order, assignments and the request to the lease's holder
//! are written in one transaction under the leader's check, so that any coordinator goes on where another one died.
//!
//! ```text
//! stage      Due ─▶ Staging ────────────▶ Ended
//! hand-over  Due ─▶ Moving ─▶ Settling ─▶ Ended
//! release    Due ─▶ Moving ─────────────▶ Ended
//! drain      Due ─▶ Moving ─▶ Settling ─▶ Leaving ─▶ Emptying ─▶ Drained ─▶ Returning ─▶ Ended
//!             └──── the host does not hold ──▲         the lease came back: Moving again
//! ```
//! From everywhere to Ended: cancelled, declined or too late; a drain goes there through Returning, so that no host stays
//! out because of an order that failed (`SAFETY.md` R11).

pub mod drain;
pub mod freeze;
pub mod give;
pub mod next;
mod stage;
mod way;

pub use way::rank;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use handover_proto::assignment::{Assignment, DrainPolicy};
use handover_proto::ids::{AgentId, InstanceId, OpId, RolloutId, Version};
use handover_proto::numbers::Term;
use serde::{Deserialize, Serialize};

use super::event::sha256_hex;
use super::fleet::Fleet;
use super::next::Now;
use super::staging::HostEnd;

/// Most lines in an order's log: an order that is given back and drained again begins a new one, so only a lease that
/// cannot settle could write more.
const MAX_LINES: usize = 64;

/// What was asked for, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingOrder {
    /// Version of the stored form.
    pub v: u32,
    /// From 1, in the order in which they were given.
    pub number: u64,
    /// Of the request, so that a repeat of it finds this order.
    pub op: OpId,
    /// What is asked for.
    pub what: What,
    /// Who asked.
    pub by: String,
    /// Why.
    pub because: String,
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// How far it is.
    pub phase: Phase,
    /// How often the lease's holder was asked.
    pub asks: u32,
    /// A drained host's assignment as it was, to be given back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Assignment>,
    /// How the hosts of a staging have ended so far.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub staged: BTreeMap<AgentId, HostEnd>,
    /// What happened, in order.
    pub lines: Vec<Line>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum What {
    /// The lease is handed over.
    Handoff {
        /// To whom; none: the best one that is ready.
        to: Option<AgentId>,
    },
    /// The lease is given up, and nobody is named.
    Release {
        /// Nobody takes it up again.
        freeze: bool,
    },
    /// Nobody takes the lease over by himself.
    Freeze,
    /// They do again.
    Unfreeze,
    /// A host is taken out, the lease first.
    Drain {
        /// Which.
        agent: AgentId,
        /// Hosts that must go on serving.
        min_serving: usize,
        /// How long balancers get to notice.
        notice_ms: u64,
    },
    /// A version is put in place on hosts, ahead of its window.
    Stage {
        /// Which.
        version: Version,
        /// Where.
        hosts: BTreeSet<AgentId>,
    },
}

/// How far an order is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub enum Phase {
    /// Not begun.
    Due {
        /// When it is due, Unix milliseconds.
        due_ms: u64,
        /// How much later it may still be begun.
        late_ms: u64,
    },
    /// The lease's holder is asked.
    Moving {
        /// What.
        asked: Asked,
    },
    /// The lease has moved, and the heir's service is to work under it.
    Settling {
        /// What was asked.
        asked: Asked,
        /// Since when, Unix milliseconds.
        since_ms: u64,
    },
    /// The host tells balancers to go elsewhere, and still serves.
    Leaving {
        /// Since when, Unix milliseconds.
        since_ms: u64,
        /// When the agent was seen to do so.
        told_ms: Option<u64>,
    },
    /// The host gets nothing new, and finishes what it has.
    Emptying {
        /// Since when, Unix milliseconds.
        since_ms: u64,
    },
    /// The host is out.
    Drained {
        /// Since when, Unix milliseconds.
        since_ms: u64,
    },
    /// Hosts fetch and verify.
    Staging {
        /// Since when, Unix milliseconds.
        since_ms: u64,
    },
    /// The host comes back.
    Returning {
        /// How the order ends then.
        outcome: Outcome,
        /// Why.
        reason: String,
    },
    /// It is over.
    Ended {
        /// How.
        outcome: Outcome,
        /// In a sentence.
        reason: String,
        /// When, Unix milliseconds.
        at_ms: u64,
    },
}

/// A request to the lease's holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The intent's id.
    pub op: OpId,
    /// Who holds.
    pub from: InstanceId,
    /// On which host.
    pub from_agent: AgentId,
    /// Who is to hold; none: nobody.
    pub to: Option<InstanceId>,
    /// On which host.
    pub to_agent: Option<AgentId>,
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// How long the service may take to quiesce.
    pub quiesce_ms: u64,
    /// Back to where it came from, because the heir does not work.
    pub mirror: bool,
    /// The holder's turn at that moment; none: an older coordinator asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<u64>,
}

/// How an order ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As it was asked for.
    Done,
    /// It was not done, and everything is as it was before.
    Undone,
    /// Neither: a human is needed.
    Failed,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Wall clock of the coordinator, Unix milliseconds.
    pub at_ms: u64,
    /// Its term.
    pub term: Term,
    /// In a sentence.
    pub what: String,
}

/// What stands under the freeze key. Its presence alone counts; the rest is for people.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Freeze {
    /// Version of the stored form.
    pub v: u32,
    /// Who.
    pub by: String,
    /// Why.
    pub because: String,
    /// When, Unix milliseconds.
    pub at_ms: u64,
}

/// The rollout that runs, as far as it matters to an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningRollout {
    /// Which.
    pub id: RolloutId,
    /// It moves the lease now, or goes back, which may move it.
    pub moves_lease: bool,
}

/// What outside of rollouts is as in the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Habits {
    /// Hosts that must go on serving.
    pub min_serving: usize,
    /// How long the service may take to quiesce.
    pub quiesce: Duration,
    /// How a host is drained.
    pub drain: DrainPolicy,
}

/// Everything that an order is decided from.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// The agents and the lease.
    pub fleet: &'a Fleet,
    /// The rollout that runs.
    pub rollout: Option<&'a RunningRollout>,
    /// Present while take-over is frozen.
    pub freeze: Option<&'a Freeze>,
    /// Alarms of the store's members.
    pub alarms: &'a [String],
    /// The other orders of the service that are not over.
    pub others: &'a [StandingOrder],
    /// As in the last rollout.
    pub habits: &'a Habits,
    /// For how long the leaving host has had no new request.
    pub quiet: Duration,
    /// When, and by whom.
    pub now: Now,
}

impl StandingOrder {
    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Ended { .. })
    }

    /// Whether something is under way that `other` has to wait for: it is neither over, nor waits for its time, nor rests as
    /// a drained host, nor puts files in place. Of two whose time has come the older one goes first, and neither holds up
    /// what has begun.
    pub fn goes_before(&self, other: &Self, now_ms: u64) -> bool {
        match self.phase {
            Phase::Ended { .. } | Phase::Drained { .. } | Phase::Staging { .. } => false,
            Phase::Due { due_ms, .. } => {
                due_ms <= now_ms && matches!(other.phase, Phase::Due { .. }) && self.number < other.number
            }
            _ => true,
        }
    }

    /// The host that it keeps out, or takes out.
    pub fn drains(&self) -> Option<&AgentId> {
        match &self.what {
            What::Drain { agent, .. } if !self.is_over() => Some(agent),
            _ => None,
        }
    }

    /// What it asked the lease's holder, if that is still open or is what moved it.
    pub fn asked(&self) -> Option<&Asked> {
        match &self.phase {
            Phase::Moving { asked } | Phase::Settling { asked, .. } => Some(asked),
            _ => None,
        }
    }

    /// The id of the order's `count`-th request to a holder: it follows from order and count, so that deciding twice asks
    /// once, and so that a turn of long ago still finds its order.
    fn ask_op(&self, count: u32) -> OpId {
        let digest = sha256_hex(format!("{}/asks/{count}", self.op).as_bytes());
        // Sixteen hexadecimal digits are an operation id; the order's own would do as well, once.
        digest.get(..16).and_then(|digits| digits.parse().ok()).unwrap_or_else(|| self.op.clone())
    }

    /// Whether this was one of its requests.
    pub fn has_asked(&self, op: &OpId) -> bool {
        (0..self.asks).any(|count| self.ask_op(count) == *op)
    }

    /// The same in its next phase, with a line that says so.
    pub(in crate::core) fn then(&self, now: Now, phase: Phase, what: impl Into<String>) -> Self {
        let mut next = Self { phase, ..self.clone() };
        if next.lines.len() >= MAX_LINES {
            next.lines.remove(1);
        }
        next.lines.push(Line { at_ms: now.wall_ms, term: now.term, what: what.into() });
        next
    }

    /// The same, over.
    pub(in crate::core) fn ended(&self, now: Now, outcome: Outcome, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        let line = reason.clone();
        self.then(now, Phase::Ended { outcome, reason, at_ms: now.wall_ms }, line)
    }

    /// What is asked for, in a sentence.
    pub fn sentence(&self) -> String {
        match &self.what {
            What::Handoff { to: Some(agent) } => format!("hand the scheduler lease over to {agent}"),
            What::Handoff { to: None } => "hand the scheduler lease over to the best one that is ready".to_owned(),
            What::Release { freeze: true } => "release the scheduler lease, and freeze it".to_owned(),
            What::Release { freeze: false } => "release the scheduler lease".to_owned(),
            What::Freeze => "freeze take-over of the scheduler lease".to_owned(),
            What::Unfreeze => "unfreeze take-over of the scheduler lease".to_owned(),
            What::Drain { agent, .. } => format!("drain {agent}"),
            What::Stage { version, hosts } => format!("stage {version} on {}", stage::named(hosts)),
        }
    }
}

/// An instance in words: its host and its version.
fn named(agent: &AgentId, version: &Version) -> String {
    format!("{agent} ({version})")
}
