//! The service's rules (A1 to A8), its processes, and the fence row in its database.

use crate::bounds::AGE_MAX;
use crate::invariant::Invariant;
use crate::mistake::Mistake;
use crate::rules::Rules;
use crate::state::{Instance, Kind, Pause, Phase, Service, State, Told, Unit};

/// Which of a host's two possible units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The present process's.
    Present,
    /// The one that an earlier process left behind.
    Left,
}

impl Which {
    fn of(self, service: &mut Service) -> &mut Unit {
        match self {
            Self::Present => &mut service.unit,
            Self::Left => &mut service.rest,
        }
    }
}

impl Rules {
    /// The service of `host`, if its main process can take a step.
    fn service<'s>(&self, state: &'s State, host: usize) -> Option<&'s Service> {
        let service = &state.hosts[host].service;
        (service.up && state.hosts[host].pause == Pause::No).then_some(service)
    }

    /// Installs its token. The row is locked, so it waits for every transaction that has passed the check.
    pub(crate) fn install(&self, state: &State, host: usize) -> Option<State> {
        let service = self.service(state, host)?;
        if service.told != Told::Active || service.installed {
            return None;
        }
        let me = state.instance(host);
        let mine = state.fence.token == service.token && (state.fence.by == me || self.repeats_tokens());
        let locked = state.hosts.iter().any(|host| host.service.unit.locks() || host.service.rest.locks());
        let rises = state.fence.token < service.token && (!locked || self.locks_nothing());
        if !mine && !rises {
            return None;
        }
        let mut next = *state;
        (next.fence.token, next.fence.by) = (service.token, me);
        next.hosts[host].service.installed = true;
        Some(next)
    }

    /// Begins a unit: ACTIVE, installed, and before the soft deadline. It reads what is to be charged next.
    pub(crate) fn begin(&self, state: &State, host: usize) -> Option<State> {
        let service = self.service(state, host)?;
        let may = service.installed || self.has(Mistake::StartBeforeInstall);
        if service.told != Told::Active || !may || service.age >= self.soft() || service.unit.phase != Phase::None {
            return None;
        }
        let token = service.token;
        let mut next = *state;
        next.demand(Invariant::I7, state.fence.token >= token);
        next.demand(Invariant::I5, token > 15 || state.seen.ended & (1 << token) == 0);
        next.hosts[host].service.unit = Unit { phase: Phase::Begun, token, ..Unit::default() };
        Some(next)
    }

    /// The fence's check: the row bears the unit's token, and is locked against an install until the unit ends.
    pub(crate) fn check(&self, state: &State, host: usize, which: Which) -> Option<State> {
        let mut next = *state;
        let unit = which.of(&mut next.hosts[host].service);
        if unit.phase != Phase::Begun || state.hosts[host].pause != Pause::No || self.bounds.timed_only {
            return None;
        }
        unit.phase = if state.fence.token == unit.token { Phase::Checked } else { Phase::Doomed };
        Some(next)
    }

    /// The COMMIT arrives at the database; it was sent before the process died or stood still, or is sent now.
    pub(crate) fn commit(&self, state: &State, host: usize, which: Which) -> Option<State> {
        let mut next = *state;
        let unit = *which.of(&mut next.hosts[host].service);
        if !unit.locks() {
            return None;
        }
        *which.of(&mut next.hosts[host].service) = Unit::default();
        next.demand(Invariant::I6, unit.token == state.fence.token);
        next.demand(Invariant::ExactlyOnce, !unit.stale);
        next.outdate_units();
        Some(next)
    }

    /// The unit ends without an effect: given up, refused by the fence, or killed with its process.
    pub(crate) fn end_unit(&self, state: &State, host: usize, which: Which) -> Option<State> {
        let mut next = *state;
        let unit = which.of(&mut next.hosts[host].service);
        let is_able = state.hosts[host].pause == Pause::No || unit.phase == Phase::Orphan;
        if unit.phase == Phase::None || unit.hung || !is_able {
            return None;
        }
        *unit = Unit::default();
        Some(next)
    }

    /// The database ends an idle transaction (K6); whoever began it goes on without knowing.
    pub(crate) fn abort(&self, state: &State, host: usize) -> Option<State> {
        let mut next = *state;
        let unit = &mut next.hosts[host].service.unit;
        let waits = state.hosts[host].pause != Pause::No || unit.hung;
        if unit.phase != Phase::Checked || !waits {
            return None;
        }
        unit.phase = Phase::Doomed;
        Some(next)
    }

    /// The unit will not end by itself, and the service ignores QUIESCE.
    pub(crate) fn hang(&self, state: &State, host: usize) -> Option<State> {
        self.service(state, host).filter(|service| service.unit.runs() && !service.unit.hung)?;
        if state.faults.hangs >= self.bounds.hangs {
            return None;
        }
        let mut next = *state;
        next.faults.hangs += 1;
        next.hosts[host].service.unit.hung = true;
        Some(next)
    }

    /// The kill ladder ends a hung service: every process of it.
    pub(crate) fn kill(&self, state: &State, host: usize) -> Option<State> {
        self.service(state, host).filter(|service| service.unit.hung && service.rest.phase == Phase::None)?;
        let mut next = *state;
        next.hosts[host].service.die(false, 0);
        Some(next)
    }

    /// The main process dies: everything with it, or a child lives on in the unit that it was in.
    pub(crate) fn crash(&self, state: &State, host: usize, leaks: bool) -> Option<State> {
        let service = self.service(state, host).filter(|service| service.rest.phase == Phase::None)?;
        if state.faults.services >= self.bounds.services || leaks && !service.unit.runs() {
            return None;
        }
        let mut next = *state;
        next.faults.services += 1;
        let left = self.hard().saturating_sub(service.age);
        next.hosts[host].service.die(leaks, left);
        Some(next)
    }

    /// The agent starts the service anew, as another instance.
    pub(crate) fn start_process(&self, state: &State, host: usize) -> Option<State> {
        let agent = self.agent(state, host)?;
        let service = state.hosts[host].service;
        if service.up {
            return None;
        }
        let mut next = *state;
        let new = &mut next.hosts[host];
        if self.has(Mistake::SameToken) && agent.turn.is_some() {
            new.service = Service { up: true, told: Told::Quiesce, unit: Unit::default(), ..service };
            return Some(next);
        }
        new.service =
            Service { up: true, life: service.life + 1, age: AGE_MAX, rest: service.rest, ..Service::default() };
        // The lease of the dead process is left to expire: it may carry a beat (§1.4, rule 4).
        new.agent.forget_instance();
        next.etcd.candidates[host] = state.etcd.candidates[host];
        Some(next)
    }
}

impl Service {
    /// No main process any more. Of its unit, a child that lives on or a COMMIT on its way may be left.
    fn die(&mut self, leaks: bool, left: u8) {
        let unit = self.unit;
        self.rest = match unit.phase {
            Phase::Begun | Phase::Checked | Phase::Doomed if leaks => Unit { left, hung: false, ..unit },
            Phase::Checked => Unit { phase: Phase::Orphan, hung: false, left: 0, ..unit },
            Phase::None | Phase::Begun | Phase::Doomed | Phase::Orphan => Unit::default(),
        };
        (self.up, self.unit, self.installed) = (false, Unit::default(), false);
    }
}

impl crate::state::Agent {
    /// Turn, lease and pending outcome were the dead process's.
    fn forget_instance(&mut self) {
        *self = Self {
            up: self.up,
            wait: self.wait,
            restored: self.restored,
            era: self.era,
            age: AGE_MAX,
            pending: Kind::None,
            ..Self::default()
        };
    }
}

impl Rules {
    /// Whoever installs waits for nobody, since the check takes no lock that an update would wait for.
    fn locks_nothing(&self) -> bool {
        self.has(Mistake::KeyShare) || self.has(Mistake::CheckOutside)
    }

    /// Tokens come twice in this mistake, so nothing that would notice it is there.
    pub(crate) fn repeats_tokens(&self) -> bool {
        self.has(Mistake::SameToken) || self.has(Mistake::CreateRevision) || self.has(Mistake::NoEra)
    }
}

/// The process that a fence row names before anybody has installed anything.
pub(crate) const NOBODY: Instance = Instance { host: u8::MAX, life: 0 };
