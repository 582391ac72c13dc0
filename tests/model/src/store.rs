//! etcd: what a lease transaction does when it arrives, and how leases end.

use crate::bounds::{AGE_MAX, LONG_QUARANTINE};
use crate::invariant::Invariant;
use crate::mistake::Mistake;
use crate::rules::Rules;
use crate::state::{Beat, Candidate, Etcd, HOSTS, Holder, Host, Kind, LEASES, Lease, LeaseNo, State, Told, Wire};

impl Etcd {
    /// Whether every compare of `wire` holds.
    pub fn agrees(&self, wire: &Wire, rules: &Rules) -> bool {
        let turn = self.holder.rev == wire.rev && self.beat_rev() == wire.beat && self.era == wire.era;
        let intent = self.intent.map_or(0, |intent| intent.op) == wire.intent;
        match wire.kind {
            Kind::None => false,
            Kind::Acquire | Kind::TakeOver => turn && intent,
            Kind::HandOver => {
                let heir = self.candidates[usize::from(wire.who.host)].filter(|heir| heir.life == wire.who.life);
                let same = |heir: Candidate| {
                    heir.created == wire.created && (heir.lease == wire.lease || rules.has(Mistake::NoLeaseCompare))
                };
                turn && intent && heir.is_some_and(same)
            }
            Kind::Release | Kind::Mint => turn,
        }
    }

    /// Carries out `wire` whole, or nothing of it: compares first, and a put with a dead lease aborts everything.
    /// Returns whether it did.
    pub fn commit(&mut self, wire: &Wire, rules: &Rules) -> bool {
        let takes = wire.kind != Kind::Release;
        if !self.agrees(wire, rules) || takes && self.lease(wire.who.host, wire.lease) == Lease::Dead {
            return false;
        }
        let (rev, lease) = (wire.rev + 1, if takes { wire.lease } else { 0 });
        self.holder = Holder { held: takes, who: wire.who, lease, rev, era: wire.era, op: wire.op, cause: wire.kind };
        self.beat = takes.then_some(Beat { rev, who: wire.who, lease });
        if rules.has(Mistake::TwoWrites) && takes {
            // The beat of the turn before stands until the second write, which is still to come.
            self.beat = (wire.beat != 0).then_some(Beat { rev: wire.beat, who: wire.who, lease });
        }
        true
    }

    /// The lease ends, and with it what is bound to it.
    pub fn end_lease(&mut self, host: u8, no: LeaseNo) {
        self.set_lease(host, no, Lease::Dead);
        self.beat = self.beat.filter(|beat| beat.who.host != host || beat.lease != no);
        let candidate = &mut self.candidates[usize::from(host)];
        *candidate = candidate.filter(|candidate| candidate.lease != no);
    }

    /// Restored from the backup that was made when nobody held yet: revisions go back, leases are gone.
    pub fn restore(&mut self) {
        *self = Self { restored: true, era: self.era, ..Self::default() };
    }

    /// One tick of etcd's own clock.
    pub fn tick(&mut self) {
        for lease in self.leases.iter_mut().flatten() {
            if let Lease::Alive { left, .. } = lease {
                *left = left.saturating_sub(1);
            }
        }
        if self.restored {
            self.calm = (self.calm + 1).min(LONG_QUARANTINE);
        }
    }
}

impl Rules {
    /// The transaction in `slot` of `from`'s arrives.
    pub(crate) fn deliver(&self, state: &State, from: usize, slot: usize) -> Option<State> {
        let wire = state.hosts[from].wires[slot];
        if wire.kind == Kind::None || wire.rev >= self.bounds.turns {
            return None;
        }
        let mut next = *state;
        next.hosts[from].wires[slot] = Wire::default();
        if next.etcd.commit(&wire, self) {
            self.judge(state, &mut next, from, &wire);
            next.forget_the_past();
        }
        Some(next)
    }

    /// What the checkers say of a write of the holder key.
    fn judge(&self, before: &State, next: &mut State, from: usize, wire: &Wire) {
        let (old, new) = (before.etcd, next.etcd);
        let by_holder = old.holder.held && usize::from(old.holder.who.host) == from;
        next.demand(Invariant::I9, !old.holder.held || by_holder || wire.kind == Kind::TakeOver);
        if new.holder.held {
            let token = self.token(new.holder.era, new.holder.rev);
            next.demand(Invariant::I2, token > next.seen.top);
            next.seen.top = next.seen.top.max(token);
        }
        if wire.kind == Kind::HandOver {
            let heir = new.candidates[usize::from(wire.who.host)];
            let kept = new.beat.zip(heir).is_some_and(|(beat, heir)| beat.lease == heir.lease);
            next.demand(Invariant::I4, old.holder.held && old.beat.is_some() && new.holder.held && kept);
        }
        if matches!(wire.kind, Kind::HandOver | Kind::Release) {
            let service = before.hosts[from].service;
            let token = self.token(old.holder.era, old.holder.rev);
            let works = [service.unit, service.rest].iter().any(|unit| unit.runs() && unit.token == token);
            next.demand(Invariant::I5, !works);
            next.seen.ended |= 1 << old.holder.rev;
        }
    }

    /// etcd ends a lease: late, when its time is up, or early, by its defect.
    pub(crate) fn end(&self, state: &State, host: usize, no: LeaseNo, early: bool) -> Option<State> {
        let host = host as u8;
        let Lease::Alive { left, .. } = state.etcd.lease(host, no) else { return None };
        let beats = state.etcd.beat.is_some_and(|beat| beat.who.host == host && beat.lease == no);
        if self.bounds.steady_candidates && !beats
            || early != (left > 0)
            || early && state.faults.revokes >= self.bounds.revokes
        {
            return None;
        }
        let mut next = *state;
        next.faults.revokes += u8::from(early);
        next.etcd.end_lease(host, no);
        Some(next)
    }

    /// etcd is lost, and restored from its backup.
    pub(crate) fn restore(&self, state: &State) -> Option<State> {
        if !self.bounds.restore || state.etcd.restored {
            return None;
        }
        let mut next = *state;
        next.etcd.restore();
        for host in &mut next.hosts {
            // Connections end with the cluster that they led to.
            host.wires = Default::default();
            host.agent.wait = None;
        }
        Some(next)
    }

    /// The operator raises the era, after everybody's deadlines have passed.
    pub(crate) fn raise_era(&self, state: &State) -> Option<State> {
        if !state.etcd.restored || state.etcd.era > 0 || state.etcd.calm < LONG_QUARANTINE {
            return None;
        }
        let mut next = *state;
        next.etcd.era = 1;
        Some(next)
    }
}

impl State {
    /// Makes states equal that differ in nothing that any rule looks at: the age of a right that nobody has, and the rest
    /// of a lease that carries nothing and that nobody renews.
    pub(crate) fn settle(&mut self) {
        for (number, host) in self.hosts.iter_mut().enumerate() {
            let service = &mut host.service;
            if service.told != Told::Active && !service.unit.runs() {
                service.age = AGE_MAX;
            }
            let (etcd, lives) = (&mut self.etcd, host.agent.lease);
            for no in (1..=LEASES as u8).filter(|no| *no != lives) {
                let beats = etcd.beat.is_some_and(|beat| usize::from(beat.who.host) == number && beat.lease == no);
                let stands = etcd.candidates[number].is_some_and(|candidate| candidate.lease == no);
                if let Lease::Alive { ttl, .. } = etcd.lease(number as u8, no)
                    && !beats
                    && !stands
                {
                    etcd.set_lease(number as u8, no, Lease::Alive { left: 0, ttl });
                }
            }
        }
    }

    /// Drops what can have no effect any more: transactions and quarantines of turns that are over. It makes states equal
    /// that differ in nothing that matters.
    pub(crate) fn forget_the_past(&mut self) {
        let rev = self.etcd.holder.rev;
        let forget = |host: &mut Host| {
            for wire in &mut host.wires {
                if wire.rev != rev {
                    *wire = Wire::default();
                }
            }
            host.agent.wait = host.agent.wait.filter(|wait| wait.rev == rev);
        };
        self.hosts.iter_mut().take(HOSTS).for_each(forget);
    }
}
