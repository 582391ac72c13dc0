//! What each host is to be at a given place of the plan: whole desired states, computed from the plan alone.

use std::collections::BTreeMap;

use handover_proto::assignment::{
    Assignment, AtDeadline, Cause, DrainPolicy, LeaseRules, LeaseWish, Prefer, Route, SlotWish, Upstream,
};
use handover_proto::ids::{AgentId, SlotId, Version};
use handover_proto::lifecycle::Lifecycle;
use handover_proto::numbers::Term;
use handover_proto::stored::STORED_VERSION;

use super::event::BackStep;
use super::plan::{Host, Plan, Step};
use super::progress::{Progress, State};

/// A place on the way forward or on the way back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// At this step of the plan.
    Forward {
        /// Its number, from 0.
        step: u32,
    },
    /// At this step of the way back.
    Back {
        /// Which.
        step: BackStep,
        /// How far forward the rollout had come.
        from_step: u32,
    },
}

impl Place {
    /// Where a rollout is; none: it is over.
    pub fn of(progress: &Progress) -> Option<Self> {
        match progress.state {
            State::Running { step } | State::Paused { step, .. } => Some(Self::Forward { step }),
            State::GoingBack { step, from_step, .. } => Some(Self::Back { step, from_step }),
            State::Ended { .. } => None,
        }
    }

    /// The furthest step of the plan that was entered.
    pub fn reached_step(self) -> u32 {
        match self {
            Self::Forward { step } | Self::Back { from_step: step, .. } => step,
        }
    }
}

/// The hosts that the rollout has touched at this place; the others stay as they are.
pub fn begun(plan: &Plan, place: Place) -> impl Iterator<Item = &Host> {
    let until = plan.steps_until(place.reached_step());
    let is_about = |step: &Step, host: &Host| *step != Step::Stage && step.wave().is_none_or(|wave| wave == host.wave);
    plan.hosts.iter().filter(move |host| until.iter().any(|step| is_about(step, host)))
}

/// What is wanted of a host at this place.
///
/// On the way back of versions that take turns in one slot this is the end of it; [`leaving`] may come before.
pub fn wanted(plan: &Plan, place: Place, host: &Host, term: Term) -> Assignment {
    written(plan, place, Stand::at(plan, place, host), term)
}

/// What is wanted of a host whose candidate serves in the current version's place and is to make room for it.
pub fn leaving(plan: &Plan, place: Place, host: &Host, term: Term) -> Assignment {
    written(plan, place, Stand::one(host, &plan.to, LeaseWish::Never, true), term)
}

/// What a host of the step `leave` had before it; none: it is no such step.
pub fn staying(plan: &Plan, step: u32, host: &Host, term: Term) -> Option<Assignment> {
    let from = plan.from.as_ref().filter(|_| plan.step(step) == Some(&Step::Leave { wave: host.wave }))?;
    let before = plan.steps_until(step).split_last().map_or(&[][..], |(_, before)| before);
    Some(written(plan, Place::Forward { step }, Stand::in_place(plan, before, host, from), term))
}

fn written(plan: &Plan, place: Place, stand: Stand<'_>, term: Term) -> Assignment {
    let routes = stand.slots.iter().filter_map(|(slot, _, wish)| wish.route(slot));
    Assignment {
        v: STORED_VERSION,
        term,
        cause: Cause { rollout: Some(plan.id.clone()), step: place.reached_step(), plan_hash: plan.hash().to_owned() },
        routes: routes.collect(),
        slots: stand.slots.iter().map(|(slot, version, wish)| ((*slot).clone(), wish.slot(version))).collect(),
        drain: stand.drain.unwrap_or(plan.rules.drain),
        leaving: stand.leaving,
        // The version needs no preference: only one side may hold at any step.
        lease: LeaseRules { prefer: Prefer { version: None, zone: plan.rules.prefer_zone.clone() } },
        hooks: Vec::new(),
        fallback: None,
    }
}

/// Whether two assignments ask for the same, whoever decided them and when. A slot that is to be TERMINATED and one
/// that is not named are both to be empty.
pub fn same(a: &Assignment, b: &Assignment) -> bool {
    let occupied = |assignment: &Assignment| -> BTreeMap<SlotId, SlotWish> {
        let slots = assignment.slots.iter().filter(|(_, wish)| wish.lifecycle != Lifecycle::Terminated);
        slots.map(|(slot, wish)| (slot.clone(), wish.clone())).collect()
    };
    let routes = |assignment: &Assignment| -> BTreeMap<Upstream, (u32, u32)> {
        let weighted = assignment.routes.iter().filter(|route| route.reads + route.writes > 0);
        weighted.map(|route| (route.to.clone(), (route.reads, route.writes))).collect()
    };
    occupied(a) == occupied(b)
        && routes(a) == routes(b)
        && (a.drain, a.leaving, &a.lease, &a.hooks, &a.fallback)
            == (b.drain, b.leaving, &b.lease, &b.hooks, &b.fallback)
}

/// What is wanted of a host.
struct Stand<'a> {
    slots: Vec<(&'a SlotId, &'a Version, Wish)>,
    /// Out of its balancers.
    leaving: bool,
    /// Instead of the plan's.
    drain: Option<DrainPolicy>,
}

/// What is wanted of one slot.
#[derive(Clone, Copy)]
enum Wish {
    Runs { reads: u32, writes: u32, lease: LeaseWish },
    Empty,
}

impl<'a> Stand<'a> {
    fn at(plan: &'a Plan, place: Place, host: &'a Host) -> Self {
        match (place, plan.from.as_ref().filter(|_| host.is_in_place())) {
            (Place::Forward { step }, None) => Self::forward(plan, plan.steps_until(step), host),
            (Place::Forward { step }, Some(from)) => Self::in_place(plan, plan.steps_until(step), host, from),
            (Place::Back { step, .. }, None) => Self::back(plan, step, host),
            (Place::Back { .. }, Some(from)) => Self {
                // What is left of the candidate's work must not keep the current version out: nothing of the new
                // version has to cooperate (`SAFETY.md` E11).
                drain: Some(DrainPolicy { at_deadline: AtDeadline::Cut, over_all: true, ..plan.rules.drain }),
                ..Self::one(host, from, LeaseWish::Eligible, false)
            },
        }
    }

    /// Each version in a slot of its own.
    fn beside(plan: &'a Plan, host: &'a Host, current: Wish, candidate: Wish) -> Self {
        let current = host.current.as_ref().zip(plan.from.as_ref()).map(|(slot, version)| (slot, version, current));
        let slots = current.into_iter().chain([(&host.candidate, &plan.to, candidate)]).collect();
        Self { slots, leaving: false, drain: None }
    }

    /// One version, with all the traffic of its host.
    fn one(host: &'a Host, version: &'a Version, lease: LeaseWish, leaving: bool) -> Self {
        let wish = Wish::Runs { reads: 100, writes: 100, lease };
        Self { slots: vec![(&host.candidate, version, wish)], leaving, drain: None }
    }

    fn forward(plan: &'a Plan, until: &[Step], host: &'a Host) -> Self {
        let shifts = until.iter().rev().find_map(|step| match step {
            Step::Shift { wave, reads, writes, .. } if *wave == host.wave => Some((*reads, *writes)),
            _ => None,
        });
        let (reads, writes) = shifts.unwrap_or((0, 0));
        // One side may hold the lease, never both by plan: the switch is one step, and the move itself is asked for.
        let (old, new) = if until.contains(&Step::Lease) {
            (LeaseWish::Never, LeaseWish::Eligible)
        } else {
            (LeaseWish::Eligible, LeaseWish::Never)
        };
        let current = if until.contains(&Step::Retire) {
            Wish::Empty
        } else {
            Wish::Runs { reads: 100 - reads.min(100), writes: 100 - writes.min(100), lease: old }
        };
        Self::beside(plan, host, current, Wish::Runs { reads, writes, lease: new })
    }

    /// The candidate gets its traffic with its start: it opens by itself once it is READY, and nobody who dies meanwhile
    /// leaves the host shut.
    fn in_place(plan: &'a Plan, until: &[Step], host: &'a Host, from: &'a Version) -> Self {
        let moved = until.contains(&Step::Lease);
        let wish = |may| if may { LeaseWish::Eligible } else { LeaseWish::Never };
        if until.contains(&Step::Start { wave: host.wave }) {
            // In the last wave the last of the current version makes room.
            return Self::one(host, &plan.to, wish(moved || host.wave + 1 == plan.waves()), false);
        }
        let leaves = until.contains(&Step::Leave { wave: host.wave });
        Self::one(host, from, wish(!moved && !leaves), leaves)
    }

    fn back(plan: &'a Plan, step: BackStep, host: &'a Host) -> Self {
        let current = Wish::Runs { reads: 100, writes: 100, lease: LeaseWish::Eligible };
        let candidate = match step {
            // Still running: one that holds the lease has to hand it over first.
            BackStep::Routes | BackStep::Lease => Wish::Runs { reads: 0, writes: 0, lease: LeaseWish::Never },
            BackStep::Stop => Wish::Empty,
        };
        Self::beside(plan, host, current, candidate)
    }
}

impl Wish {
    fn slot(self, version: &Version) -> SlotWish {
        let (lifecycle, lease) = match self {
            Self::Runs { reads: 0, writes: 0, lease } => (Lifecycle::Ready, lease),
            Self::Runs { lease, .. } => (Lifecycle::Serving, lease),
            Self::Empty => (Lifecycle::Terminated, LeaseWish::Never),
        };
        SlotWish { version: version.clone(), lifecycle, lease }
    }

    fn route(self, slot: &SlotId) -> Option<Route> {
        match self {
            Self::Runs { reads, writes, .. } if reads + writes > 0 => {
                Some(Route { to: Upstream::Slot(slot.clone()), reads, writes })
            }
            Self::Runs { .. } | Self::Empty => None,
        }
    }
}

/// The wanted assignment of every begun host, by agent.
pub fn all_wanted(plan: &Plan, place: Place, term: Term) -> BTreeMap<AgentId, Assignment> {
    begun(plan, place).map(|host| (host.agent.clone(), wanted(plan, place, host, term))).collect()
}
