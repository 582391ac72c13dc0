//! Giving an order, and taking it back: what is refused, and why.

use std::collections::BTreeMap;
use std::time::Duration;

use handover_proto::ids::{AgentId, OpId, RolloutId};
use handover_proto::stored::STORED_VERSION;

use super::next::{Change, begin};
use super::way::is_carried_out;
use super::{Outcome, Phase, Scene, StandingOrder, What, drain, stage};
use crate::core::duration;
use crate::core::next::Ask;

/// How much later than it was given an order that is to be done at once may begin.
pub const AT_ONCE: Duration = Duration::from_secs(10);

/// Why an order is not taken, or not carried out now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No such host.
    #[error("no agent {0} is registered; `handover fleet` lists them")]
    UnknownAgent(AgentId),
    /// Nothing to hand over.
    #[error(
        "nobody holds the scheduler lease, so there is nothing to hand over; `handover lease show` says who could take it"
    )]
    NobodyHolds,
    /// The holder is lost.
    #[error("the holder on {0} is lost; another one takes over when the quarantine is over (`handover lease show`)")]
    Lost(AgentId),
    /// Somebody wrote past the protocol.
    #[error("{0}")]
    Corrupt(String),
    /// The store cannot be written.
    #[error(
        "the store raises the alarm {0}: a hand-over could not be written, so none is begun; make room and disarm it"
    )]
    Alarm(String),
    /// A rollout has the lease in its hands.
    #[error("rollout {0} moves the scheduler lease at this step; wait for it, or abort it")]
    RolloutMovesLease(RolloutId),
    /// A rollout runs.
    #[error("rollout {0} runs, and a host cannot be drained under it; wait for it, or abort it")]
    RolloutRuns(RolloutId),
    /// Another order.
    #[error("order {number} ({what}) is under way; wait for it, or `handover lease cancel {number}`")]
    OtherOrder {
        /// Its number.
        number: u64,
        /// What it asks for.
        what: String,
    },
    /// A request to the holder that is not ours.
    #[error("the holder is asked for something else already (intent {0}); wait until that is over")]
    OpenIntent(OpId),
    /// Frozen.
    #[error("the lease is frozen by {by} ({because}); `handover lease unfreeze` lets it move again")]
    Frozen {
        /// By whom.
        by: String,
        /// Why.
        because: String,
    },
    /// The named host cannot take it.
    #[error("{agent} cannot take the lease: {seen}; `handover why` says what it waits for")]
    HeirNotReady {
        /// Which.
        agent: AgentId,
        /// What is there.
        seen: String,
    },
    /// Nobody can take it.
    #[error("nobody else is ready to take the lease: {seen}")]
    NobodyReady {
        /// What is there.
        seen: String,
    },
    /// The floor.
    #[error(
        "without {agent} only {left} hosts would serve, and the floor is {min_serving}; `--min-serving {left}` lowers it for this drain"
    )]
    Floor {
        /// Which.
        agent: AgentId,
        /// Hosts that would serve.
        left: usize,
        /// The floor.
        min_serving: usize,
    },
    /// A host that nobody brought up.
    #[error("nothing is assigned to {0}, so there is nothing to drain; `handover rollout start` brings it up")]
    NothingAssigned(AgentId),
    /// Drained already.
    #[error("order {number} drains {agent} already; `handover undrain {agent}` gives it back")]
    Drained {
        /// By which order.
        number: u64,
        /// Which.
        agent: AgentId,
    },
    /// Nothing to give back.
    #[error("{0} is not drained; `handover fleet` shows what it is assigned")]
    NotDrained(AgentId),
    /// Nothing to cancel.
    #[error("no order is open that could be cancelled; `handover lease history` shows what was done")]
    NothingOpen,
    /// No such order.
    #[error("there is no order {0}")]
    UnknownOrder(u64),
    /// Carried out.
    #[error("order {number} is over and cannot be cancelled: {reason}")]
    Over {
        /// Which.
        number: u64,
        /// How it ended.
        reason: String,
    },
    /// The lease has moved by it.
    #[error("order {number} has moved the lease already ({what}); to move it back, hand it over again")]
    CarriedOut {
        /// Which.
        number: u64,
        /// The last thing that happened.
        what: String,
    },
    /// A time that has passed.
    #[error("the time given has passed {ago} ago; give one that is to come, or none for now")]
    Past {
        /// How long ago.
        ago: String,
    },
    /// Nobody to stage.
    #[error("no host is named, so there is nothing to stage; `handover fleet` lists them")]
    NoHosts,
    /// Another staging.
    #[error("order {number} ({what}) is under way; wait for it, or `handover stage --cancel`")]
    OtherStaging {
        /// Its number.
        number: u64,
        /// What it asks for.
        what: String,
    },
    /// A rollout might still start what another staging prunes.
    #[error(
        "rollout {0} runs, and its hosts must keep what it may still start; stage the next version when it has ended"
    )]
    RolloutHasItsVersion(RolloutId),
    /// An agent that does not know of it.
    #[error(
        "agent {agent} ({agent_version}) is too old to stage when it is asked; upgrade it, or stage there by \
         `handover-agent stage` and name the others with --host"
    )]
    CannotStage {
        /// Which.
        agent: AgentId,
        /// The agent program's version.
        agent_version: String,
    },
    /// Frozen or not already.
    #[error("the lease is {0} already")]
    Already(&'static str),
}

/// What is asked for, before it has a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Makes it idempotent.
    pub op: OpId,
    /// What.
    pub what: What,
    /// Who.
    pub by: String,
    /// Why.
    pub because: String,
    /// When it is to be done, Unix milliseconds, and how much later it may be; none: now.
    pub at: Option<(u64, u64)>,
}

/// A new order with this number, as it begins.
///
/// One that is to be done now is begun in the same breath, so that a refusal comes at once and leaves no trace.
///
/// # Errors
/// [`Refused`]; nothing is to be written then.
pub fn give(request: Request, number: u64, scene: &Scene<'_>) -> Result<Change, Refused> {
    let now = scene.now.wall_ms;
    let (due_ms, late_ms) = request.at.unwrap_or((now, duration::millis(AT_ONCE)));
    let Request { op, what, by, because, at } = request;
    if now > due_ms {
        return Err(Refused::Past { ago: duration::text(Duration::from_millis(now - due_ms)) });
    }
    let phase = Phase::Due { due_ms, late_ms };
    let order = StandingOrder {
        v: STORED_VERSION,
        number,
        op,
        by: by.clone(),
        because: because.clone(),
        at_ms: now,
        phase: phase.clone(),
        asks: 0,
        before: None,
        staged: BTreeMap::new(),
        lines: Vec::new(),
        what,
    };
    let given = format!(
        "{} (given by {by}{})",
        order.sentence(),
        if because.is_empty() { String::new() } else { format!(": {because}") }
    );
    let order = order.then(scene.now, phase, given);
    check(&order, scene)?;
    if at.is_some() { Ok(Change::of(order)) } else { begin(&order, scene) }
}

/// What is refused whatever the time.
fn check(order: &StandingOrder, scene: &Scene<'_>) -> Result<(), Refused> {
    match &order.what {
        What::Handoff { to: Some(agent) } if !scene.fleet.agents.contains_key(agent) => {
            Err(Refused::UnknownAgent(agent.clone()))
        }
        What::Drain { agent, min_serving, .. } => {
            let drained = scene.others.iter().find(|other| other.drains() == Some(agent));
            if let Some(other) = drained {
                return Err(Refused::Drained { number: other.number, agent: agent.clone() });
            }
            let stored = drain::may_leave(scene, agent, *min_serving)?.assignment();
            stored.map(|_| ()).ok_or_else(|| Refused::NothingAssigned(agent.clone()))
        }
        What::Stage { hosts, .. } => stage::check(order, hosts, scene),
        What::Freeze if scene.freeze.is_some() => Err(Refused::Already("frozen")),
        What::Unfreeze if scene.freeze.is_none() => Err(Refused::Already("free to move")),
        What::Handoff { .. } | What::Release { .. } | What::Freeze | What::Unfreeze => Ok(()),
    }
}

/// Takes an order back: one that waits for its time, or one whose request to the holder is still open.
///
/// # Errors
/// [`Refused`] if it is over, or has moved the lease.
pub fn cancel(order: &StandingOrder, by: &str, scene: &Scene<'_>) -> Result<Change, Refused> {
    let number = order.number;
    let moved = |what: &str| Refused::CarriedOut { number, what: what.to_owned() };
    match &order.phase {
        Phase::Ended { reason, .. } => Err(Refused::Over { number, reason: reason.clone() }),
        Phase::Due { .. } => Ok(Change::of(order.ended(scene.now, Outcome::Undone, format!("cancelled by {by}")))),
        Phase::Moving { asked } => {
            if is_carried_out(asked, scene) || asked.mirror {
                return Err(moved(order.lines.last().map_or("", |line| line.what.as_str())));
            }
            let reason = format!("cancelled by {by}; {} goes on as holder", asked.from_agent);
            let ours = scene.fleet.lease.intent.as_ref().is_some_and(|seen| seen.value.op == asked.op);
            let change = drain::end(order, scene, Outcome::Undone, reason);
            Ok(Change { ask: ours.then_some(Ask::Withdraw), ..change })
        }
        Phase::Settling { asked, .. } => {
            let to = asked.to_agent.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
            Err(moved(&format!("to {to}")))
        }
        Phase::Leaving { .. } | Phase::Emptying { .. } | Phase::Drained { .. } => {
            Ok(drain::end(order, scene, Outcome::Done, format!("given back by {by}")))
        }
        Phase::Staging { .. } => Ok(stage::cancel(order, scene, by)),
        Phase::Returning { reason, .. } => Err(Refused::Over { number, reason: reason.clone() }),
    }
}
