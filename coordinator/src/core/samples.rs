//! What one coordinator remembers from lap to lap: since when things have been as they are, and how the candidates
//! answered. Starts empty with every coordinator, so that dwell times are always ones that it has seen itself.

mod history;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use handover_proto::assignment::Assignment;
use handover_proto::ids::{AgentId, InstanceId};

use self::history::History;
use super::assign::{Place, begun};
use super::duration;
use super::fleet::{Counts, Fleet, Instance, Traffic};
use super::next::{Now, met};
use super::plan::{Host, Plan, Step};
use super::progress::Progress;

/// The memory. One per rollout and coordinator.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    met: Option<(Place, Duration)>,
    unready: BTreeMap<AgentId, Duration>,
    /// Since when the current version has made room for the candidate.
    room: BTreeMap<AgentId, Duration>,
    /// Since when a host of this step has been told what somebody else keeps it from.
    held_up: BTreeMap<(u32, AgentId), Duration>,
    last: BTreeMap<InstanceId, Traffic>,
    histories: BTreeMap<Scope, History>,
    crossed: BTreeMap<(Scope, Class), Duration>,
}

/// Whose answers are judged together: a bad host must show among many good ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    All,
    Host(AgentId),
}

/// Which answers are judged together: bad writes must show among many good reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Any,
    Reads,
    Writes,
}

const CLASSES: [Class; 3] = [Class::Any, Class::Reads, Class::Writes];

impl Samples {
    /// Takes in one look at the fleet. To be called before every [`super::next::next`], with the same fleet and time.
    pub fn observe(&mut self, plan: &Plan, progress: &Progress, fleet: &Fleet, now: Now) {
        let Some(place @ Place::Forward { step }) = Place::of(progress) else { return };
        let is_met = met::forward(plan, step, fleet, progress.since_ms).is_empty();
        self.met =
            is_met.then(|| self.met.filter(|(since_place, _)| *since_place == place).unwrap_or((place, now.boot)));
        for host in begun(plan, place) {
            self.observe_room(plan, host, fleet, now.boot);
            self.observe_leaving(plan, (host, step), fleet, now.boot);
            self.observe_readiness(plan, (host, step), fleet, now.boot);
            if let Some(candidate) = fleet.instance(&host.agent, &host.candidate).filter(|c| c.version == plan.to) {
                self.observe_traffic(&host.agent, candidate, now.boot);
            }
        }
        self.judge(plan, now.boot);
    }

    /// Since when (boot time) the step there has been met without a break.
    pub fn met_since(&self, place: Place) -> Option<Duration> {
        self.met.filter(|(met_place, _)| *met_place == place).map(|(_, since)| since)
    }

    /// Whether a candidate that is late had the time for it. One that takes the current version's place begins when that
    /// has gone, however long it drains; but where the gate holds, clients wait from the step's beginning.
    pub(super) fn had_time(&self, plan: &Plan, host: &Host, fleet: &Fleet, boot: Duration) -> bool {
        let room = self.room.get(&host.agent);
        let holds = fleet.agents.get(&host.agent).is_some_and(|agent| agent.hold().is_some());
        let waits = host.is_in_place() && plan.leaves(host.wave) && !holds;
        !waits || room.is_some_and(|since| boot.saturating_sub(*since) >= plan.rules.start_deadline)
    }

    /// Since when (boot time) the first candidate of this wave has had room to start.
    pub(super) fn room_since(&self, plan: &Plan, wave: u32) -> Option<Duration> {
        let of_it = plan.hosts.iter().filter(|host| host.wave == wave);
        of_it.filter_map(|host| self.room.get(&host.agent)).min().copied()
    }

    /// Which host has been kept from this step for that long, as far as this coordinator has seen.
    pub(super) fn held_up(&self, step: u32, boot: Duration, limit: Duration) -> Option<&AgentId> {
        let late = |(at, since): (&(u32, AgentId), &Duration)| at.0 == step && boot.saturating_sub(*since) >= limit;
        self.held_up.iter().find(|(at, since)| late((at, since))).map(|((_, agent), _)| agent)
    }

    /// Which serving candidate has not been ready for too long.
    pub(super) fn unready(&self, plan: &Plan, boot: Duration) -> Option<String> {
        let dwell = plan.rules.health.unready_dwell;
        let (agent, _) = self.unready.iter().find(|(_, since)| boot.saturating_sub(**since) >= dwell)?;
        Some(format!("{agent}: the serving candidate {} is not ready for {} now", plan.to, duration::text(dwell)))
    }

    /// Whose answers have been too bad for too long.
    pub(super) fn failing(&self, plan: &Plan, boot: Duration) -> Option<String> {
        let health = &plan.rules.health;
        let ((scope, class), _) =
            self.crossed.iter().find(|(_, since)| boot.saturating_sub(**since) >= health.dwell)?;
        Some(format!("{}, for {} now", self.words(plan, scope, *class, boot), duration::text(health.dwell)))
    }

    /// Whose answers look too bad, though they are too few or have not been so for long enough.
    pub(super) fn suspect(&self, plan: &Plan, boot: Duration) -> Option<String> {
        let scopes = self.histories.iter().flat_map(|(scope, history)| CLASSES.map(|class| (scope, history, class)));
        let limit = plan.rules.health.max_error_rate;
        let bad = |(_, history, class): &(&Scope, &History, Class)| {
            let counts = class.of(history.recent(&plan.rules.health, class.counted(), boot));
            limit.is_crossed_by(counts.bad, counts.requests.max(counts.bad))
        };
        scopes.into_iter().find(bad).map(|(scope, _, class)| self.words(plan, scope, class, boot))
    }

    fn words(&self, plan: &Plan, scope: &Scope, class: Class, boot: Duration) -> String {
        let history = self.histories.get(scope);
        let traffic = history.map(|history| history.recent(&plan.rules.health, class.counted(), boot));
        let counts = class.of(traffic.unwrap_or_default());
        let limit = plan.rules.health.max_error_rate;
        let (bad, all) = (counts.bad, counts.requests.max(counts.bad));
        format!("{scope}: {bad} of {all} {class} to candidate {} failed, the limit is {limit}", plan.to)
    }

    fn observe_room(&mut self, plan: &Plan, host: &Host, fleet: &Fleet, boot: Duration) {
        let taken = fleet.seen(&host.agent).filter(|(agent, _)| agent.has_taken());
        let wanted = taken.and_then(|(agent, _)| agent.assignment()?.slots.get(&host.candidate));
        let found = fleet.instance(&host.agent, &host.candidate);
        if wanted.is_some_and(|wish| wish.version == plan.to) && found.is_none_or(|found| found.version == plan.to) {
            self.room.entry(host.agent.clone()).or_insert(boot);
        } else {
            self.room.remove(&host.agent);
        }
    }

    /// At its step `leave`: told to, and its balancers do not let it go, or another host of its wave keeps it waiting there. At
    /// its `start` after that: the current version does not make room.
    fn observe_leaving(&mut self, plan: &Plan, (host, step): (&Host, u32), fleet: &Fleet, boot: Duration) {
        let stays = |stored: &Assignment| match plan.step(step) {
            Some(Step::Leave { wave }) if *wave == host.wave => stored.leaving,
            Some(Step::Start { wave }) if *wave == host.wave && plan.leaves(*wave) => {
                let found = fleet.instance(&host.agent, &host.candidate);
                let other = found.is_some_and(|found| plan.from.as_ref() == Some(&found.version));
                other && stored.slots.get(&host.candidate).is_some_and(|wish| wish.version == plan.to)
            }
            _ => false,
        };
        let at = (step, host.agent.clone());
        let seen = fleet.seen(&host.agent).and_then(|(agent, _)| agent.assignment());
        if seen.is_some_and(stays) {
            self.held_up.entry(at).or_insert(boot);
        } else {
            self.held_up.remove(&at);
        }
    }

    /// Only what an agent has taken and reports: one that is not heard starts the dwell anew when it comes back. A
    /// candidate is not judged before its start has ended, though it may get traffic with it.
    fn observe_readiness(&mut self, plan: &Plan, (host, step): (&Host, u32), fleet: &Fleet, boot: Duration) {
        let starts = plan.step(step) == Some(&Step::Start { wave: host.wave });
        let seen = fleet.seen(&host.agent).filter(|(agent, _)| agent.has_taken());
        let wanted = seen.and_then(|(agent, _)| agent.assignment());
        let wanted = wanted.filter(|it| it.slots.get(&host.candidate).is_some_and(|wish| wish.version == plan.to));
        let weights = wanted.map(|wanted| wanted.weights(&host.candidate));
        let serves = !starts && weights.is_some_and(|(reads, writes)| reads + writes > 0);
        let candidate = fleet.instance(&host.agent, &host.candidate);
        if serves && !candidate.is_some_and(|found| found.version == plan.to && found.ready) {
            self.unready.entry(host.agent.clone()).or_insert(boot);
        } else {
            self.unready.remove(&host.agent);
        }
    }

    fn observe_traffic(&mut self, agent: &AgentId, candidate: &Instance, boot: Duration) {
        let Some(traffic) = candidate.traffic else { return };
        // What an unknown instance had counted before this coordinator looked says nothing about now.
        let before = self.last.insert(candidate.id.clone(), traffic).unwrap_or(traffic);
        let delta = traffic.since(before);
        for scope in [Scope::All, Scope::Host(agent.clone())] {
            self.histories.entry(scope).or_default().push(boot, delta);
        }
    }

    fn judge(&mut self, plan: &Plan, boot: Duration) {
        let health = &plan.rules.health;
        for (scope, history) in &mut self.histories {
            history.forget(health, boot);
            for class in CLASSES {
                let counts = class.of(history.recent(health, class.counted(), boot));
                let all = counts.requests.max(counts.bad);
                let key = (scope.clone(), class);
                if all >= health.min_samples && health.max_error_rate.is_crossed_by(counts.bad, all) {
                    self.crossed.entry(key).or_insert(boot);
                } else {
                    self.crossed.remove(&key);
                }
            }
        }
    }
}

impl Traffic {
    /// What was counted since `before`; a counter that went back began anew.
    fn since(self, before: Self) -> Self {
        Self { reads: self.reads.since(before.reads), writes: self.writes.since(before.writes) }
    }
}

impl Counts {
    fn since(self, before: Self) -> Self {
        if self.requests < before.requests || self.bad < before.bad {
            return self;
        }
        Self { requests: self.requests - before.requests, bad: self.bad - before.bad }
    }

    fn plus(self, other: Self) -> Self {
        Self { requests: self.requests.saturating_add(other.requests), bad: self.bad.saturating_add(other.bad) }
    }
}

impl Class {
    fn of(self, traffic: Traffic) -> Counts {
        match self {
            Self::Any => traffic.reads.plus(traffic.writes),
            Self::Reads => traffic.reads,
            Self::Writes => traffic.writes,
        }
    }

    /// How many samples some traffic has for this class.
    fn counted(self) -> impl Fn(Traffic) -> u64 {
        move |traffic| {
            let counts = self.of(traffic);
            counts.requests.max(counts.bad)
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all hosts"),
            Self::Host(agent) => write!(f, "{agent}"),
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "requests",
            Self::Reads => "reads",
            Self::Writes => "writes",
        })
    }
}
