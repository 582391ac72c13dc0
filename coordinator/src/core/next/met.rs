//! Whether a step is met: what each of its hosts still has to do, as reasons to wait. No reason left: it is met.

use handover_proto::blocker::{Blocker, BlockerKind};
use handover_proto::lifecycle::Lifecycle;
use handover_proto::numbers::Term;

use super::changes::silent;
use super::{in_place, lease};
use crate::core::assign::{Place, begun, same, wanted};
use crate::core::event::BackStep;
use crate::core::fleet::{Agent, Fleet, Instance, Reported};
use crate::core::plan::{Host, Plan, Step};

/// What the hosts of the plan's step still have to do.
pub(in crate::core) fn forward(plan: &Plan, step: u32, fleet: &Fleet, since_ms: u64) -> Vec<Blocker> {
    let Some(what) = plan.step(step) else { return Vec::new() };
    let place = Place::Forward { step };
    plan.hosts_of(what).filter_map(|host| look(plan, place, host, fleet, since_ms).forward(what)).collect()
}

/// What the begun hosts still have to do at a step of the way back.
///
/// Before its last step nobody waits for a host that is not heard or whose current version is not ready: the others go
/// on. Nobody ever waits for a candidate to be well.
pub(super) fn back(plan: &Plan, place: Place, step: BackStep, fleet: &Fleet, since_ms: u64) -> Vec<Blocker> {
    begun(plan, place).filter_map(|host| look(plan, place, host, fleet, since_ms).back(step)).collect()
}

/// One host, seen against what is wanted of it.
struct Look<'a> {
    plan: &'a Plan,
    host: &'a Host,
    place: Place,
    agent: Option<&'a Agent>,
    fleet: &'a Fleet,
    since_ms: u64,
}

fn look<'a>(plan: &'a Plan, place: Place, host: &'a Host, fleet: &'a Fleet, since_ms: u64) -> Look<'a> {
    Look { plan, host, place, agent: fleet.agents.get(&host.agent), fleet, since_ms }
}

impl Look<'_> {
    fn forward(&self, step: &Step) -> Option<Blocker> {
        if matches!(step, Step::Leave { .. }) {
            return self.unsettled(Agent::is_out);
        }
        // A host whose turn has not come hears only who may hold the lease.
        let started = self.plan.steps_until(self.place.reached_step()).contains(&Step::Start { wave: self.host.wave });
        if !started {
            return self.unsettled(Agent::has_taken);
        }
        // With a floor of 0 the operator replaces a version that may not work at all: then its health is no reason to
        // wait, and the agent has to have taken the assignment only. In its place there is nothing of it to wait for.
        let lenient = self.plan.min_serving == 0 && *step != Step::Retire && !self.host.is_in_place();
        let settled = if lenient { Agent::has_taken } else { Agent::has_reached };
        self.unsettled(settled).or_else(|| match step {
            Step::Start { .. } | Step::Shift { .. } | Step::Lease | Step::Soak { .. } => {
                self.candidate_not_ready().or_else(|| self.share_not_reported())
            }
            Step::Stage | Step::Leave { .. } | Step::Retire => None,
        })
    }

    fn back(&self, step: BackStep) -> Option<Blocker> {
        if self.host.is_in_place() {
            return self.back_in_place(step);
        }
        if step == BackStep::Stop {
            return self.unsettled(Agent::has_reached);
        }
        let report = self.agent.and_then(Agent::seen)?;
        let current_is_ready = self.current(report).is_some_and(|current| current.ready);
        match self.plan.from {
            Some(_) if !current_is_ready => None,
            Some(_) => self.unsettled(Agent::has_taken).or_else(|| self.share_not_reported()),
            None => self.unsettled(Agent::has_taken),
        }
    }

    fn back_in_place(&self, step: BackStep) -> Option<Blocker> {
        if in_place::waits_for_the_lease(self.plan, step, self.host, self.fleet) {
            return None;
        }
        let stored = self.agent.filter(|agent| agent.seen().is_some()).and_then(Agent::assignment);
        if stored.is_none() && step != BackStep::Stop {
            return None;
        }
        let serves_on = stored.filter(|stored| stored.slots.values().all(|wish| wish.version == self.plan.to));
        let frozen = lease::frozen_with(self.fleet, &self.host.agent, self.plan.from.as_ref(), self.since_ms);
        if let (Some(_), Some(frozen)) = (serves_on, frozen) {
            return Some(frozen);
        }
        match (serves_on, self.agent) {
            (Some(stored), Some(agent)) if stored.leaving => self.unless(agent, Agent::is_out),
            (Some(_), _) => Some(self.blocker(BlockerKind::Floor, "enough other hosts to serve, before it goes back")),
            (None, _) => self.unsettled(Agent::has_reached).or_else(|| self.share_not_reported()),
        }
    }

    /// The assignment of this place is not stored, not taken or not true yet.
    fn unsettled(&self, settled: fn(&Agent) -> bool) -> Option<Blocker> {
        let name = &self.host.agent;
        let Some(agent) = self.agent else { return Some(silent(name, None, self.since_ms)) };
        // The term says who decided, not what.
        let want = wanted(self.plan, self.place, self.host, Term::default());
        let stored = agent.assignment().is_some_and(|stored| same(stored, &want));
        if agent.seen().is_none() {
            return Some(if stored || !self.is_last() {
                silent(name, Some(agent), self.since_ms)
            } else {
                self.blocker(BlockerKind::Floor, "enough other hosts to serve, before it is changed unseen")
            });
        }
        if !stored {
            return Some(self.blocker(BlockerKind::Readiness, "the instance that is to serve there to be ready"));
        }
        self.unless(agent, settled)
    }

    /// What the agent waits for, in its own words if it has some; none: it is settled.
    fn unless(&self, agent: &Agent, settled: fn(&Agent) -> bool) -> Option<Blocker> {
        if settled(agent) {
            return None;
        }
        let name = &self.host.agent;
        Some(match agent.seen().and_then(|report| report.blocker.as_ref()) {
            Some(blocker) => Blocker { waiting_for: format!("{name}: {}", blocker.waiting_for), ..blocker.clone() },
            None if agent.has_taken() => self.blocker(BlockerKind::Start, "its instances to be as assigned"),
            None => self.blocker(BlockerKind::Delivery, "it to take its assignment"),
        })
    }

    fn is_last(&self) -> bool {
        matches!(self.place, Place::Back { step: BackStep::Stop, .. })
            || self.plan.step(self.place.reached_step()) == Some(&Step::Retire)
    }

    fn candidate_not_ready(&self) -> Option<Blocker> {
        let candidate = self.fleet.instance(&self.host.agent, &self.host.candidate);
        if candidate.is_some_and(|found| is_up(found, self.plan)) {
            return None;
        }
        let unmet = candidate.map(|found| found.unmet.join(", ")).filter(|unmet| !unmet.is_empty());
        let what =
            unmet.map_or_else(|| "its candidate to be READY".to_owned(), |unmet| format!("its candidate: {unmet}"));
        Some(self.blocker(BlockerKind::Readiness, &what))
    }

    /// The gate's own word for the shares: an assignment is only a wish.
    fn share_not_reported(&self) -> Option<Blocker> {
        let want = wanted(self.plan, self.place, self.host, Term::default());
        let slots = self.host.current.iter().chain([&self.host.candidate]);
        let differs = slots.filter(|slot| {
            let found = self.fleet.instance(&self.host.agent, slot);
            let share = found.map_or((0, 0), |found| (found.reads, found.writes));
            share != want.weights(slot)
        });
        differs
            .map(|slot| self.blocker(BlockerKind::Gate, &format!("its gate to report the new share of slot {slot}")))
            .next()
    }

    fn current<'r>(&self, report: &'r Reported) -> Option<&'r Instance> {
        report.slots.get(self.host.current.as_ref()?)?.instance.as_ref()
    }

    fn blocker(&self, kind: BlockerKind, what: &str) -> Blocker {
        Blocker { kind, since_ms: self.since_ms, waiting_for: format!("{}: {what}", self.host.agent) }
    }
}

/// Whether a candidate runs the new version and is ready for traffic, or has some.
pub(super) fn is_up(found: &Instance, plan: &Plan) -> bool {
    let up = matches!(found.lifecycle, Some(Lifecycle::Ready | Lifecycle::Serving));
    found.version == plan.to && found.ready && up
}
