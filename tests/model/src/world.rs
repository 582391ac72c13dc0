//! What nobody decides: time, pauses, crashes of agents; and the coordinator, which may only ask.

use crate::bounds::{AGE_MAX, E_LOW, TTL};
use crate::invariant::Invariant;
use crate::mistake::Mistake;
use crate::rules::Rules;
use crate::state::{Host, Instance, Intent, Pause, Renew, State, Unit};

/// How one host's clock goes in a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slip {
    /// It stands still.
    Slow,
    /// It makes two ticks of one.
    Fast,
}

impl Rules {
    /// One tick of real time. etcd's clock is the measure; at most one host's clock slips in it, and none twice in a TTL.
    /// Time does not go on over a unit that has to be over: A2 and the kill ladder see to that.
    pub(crate) fn tick(&self, state: &State, slip: Option<(usize, Slip)>) -> Option<State> {
        let adverse = slip.is_none_or(|(host, slip)| (host == 0) == (slip == Slip::Slow));
        if self.bounds.adverse_slips && !adverse {
            return None;
        }
        let mut next = *state;
        next.etcd.tick();
        for (number, host) in next.hosts.iter_mut().enumerate().take(usize::from(self.bounds.hosts)) {
            let slips = slip.filter(|(slipping, _)| *slipping == number).map(|(_, slip)| slip);
            if slips.is_some() && (state.faults.slips >= self.bounds.slips || host.steady > 0) {
                return None;
            }
            next.faults.slips += u8::from(slips.is_some());
            let ticks = match (host.pause, slips) {
                (Pause::Undetected, _) | (_, Some(Slip::Slow)) => 0,
                (Pause::Suspended, _) if self.has(Mistake::MonotonicClock) => 0,
                (_, Some(Slip::Fast)) => 2,
                (_, None) => 1,
            };
            if host.pause == Pause::No && !self.lets_time_pass(host, ticks) {
                return None;
            }
            host.pass(ticks, self);
            host.steady = if slips.is_some() { TTL - 1 } else { host.steady.saturating_sub(1) };
        }
        (next != *state).then_some(next)
    }

    fn lets_time_pass(&self, host: &Host, ticks: u8) -> bool {
        let service = &host.service;
        let limit = if service.unit.hung { self.e_low() } else { self.hard() };
        let present = !service.unit.runs() || service.age + ticks < limit;
        // A child that lives on was begun in time, so c_unit or the hard deadline ends it too.
        present && (!service.rest.runs() || service.rest.left > ticks)
    }

    /// A host stands still. Under a running clock that differs from an idle host only if a unit is in the middle.
    pub(crate) fn pause(&self, state: &State, host: usize, pause: Pause) -> Option<State> {
        let mut next = *state;
        let (count, bound) = match pause {
            Pause::No => return None,
            Pause::Suspended => (&mut next.faults.suspends, self.bounds.suspends),
            Pause::Undetected => (&mut next.faults.pauses, self.bounds.pauses),
        };
        let works = state.hosts[host].service.unit.runs() || state.hosts[host].service.rest.runs();
        // F12: a unit that is suspended in its middle may do one more instruction when it wakes up, past every deadline.
        // Where nothing worse than a suspend happens (I3 is claimed), it does not happen inside a unit.
        let spared = works && self.bounds.pauses == 0;
        if state.hosts[host].pause != Pause::No || *count >= bound || spared {
            return None;
        }
        *count += 1;
        next.hosts[host].pause = pause;
        Some(next)
    }

    /// It goes on.
    pub(crate) fn resume(&self, state: &State, host: usize) -> Option<State> {
        let mut next = *state;
        next.hosts[host].pause = Pause::No;
        (next != *state).then_some(next)
    }

    /// An agent's process ends; what it sent stays under way.
    pub(crate) fn crash_agent(&self, state: &State, host: usize) -> Option<State> {
        let mut next = *state;
        if !state.hosts[host].agent.up || state.faults.agents >= self.bounds.agents {
            return None;
        }
        next.faults.agents += 1;
        next.hosts[host].agent.crash();
        Some(next)
    }

    /// It starts again.
    pub(crate) fn start_agent(&self, state: &State, host: usize) -> Option<State> {
        let mut next = *state;
        let agent = &mut next.hosts[host].agent;
        (agent.fresh, agent.up) = (true, true);
        (!state.hosts[host].agent.up).then_some(next)
    }

    /// The coordinator asks the holder to hand over to `to`. Several coordinators are no different from one that asks
    /// whatever comes to its mind.
    pub(crate) fn ask(&self, state: &State, to: usize) -> Option<State> {
        let holder = state.etcd.holder;
        let asked = state.etcd.intent.map_or(0, |intent| intent.op);
        if !holder.held || usize::from(holder.who.host) == to || asked >= self.bounds.intents {
            return None;
        }
        let mut next = *state;
        let to: Instance = state.instance(to);
        next.etcd.intent = Some(Intent { op: asked + 1, from: holder.who, to });
        if self.has(Mistake::CoordinatorMoves) {
            (next.etcd.holder.who, next.etcd.holder.rev) = (to, holder.rev + 1);
        }
        next.demand(Invariant::I14, next.etcd.holder == holder && next.etcd.beat == state.etcd.beat);
        Some(next)
    }

    /// No unit begins at this age, or later.
    pub(crate) fn soft(&self) -> u8 {
        crate::bounds::SOFT + self.daring()
    }

    /// No unit that is well runs at this age, or later.
    pub(crate) fn hard(&self) -> u8 {
        crate::bounds::HARD + self.daring()
    }

    fn e_low(&self) -> u8 {
        E_LOW + self.daring()
    }

    fn daring(&self) -> u8 {
        u8::from(self.has(Mistake::NoRateMargin))
    }

    /// How long a taker believes that it has to wait.
    pub(crate) fn quarantine(&self) -> u8 {
        let full = self.bounds.quarantine();
        match () {
            () if self.has(Mistake::NoQuarantine) || self.has(Mistake::NoQuarantineAtAll) => 0,
            () if self.has(Mistake::ShortQuarantine) => full.saturating_sub(1),
            // The other machine's clock is a TTL behind.
            () if self.has(Mistake::EventStamp) => full.saturating_sub(TTL),
            () => full,
        }
    }
}

impl Host {
    /// `ticks` pass on this host's clock.
    fn pass(&mut self, ticks: u8, rules: &Rules) {
        let older = |age: u8| (age + ticks).min(AGE_MAX);
        self.agent.age = older(self.agent.age);
        self.service.age = older(self.service.age);
        let Unit { left, .. } = &mut self.service.rest;
        *left = left.saturating_sub(ticks);
        if let Renew::Acked { age, .. } = &mut self.agent.renew {
            *age += ticks;
            if *age > rules.bounds.attempt {
                self.agent.renew = Renew::Idle;
            }
        }
        if let Some(wait) = &mut self.agent.wait {
            wait.waited = (wait.waited + ticks).min(rules.bounds.quarantine());
        }
    }
}
