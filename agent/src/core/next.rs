//! The agent's decision: from what should be (the assignment) and what is (observed) to what to do now.
//!
//! Level-triggered: the same function serves normal work, recovery after a crash and a repeated delivery. Whatever it
//! waits for has a kind and a sentence.

use std::collections::BTreeMap;
use std::time::Duration;

use handover_proto::assignment::{Assignment, LeaseWish, Prefer, Upstream};
use handover_proto::blocker::BlockerKind;
use handover_proto::ids::{SlotId, Version};
use handover_proto::lifecycle::{Event, Lifecycle};

use super::front::{self, By, Wishes};
use super::observed::{Boot, Instance, Observed, RemoteRoute, Routes};
use super::reach;
use super::slot::{self, Want};

/// Something to do now. The lap is run again after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Start an instance.
    Start {
        /// Where.
        slot: SlotId,
        /// What.
        version: Version,
    },
    /// The instance was ready for the first time: it is READY from now on.
    FirstReady {
        /// Whose.
        slot: SlotId,
    },
    /// Move its lifecycle.
    Move {
        /// Whose.
        slot: SlotId,
        /// How.
        event: Event,
    },
    /// Send SIGTERM.
    Terminate {
        /// To whom.
        slot: SlotId,
        /// When it will be killed.
        kill_at: Boot,
    },
    /// Send SIGKILL to all of it.
    Kill {
        /// To whom.
        slot: SlotId,
    },
}

/// Why nothing more can be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// What is waited for.
    pub kind: BlockerKind,
    /// In words.
    pub sentence: String,
}

/// What is wanted of an instance as to the scheduler lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseStand {
    /// The assignment lets it hold.
    pub eligible: bool,
    /// It has traffic.
    pub serving: bool,
    /// It is to stop, and gives the lease up first.
    pub give_up: bool,
}

/// What one lap decided.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Next {
    /// To do now, in this order.
    pub effects: Vec<Effect>,
    /// What the gate is to be told.
    pub routes: Routes,
    /// What balancers in front are to be told.
    pub wishes: Wishes,
    /// How each instance stands to the scheduler lease.
    pub lease: BTreeMap<SlotId, LeaseStand>,
    /// Who goes first where several could take the scheduler lease.
    pub prefer: Prefer,
    /// The assignment is reached.
    pub reached: bool,
    /// If not: why.
    pub waiting: Option<Waiting>,
    /// When to look again though nothing happened.
    pub wake_at: Option<Boot>,
}

/// Decides. `grace` is the time between SIGTERM and SIGKILL.
///
/// Without an assignment nothing is changed: what runs goes on running, and the gate keeps its routes (fail static).
pub fn next(assignment: Option<&Assignment>, observed: &Observed, grace: Duration, now: Boot) -> Option<Next> {
    let assignment = assignment?;
    let open = assignment.routes.iter().any(|route| route.reads + route.writes > 0);
    // A host that is to serve nothing goes on until its balancers say that they send nothing (`SAFETY.md` R5, R6).
    let kept = if open { None } else { observed.front.keeps() };
    let kept = kept.filter(|_| observed.slots.values().any(slot::is_serving));
    let want = |id: &SlotId| Want {
        wish: assignment.slots.get(id),
        weights: assignment.weights(id),
        drain: assignment.drain,
        grace,
        now,
        kept: kept.as_ref(),
        unconfirmed: None,
    };
    let prefer = assignment.lease.prefer.clone();
    let (open, leaving) = (open || kept.is_some(), assignment.leaving || kept.is_some());
    let routes = Routes { open, leaving, ..routes(assignment, observed, &want) };
    let wishes = front::wishes(&routes, observed.front.by, &mut observed.slots.keys());
    let mut out = Next { routes, wishes, prefer, ..Next::default() };
    let applied = observed.gate.connected && observed.gate.applied.as_ref() == Some(&out.routes);
    // Where balancers choose between instances, they are the gate that has to confirm.
    let unconfirmed = observed.front.pending(&out.wishes).filter(|_| observed.front.by == By::Slot);
    for (id, slot) in &observed.slots {
        let want = Want { unconfirmed: unconfirmed.as_ref(), ..want(id) };
        let lap = slot::next(id, slot, &want, &observed.gate);
        if let Some(instance) = &slot.instance {
            out.lease.insert(id.clone(), stand(&want, instance, lap.give_up));
        }
        out.effects.extend(lap.effects);
        out.waiting = out.waiting.or(lap.waiting);
        out.wake_at = [out.wake_at, lap.wake_at].into_iter().flatten().min();
    }
    reach::settle(assignment, observed, applied, &mut out);
    Some(out)
}

fn stand(want: &Want<'_>, instance: &Instance, give_up: bool) -> LeaseStand {
    let wanted = want.wants(instance) && !slot::is_retired(instance);
    let eligible = wanted && want.wish.is_some_and(|wish| wish.lease == LeaseWish::Eligible);
    let give_up = give_up || (!wanted && instance.lifecycle != Some(Lifecycle::Serving));
    LeaseStand { eligible, serving: want.weights_of(instance) != (0, 0), give_up }
}

fn routes<'a>(assignment: &'a Assignment, observed: &Observed, want: &dyn Fn(&SlotId) -> Want<'a>) -> Routes {
    let local = observed.slots.iter().filter_map(|(id, slot)| slot::route(id, slot, &want(id))).collect();
    let remote = assignment.routes.iter().filter_map(|route| match &route.to {
        Upstream::Remote(to) => Some(RemoteRoute { to: to.clone(), reads: route.reads, writes: route.writes }),
        Upstream::Slot(_) => None,
    });
    Routes { local, remote: remote.collect(), ..Routes::default() }
}
