//! The agent's rules: etcd lease, renewal with barrier, turn, orders to the service. `agent/src/lease` in small.
//!
//! No step of an agent is ever forced, so every delay between any two of them, and every pause of the process under a
//! running clock, is among the runs. A read is one step: that its answer may be old when it is used is the same as that
//! the next step comes late.

use crate::bounds::{AGE_MAX, SHORT_TTL, TRIAL, TTL};
use crate::invariant::Invariant;
use crate::mistake::Mistake;
use crate::rules::Rules;
use crate::state::{Agent, Candidate, Instance, Kind, Lease, LeaseNo, Pause, Renew, Standing, State, Told, Turn, Wait};

impl Rules {
    /// The agent of `host`, if it can take a step.
    pub(crate) fn agent<'s>(&self, state: &'s State, host: usize) -> Option<&'s Agent> {
        let is_able = state.hosts[host].agent.up && state.hosts[host].pause == Pause::No;
        is_able.then_some(&state.hosts[host].agent)
    }

    /// The same, if it believes the cluster that answers (§1.13 F23).
    pub(crate) fn believer<'s>(&self, state: &'s State, host: usize) -> Option<&'s Agent> {
        let believes = |agent: &&Agent| agent.restored == state.etcd.restored || self.has(Mistake::NoEra);
        self.agent(state, host).filter(believes)
    }

    /// Grants an etcd lease; a candidate that changes over leaves its old one to expire.
    pub(crate) fn grant(&self, state: &State, host: usize, short: bool) -> Option<State> {
        let agent = self.believer(state, host)?;
        let again = self.bounds.regrants && !agent.used;
        if !state.hosts[host].service.up || agent.lease != 0 && !again || short && !self.bounds.short_ttl {
            return None;
        }
        let no = (1..=self.bounds.leases).find(|no| state.is_spare(host, *no))?;
        let mut next = *state;
        let ttl = if short { SHORT_TTL } else { TTL };
        next.etcd.set_lease(host as u8, no, Lease::Alive { left: ttl, ttl });
        let agent = &mut next.hosts[host].agent;
        (agent.lease, agent.used, agent.fresh) = (no, false, false);
        agent.let_base_go();
        Some(next)
    }

    /// Goes on with the etcd lease that an earlier process left in the store.
    pub(crate) fn adopt(&self, state: &State, host: usize) -> Option<State> {
        let agent = self.believer(state, host).filter(|agent| agent.fresh && agent.lease == 0)?;
        let me = state.instance(host);
        let turn = agent.turn.map(|turn| turn.rev);
        let beat = state.etcd.beat.filter(|beat| beat.who == me && Some(beat.rev) == turn);
        let candidate = state.etcd.candidates[host].filter(|candidate| candidate.life == me.life);
        let used = beat.is_some();
        let lease = beat.map(|beat| beat.lease).or(candidate.map(|candidate| candidate.lease))?;
        let mut next = *state;
        let agent = &mut next.hosts[host].agent;
        (agent.lease, agent.used, agent.fresh) = (lease, used, false);
        if self.has(Mistake::BaseFromNow) {
            agent.age = 0;
        }
        Some(next)
    }

    /// Writes the candidate key. It says that it has prepared if it could receive a turn now.
    pub(crate) fn stand(&self, state: &State, host: usize) -> Option<State> {
        let agent = self.believer(state, host).filter(|agent| agent.lease != 0 && !agent.used)?;
        let (me, stands) = (state.instance(host), state.etcd.candidates[host]);
        let service = &state.hosts[host].service;
        if state.etcd.lease(host as u8, agent.lease) == Lease::Dead || !service.up {
            return None;
        }
        let named = state.etcd.open_intent().filter(|intent| intent.to == me);
        let prepared = named.filter(|_| self.is_tried(agent) && service.is_idle() && agent.turn.is_none());
        let created = stands.map_or(agent.lease, |stands| stands.created);
        let value =
            Candidate { life: me.life, lease: agent.lease, created, prepared: prepared.map_or(0, |intent| intent.op) };
        let mut next = *state;
        next.etcd.candidates[host] = Some(value);
        (next != *state).then_some(next)
    }

    /// Sends a keep-alive, and the leader answers it. A delay on the way there only makes the base older.
    pub(crate) fn renew(&self, state: &State, host: usize, real: bool) -> Option<State> {
        let agent = self.believer(state, host).filter(|agent| agent.lease != 0)?;
        let mut next = *state;
        if real {
            let (no, host) = (agent.lease, host as u8);
            let Lease::Alive { left, ttl } = state.etcd.lease(host, no) else { return None };
            if agent.age == 0 && agent.accepted >= TRIAL && left == ttl {
                // Nothing that it could bring is better than what is there.
                return None;
            }
            next.etcd.set_lease(host, no, Lease::Alive { left: ttl, ttl });
        } else if !self.bounds.stale_acks {
            return None;
        }
        next.hosts[host].agent.renew = Renew::Acked { age: 0, real };
        // No time may pass until the answers come, so nothing is lost if they come at once.
        if self.bounds.attempt == 0 { self.barrier(&next, host, false) } else { Some(next) }
    }

    /// The mistake: a second keep-alive is sent and lost, and the answer to the first is taken for the answer to it.
    pub(crate) fn renew_again(&self, state: &State, host: usize) -> Option<State> {
        let agent = self.believer(state, host).filter(|_| self.has(Mistake::LateReply))?;
        let Renew::Acked { age: 1.., real } = agent.renew else { return None };
        let mut next = *state;
        next.hosts[host].agent.renew = Renew::Acked { age: 0, real };
        Some(next)
    }

    /// The barrier's answer arrives, and the renewal is judged (§1.7, rules 4 to 6).
    pub(crate) fn barrier(&self, state: &State, host: usize, stale: bool) -> Option<State> {
        let agent = self.believer(state, host)?;
        let Renew::Acked { age, real } = agent.renew else { return None };
        if stale && !self.bounds.stale_reads {
            return None;
        }
        let mut next = *state;
        let blind = stale || self.has(Mistake::NoBarrier);
        let carries = blind || next.look(host);
        let agent = &mut next.hosts[host].agent;
        agent.renew = Renew::Idle;
        let ttl = match state.etcd.lease(host as u8, agent.lease) {
            Lease::Alive { ttl, .. } => ttl,
            Lease::Dead => TTL,
        };
        if !carries || agent.lease == 0 || !(real || blind || self.has(Mistake::NoTermCheck)) {
            return Some(next);
        }
        let age = if self.has(Mistake::ReceiptTime) { 0 } else { age };
        // A shorter TTL brings the deadlines forward, as an older base would.
        let age = age + if self.has(Mistake::RequestedTtl) { 0 } else { TTL - ttl };
        agent.age = agent.age.min(age.min(AGE_MAX));
        agent.accepted = (agent.accepted + 1).min(TRIAL);
        next.publish(self, host);
        Some(next)
    }

    /// A watch event or a read shows the lease's keys.
    pub(crate) fn read(&self, state: &State, host: usize) -> Option<State> {
        let agent = self.believer(state, host)?;
        let mut next = *state;
        next.look(host);
        let me = state.instance(host);
        let holder = &state.etcd.holder;
        let (service, turn) = (state.hosts[host].service, next.hosts[host].agent.turn);
        let put_away = turn.is_none_or(|turn| turn.standing == Standing::Over && (service.is_idle() || !service.up));
        if put_away {
            next.end_turn(host);
            let begins = state.etcd.is_held_by(me) && service.up && holder.era == agent.era;
            if begins || state.etcd.is_held_by(me) && self.has(Mistake::NoEra) {
                next.begin_turn(host);
            }
        }
        (next != *state).then_some(next)
    }

    /// A read shows the holder's beat absent: the quarantine begins.
    pub(crate) fn observe(&self, state: &State, host: usize) -> Option<State> {
        self.believer(state, host).filter(|agent| agent.wait.is_none())?;
        let etcd = &state.etcd;
        if !etcd.holder.held || etcd.beat.is_some() || etcd.holder.who == state.instance(host) {
            return None;
        }
        let mut next = *state;
        next.hosts[host].agent.wait = Some(Wait { rev: etcd.holder.rev, waited: 0, certified: false });
        Some(next)
    }

    /// Tells the service ACTIVE.
    pub(crate) fn activate(&self, state: &State, host: usize) -> Option<State> {
        let agent = self.agent(state, host).filter(|agent| agent.used && agent.pending == Kind::None)?;
        let turn = agent.turn.filter(|turn| turn.standing == Standing::Good && !turn.haunted)?;
        let service = &state.hosts[host].service;
        let (token, is_new) = (self.token(turn.era, turn.rev), service.token != self.token(turn.era, turn.rev));
        let regression = is_new && token <= state.fence.token;
        if !service.up || agent.age >= self.soft() || regression && !self.repeats_tokens() {
            return None;
        }
        let mut next = *state;
        next.demand(Invariant::I12, !regression);
        let host = &mut next.hosts[host];
        host.agent.turn = Some(Turn { leaving: false, ..turn });
        (host.service.told, host.service.token, host.service.age) = (Told::Active, token, agent.age);
        host.service.installed &= !is_new;
        (next != *state).then_some(next)
    }

    /// Tells the service QUIESCE or FENCED, for whatever reason: a deadline, a loss, a hand-over, a suspicion.
    pub(crate) fn quiesce(&self, state: &State, host: usize) -> Option<State> {
        let agent = self.agent(state, host)?;
        if agent.turn.is_none() || state.hosts[host].service.told != Told::Active {
            return None;
        }
        let mut next = *state;
        next.hosts[host].service.told = Told::Quiesce;
        Some(next)
    }

    /// Believes the restored cluster, since the operator has raised the era; a turn of the old era is over.
    pub(crate) fn accept_era(&self, state: &State, host: usize) -> Option<State> {
        let agent = self.agent(state, host).filter(|agent| state.etcd.era > agent.era)?;
        let mut next = *state;
        let turn = agent.turn.map(|turn| Turn { standing: Standing::Over, ..turn });
        let agent = &mut next.hosts[host].agent;
        (agent.restored, agent.era, agent.turn, agent.pending) = (true, state.etcd.era, turn, Kind::None);
        agent.lease = 0;
        agent.let_base_go();
        Some(next)
    }

    /// Its live lease has shown twice that it lives, and its own soft deadline lies ahead.
    pub(crate) fn is_tried(&self, agent: &Agent) -> bool {
        agent.lease != 0 && !agent.used && agent.accepted >= TRIAL && agent.age < self.soft()
    }
}

impl Agent {
    fn let_base_go(&mut self) {
        (self.accepted, self.age, self.renew) = (0, AGE_MAX, Renew::Idle);
    }

    /// The process is gone; only the state file is left.
    pub(crate) fn crash(&mut self) {
        let turn = self.turn.map(|turn| Turn {
            standing: Standing::Good,
            haunted: turn.leaving || turn.haunted,
            leaving: turn.leaving || turn.haunted,
            ..turn
        });
        *self = Self { turn, restored: self.restored, era: self.era, age: AGE_MAX, ..Self::default() };
    }
}

impl State {
    /// The present process of the service on `host`.
    pub fn instance(&self, host: usize) -> Instance {
        Instance { host: host as u8, life: self.hosts[host].service.life }
    }

    /// Nothing names this lease number any more.
    fn is_spare(&self, host: usize, no: LeaseNo) -> bool {
        let named = |who: Instance, lease: LeaseNo| usize::from(who.host) == host && lease == no;
        let etcd = &self.etcd;
        let wires = || self.hosts.iter().flat_map(|host| host.wires);
        etcd.lease(host as u8, no) == Lease::Dead
            && self.hosts[host].agent.lease != no
            && etcd.candidates[host].is_none_or(|candidate| candidate.created != no)
            && !(etcd.holder.held && named(etcd.holder.who, etcd.holder.lease))
            && !wires().any(|wire| named(wire.who, wire.lease) || named(wire.who, wire.created))
    }

    /// What a linearizable read shows the agent. Returns whether its lease carries what it should: the beat of its turn,
    /// or its candidate key.
    fn look(&mut self, host: usize) -> bool {
        let (me, etcd) = (self.instance(host), self.etcd);
        let agent = &mut self.hosts[host].agent;
        let mut beats = false;
        if let Some(turn) = agent.turn.as_mut().filter(|turn| turn.standing != Standing::Over) {
            beats = etcd.beat.is_some_and(|beat| beat.rev == turn.rev && beat.lease == agent.lease);
            if etcd.holder.rev != turn.rev || !etcd.is_held_by(me) || etcd.holder.era != turn.era {
                turn.standing = Standing::Over;
            } else if !beats && (agent.lease != 0 || etcd.beat.is_none()) {
                turn.standing = Standing::Lost;
            }
        }
        let stands = etcd.candidates[host].is_some_and(|c| c.life == me.life && c.lease == agent.lease);
        let present = agent.turn.is_some_and(|turn| turn.standing != Standing::Over);
        let lost = if agent.used { present && !beats } else { etcd.lease(host as u8, agent.lease) == Lease::Dead };
        if lost {
            (agent.lease, agent.used) = (0, false);
            agent.let_base_go();
        }
        agent.lease != 0 && if agent.used { beats } else { stands }
    }

    /// A renewal was accepted: the service's record says so.
    fn publish(&mut self, rules: &Rules, host: usize) {
        let host = &mut self.hosts[host];
        let (agent, service) = (&host.agent, &mut host.service);
        let token = agent.turn.filter(|turn| turn.standing == Standing::Good && agent.used);
        if token.is_some_and(|turn| rules.token(turn.era, turn.rev) == service.token) {
            service.age = service.age.min(agent.age);
        }
    }

    /// The turn is over and the service has stopped. A lease that has carried a beat is revoked (H9).
    fn end_turn(&mut self, host: usize) {
        let Some(turn) = self.hosts[host].agent.turn.take() else { return };
        let agent = &mut self.hosts[host].agent;
        agent.pending = Kind::None;
        let lease = agent.lease;
        // After T5 the new turn's beat is bound to the lease that is live now.
        let carries = self.etcd.beat.is_some_and(|beat| usize::from(beat.who.host) == host && beat.lease == lease);
        if agent.used && !carries && turn.standing == Standing::Over {
            (agent.lease, agent.used) = (0, false);
            agent.let_base_go();
            if lease != 0 {
                self.etcd.end_lease(host as u8, lease);
            }
        }
        let service = &mut self.hosts[host].service;
        if service.told == Told::Quiesce {
            (service.told, service.token, service.installed, service.age) = (Told::Stopped, 0, false, AGE_MAX);
        }
    }

    fn begin_turn(&mut self, host: usize) {
        let holder = self.etcd.holder;
        let agent = &mut self.hosts[host].agent;
        let turn = Turn { rev: holder.rev, era: holder.era, standing: Standing::Good, haunted: false, leaving: false };
        agent.turn = Some(turn);
        agent.pending = Kind::None;
        agent.wait = None;
        // The deadline is that of the lease which the turn was written with, or there is none yet.
        if agent.lease == holder.lease {
            agent.used = true;
        }
    }
}
