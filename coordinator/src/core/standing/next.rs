//! The one thing to do now for a standing order, or why nothing is done.

use std::collections::BTreeMap;
use std::time::Duration;

use handover_proto::assignment::{Assignment, Cause};
use handover_proto::blocker::{Blocker, BlockerKind};
use handover_proto::ids::AgentId;
use handover_proto::lease::{Intent, IntentKind, Owner};
use handover_proto::stored::STORED_VERSION;

use super::drain;
use super::give::Refused;
use super::stage;
use super::way::{Answer, answer, heir, holder, holder_to_ask, is_named, works};
use super::{Asked, Outcome, Phase, Scene, StandingOrder, What, named};
use crate::core::duration;
use crate::core::next::Ask;
use crate::core::staging;

/// A new holder's service that does not work after this long is given up: the lease goes back (`SAFETY.md` §1.12, H8).
const SETTLE: Duration = Duration::from_secs(5);
/// After this long without work nobody is expected any more, and a human is told.
const DARK: Duration = Duration::from_secs(30);

/// What happens now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write this, in one transaction; then decide again.
    Do(Box<Change>),
    /// Nothing, for this reason.
    Wait {
        /// What is waited for.
        blocker: Blocker,
        /// Boot time at which to look again though nothing happened.
        until: Option<Duration>,
    },
    /// Nothing is left to do, for now or for ever.
    Rest,
}

/// One transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The order as it is then.
    pub order: StandingOrder,
    /// Hosts whose assignment changes.
    pub assignments: BTreeMap<AgentId, Assignment>,
    /// What happens to the lease's intent key.
    pub ask: Option<Ask>,
    /// What happens to the staging key.
    pub staging: Option<staging::Ask>,
}

impl Change {
    /// Only the order changes.
    pub(super) fn of(order: StandingOrder) -> Self {
        Self { order, assignments: BTreeMap::new(), ask: None, staging: None }
    }

    pub(super) fn step(self) -> Step {
        Step::Do(Box::new(self))
    }
}

impl Step {
    pub(super) fn wait(kind: BlockerKind, since_ms: u64, waiting_for: String) -> Self {
        Self::Wait { blocker: Blocker { kind, since_ms, waiting_for }, until: None }
    }

    pub(super) fn until(self, at: Duration) -> Self {
        match self {
            Self::Wait { blocker, .. } => Self::Wait { blocker, until: Some(at) },
            other => other,
        }
    }
}

/// Decides.
pub fn next(order: &StandingOrder, scene: &Scene<'_>) -> Step {
    match &order.phase {
        Phase::Due { due_ms, late_ms } => due(order, scene, *due_ms, *late_ms),
        Phase::Moving { asked } => moving(order, scene, asked),
        Phase::Settling { asked, since_ms } => settling(order, scene, asked, *since_ms),
        Phase::Leaving { .. } | Phase::Emptying { .. } | Phase::Drained { .. } | Phase::Returning { .. } => {
            drain::next(order, scene)
        }
        Phase::Staging { since_ms } => stage::next(order, scene, *since_ms),
        Phase::Ended { .. } => Step::Rest,
    }
}

fn due(order: &StandingOrder, scene: &Scene<'_>, due_ms: u64, late_ms: u64) -> Step {
    let now = scene.now.wall_ms;
    if now < due_ms {
        return Step::wait(BlockerKind::Operator, order.at_ms, "its time".to_owned()).until(scene.at_wall(due_ms));
    }
    let begun = begin(order, scene);
    if now > due_ms.saturating_add(late_ms) {
        let late = duration::text(Duration::from_millis(now - due_ms));
        let may = duration::text(Duration::from_millis(late_ms));
        let why = begun.err().map(|refused| format!("; now: {refused}")).unwrap_or_default();
        let reason = format!("not done: it is {late} late, and may be {may} late at most{why}");
        return Change::of(order.ended(scene.now, Outcome::Undone, reason)).step();
    }
    match begun {
        Ok(change) => change.step(),
        Err(refused) => {
            let last = due_ms.saturating_add(late_ms).saturating_add(1);
            Step::wait(BlockerKind::Operator, due_ms, refused.to_string()).until(scene.at_wall(last))
        }
    }
}

/// The first thing that an order does.
///
/// # Errors
/// [`Refused`], why it cannot be done now.
pub(super) fn begin(order: &StandingOrder, scene: &Scene<'_>) -> Result<Change, Refused> {
    match &order.what {
        What::Handoff { to } => {
            let owner = holder_to_ask(order, scene)?;
            if to.as_ref() == Some(&owner.agent) {
                let reason = format!("{} holds already", named(&owner.agent, &owner.version));
                return Ok(Change::of(order.ended(scene.now, Outcome::Done, reason)));
            }
            let heir = heir(scene, owner, to.as_ref(), Some(&owner.agent))?;
            Ok(ask(order, scene, owner, Some(&heir), false))
        }
        What::Release { .. } => {
            let owner = holder_to_ask(order, scene)?;
            Ok(ask(order, scene, owner, None, false))
        }
        What::Drain { agent, .. } => match holder(scene).filter(|owner| owner.agent == *agent) {
            Some(_) => {
                let owner = holder_to_ask(order, scene)?;
                let heir = heir(scene, owner, None, Some(agent))?;
                Ok(ask(order, scene, owner, Some(&heir), false))
            }
            None => drain::leave(order, scene, agent),
        },
        What::Stage { .. } => stage::begin(order, scene),
        What::Freeze | What::Unfreeze => Ok(Change::of(order.ended(scene.now, Outcome::Done, "done"))),
    }
}

/// Asks the holder.
pub(super) fn ask(order: &StandingOrder, scene: &Scene<'_>, from: &Owner, to: Option<&Owner>, mirror: bool) -> Change {
    let op = order.ask_op(order.asks);
    let asked = Asked {
        op: op.clone(),
        from: from.instance.clone(),
        from_agent: from.agent.clone(),
        to: to.map(|owner| owner.instance.clone()),
        to_agent: to.map(|owner| owner.agent.clone()),
        at_ms: scene.now.wall_ms,
        quiesce_ms: duration::millis(scene.habits.quiesce),
        mirror,
        turn: scene.fleet.lease.holder.as_ref().map(|seen| seen.value.turn),
    };
    let holder = named(&from.agent, &from.version);
    let what = match to {
        Some(to) => format!("asked {holder} to hand the lease over to {}", named(&to.agent, &to.version)),
        None => format!("asked {holder} to release the lease"),
    };
    let intent = intent(order, scene, &asked);
    let mut next = order.then(scene.now, Phase::Moving { asked }, what);
    next.asks += 1;
    Change { ask: Some(Ask::Intent(intent)), ..Change::of(next) }
}

fn intent(order: &StandingOrder, scene: &Scene<'_>, asked: &Asked) -> Intent {
    let kind = match &asked.to {
        None => IntentKind::Park,
        Some(_) if asked.mirror => IntentKind::Return,
        Some(_) => IntentKind::Handoff,
    };
    // The order's number stands where a rollout's step does.
    let cause = Cause { rollout: None, step: u32::try_from(order.number).unwrap_or(0), plan_hash: String::new() };
    Intent {
        v: STORED_VERSION,
        op: asked.op.clone(),
        kind,
        from: asked.from.clone(),
        to: asked.to.clone(),
        quiesce_timeout_ms: asked.quiesce_ms,
        term: scene.now.term,
        cause,
    }
}

fn moving(order: &StandingOrder, scene: &Scene<'_>, asked: &Asked) -> Step {
    match answer(asked, scene) {
        Answer::Pending(blocker) => {
            let until = Some(scene.at_wall(scene.now.wall_ms.saturating_add(1000)));
            Step::Wait { blocker, until }
        }
        Answer::Moved => {
            let Some(to) = &asked.to_agent else {
                let reason = format!("{} has released the lease", asked.from_agent);
                let ended = order.ended(scene.now, Outcome::Done, reason);
                return Change { ask: Some(Ask::Withdraw), ..Change::of(ended) }.step();
            };
            let since_ms = scene.now.wall_ms;
            let phase = Phase::Settling { asked: asked.clone(), since_ms };
            Change::of(order.then(scene.now, phase, format!("the lease has moved to {to}"))).step()
        }
        Answer::Over(why) => {
            let outcome = if asked.mirror { Outcome::Failed } else { Outcome::Undone };
            over(order, scene, asked, outcome, why)
        }
    }
}

/// Ends an order that asked the holder, and takes the request back, if it is still its own.
fn over(order: &StandingOrder, scene: &Scene<'_>, asked: &Asked, outcome: Outcome, reason: String) -> Step {
    let ours = scene.fleet.lease.intent.as_ref().is_some_and(|seen| seen.value.op == asked.op);
    Change { ask: ours.then_some(Ask::Withdraw), ..drain::end(order, scene, outcome, reason) }.step()
}

fn settling(order: &StandingOrder, scene: &Scene<'_>, asked: &Asked, since_ms: u64) -> Step {
    let (Some(to), Some(to_agent)) = (&asked.to, &asked.to_agent) else { return Step::Rest };
    let waited = Duration::from_millis(scene.now.wall_ms.saturating_sub(since_ms));
    let Some(owner) = holder(scene).filter(|owner| owner.instance == *to) else {
        // Its beat alone is gone: it may come back with a new token (T5).
        if waited < DARK && is_named(scene, to) {
            let at = scene.now.boot.saturating_add(DARK.saturating_sub(waited));
            let waiting_for = format!("{to_agent}: to hold the lease again, or to lose it to another one");
            return Step::wait(BlockerKind::Lease, since_ms, waiting_for).until(at);
        }
        let reason = format!("{to_agent} had taken the lease, and has lost it again");
        return over(order, scene, asked, Outcome::Failed, reason);
    };
    if works(scene, to) {
        return settled(order, scene, asked, owner);
    }
    let back = scene.fleet.lease.candidates.get(&asked.from).filter(|seen| seen.value.ready);
    if let Some(back) = back.filter(|_| !asked.mirror && waited >= SETTLE && scene.freeze.is_none()) {
        return ask(order, scene, owner, Some(&back.value.owner), true).step();
    }
    if waited >= DARK {
        let reason = format!("{to_agent} holds the lease, but its service does not work under it");
        return Change { ask: Some(Ask::Withdraw), ..drain::end(order, scene, Outcome::Failed, reason) }.step();
    }
    let waiting_for = format!("{to_agent}: its service to work under the scheduler lease");
    let next_look = if waited < SETTLE { SETTLE } else { DARK };
    let at = scene.now.boot.saturating_add(next_look.saturating_sub(waited));
    Step::wait(BlockerKind::Lease, since_ms, waiting_for).until(at)
}

/// The heir works. What was asked for is done, so the intent goes with it.
fn settled(order: &StandingOrder, scene: &Scene<'_>, asked: &Asked, owner: &Owner) -> Step {
    let turn = scene.fleet.lease.holder.as_ref().map_or(0, |seen| seen.value.turn);
    let holds = format!("{} holds and works, turn {turn}", named(&owner.agent, &owner.version));
    let change = match &order.what {
        _ if asked.mirror => {
            let reason = format!("the heir's service did not work under the lease, so it went back: {holds}");
            drain::end(order, scene, Outcome::Undone, reason)
        }
        What::Drain { agent, .. } => match drain::leave(order, scene, agent) {
            Ok(change) => change,
            Err(refused) => drain::end(order, scene, Outcome::Undone, format!("{holds}; the host stays: {refused}")),
        },
        _ => Change::of(order.ended(scene.now, Outcome::Done, holds)),
    };
    Change { ask: Some(Ask::Withdraw), ..change }.step()
}

impl Scene<'_> {
    /// The boot time at which the wall clock should show this; looked at again every minute, since wall clocks step.
    pub(super) fn at_wall(&self, wall_ms: u64) -> Duration {
        const LOOK: Duration = Duration::from_secs(60);
        let left = Duration::from_millis(wall_ms.saturating_sub(self.now.wall_ms)).min(LOOK);
        self.now.boot.saturating_add(left)
    }
}
