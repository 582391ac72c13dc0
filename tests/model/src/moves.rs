//! When an agent sends which of the lease's transactions, and what it makes of the outcome. `agent/src/lease/moves.rs`
//! in small.

use crate::invariant::Invariant;
use crate::mistake::Mistake;
use crate::rules::Rules;
use crate::state::{Agent, Kind, Standing, State, Told, Turn, Wait, Wire};

impl Rules {
    /// T1 and T2: `host` takes a lease that is free, or whose holder is lost.
    pub(crate) fn take(&self, state: &State, host: usize) -> Option<State> {
        let agent = self.mover(state, host).filter(|agent| agent.turn.is_none() && self.is_tried(agent))?;
        let (etcd, me) = (&state.etcd, state.instance(host));
        let stands = etcd.candidates[host].is_some_and(|c| c.life == me.life && c.lease == agent.lease);
        let for_other = etcd.open_intent().filter(|intent| intent.to != me);
        if !stands || !state.hosts[host].service.is_idle() || etcd.beat.is_some() || for_other.is_some() {
            return None;
        }
        let mut wire = self.wire(state, host, if etcd.holder.held { Kind::TakeOver } else { Kind::Acquire });
        wire.op = etcd.open_intent().map_or(0, |intent| intent.op);
        let mut next = *state;
        if wire.kind == Kind::TakeOver {
            // The last process on this host needs no different treatment from a stranger's.
            let wait = agent.wait?;
            if etcd.holder.who == me || wait.waited < self.quarantine() && !wait.certified {
                return None;
            }
            next.demand(Invariant::I8, wait.waited >= self.bounds.quarantine() || wait.certified);
        }
        next.send(host, wire);
        Some(next)
    }

    /// The taker asks the holder's agent, which certifies that its service stopped. Before it answers, its state file says
    /// that this turn never works again: only T5 brings another one.
    pub(crate) fn certify(&self, state: &State, host: usize) -> Option<State> {
        let wait = self.believer(state, host)?.wait.filter(|wait| !wait.certified && self.bounds.quarantine() > 0)?;
        let other = usize::from(state.etcd.holder.who.host);
        let turn = self.agent(state, other)?.turn.filter(|turn| turn.rev == wait.rev)?;
        let service = &state.hosts[other].service;
        if other == host || !(service.is_idle() || service.is_gone()) {
            return None;
        }
        let mut next = *state;
        next.hosts[host].agent.wait = Some(Wait { certified: true, ..wait });
        if !self.has(Mistake::EmptyCertificate) {
            next.hosts[other].agent.turn = Some(Turn { haunted: true, leaving: true, ..turn });
        }
        Some(next)
    }

    /// T3: the holder hands over to the prepared candidate that the open intent names.
    pub(crate) fn hand_over(&self, state: &State, host: usize) -> Option<State> {
        let agent = self.mover(state, host)?;
        let turn = agent.turn.filter(|turn| turn.standing != Standing::Over)?;
        let (etcd, me) = (&state.etcd, state.instance(host));
        let intent = etcd.open_intent().filter(|intent| intent.from == me && intent.to != me)?;
        let heir = etcd.candidates[usize::from(intent.to.host)]
            .filter(|heir| heir.life == intent.to.life && heir.prepared == intent.op)?;
        let idle = state.hosts[host].service.is_idle() || self.has(Mistake::EarlyHandOver);
        // F24: the state file says so first.
        if !idle || etcd.holder.rev != turn.rev || !etcd.is_held_by(me) || etcd.beat_rev() != turn.rev {
            return None;
        }
        let wire = Wire {
            who: intent.to,
            lease: heir.lease,
            created: heir.created,
            op: intent.op,
            ..self.wire(state, host, Kind::HandOver)
        };
        let mut next = *state;
        next.send(host, wire);
        next.hosts[host].agent.turn = Some(Turn { leaving: true, ..turn });
        Some(next)
    }

    /// T4: the holder gives up, with proof that its service stopped: QUIESCED, or no process left.
    pub(crate) fn release(&self, state: &State, host: usize) -> Option<State> {
        let agent = self.mover(state, host)?;
        let turn = agent.turn.filter(|turn| turn.standing != Standing::Over)?;
        let service = &state.hosts[host].service;
        let counts_as_dead =
            !service.up && self.has(Mistake::MainPidIsAll) || service.unit.hung && self.has(Mistake::SigtermIsStop);
        let proven = service.is_gone() || service.is_idle() && self.bounds.gives_up || counts_as_dead;
        if !proven || state.etcd.holder.rev != turn.rev || !state.etcd.is_held_by(state.instance(host)) {
            return None;
        }
        let mut next = *state;
        next.send(host, self.wire(state, host, Kind::Release));
        next.hosts[host].agent.turn = Some(Turn { leaving: true, ..turn });
        Some(next)
    }

    /// T5: the same holder begins a new turn, after it lost its etcd lease or doubts an outcome. Its service has stopped.
    pub(crate) fn mint(&self, state: &State, host: usize) -> Option<State> {
        let agent = self.mover(state, host)?;
        let turn = agent.turn.filter(|turn| turn.standing != Standing::Over && turn.era == state.etcd.era)?;
        let etcd = &state.etcd;
        let beats = agent.used && etcd.beat.is_some_and(|beat| beat.rev == turn.rev && beat.lease == agent.lease);
        let stands = etcd.candidates[host].is_some_and(|candidate| candidate.lease == agent.lease);
        let fit = self.is_tried(agent) && stands && !beats;
        let haunted = beats && turn.haunted && agent.age < self.soft();
        let present = etcd.holder.rev == turn.rev && etcd.is_held_by(state.instance(host));
        if !(fit || haunted) || !present || !state.hosts[host].service.is_idle() {
            return None;
        }
        let mut next = *state;
        next.send(host, self.wire(state, host, Kind::Mint));
        Some(next)
    }

    /// The agent learns what became of its transaction, or gives up waiting: then a read shows that it has not been
    /// carried out *yet*.
    pub(crate) fn resolve(&self, state: &State, host: usize) -> Option<State> {
        let agent = self.believer(state, host).filter(|agent| agent.pending != Kind::None)?;
        let is_out = state.hosts[host].wires[0].kind != Kind::None;
        if is_out && state.faults.unknowns >= self.bounds.unknowns {
            return None;
        }
        let mut next = *state;
        next.faults.unknowns += u8::from(is_out);
        let taker = matches!(agent.pending, Kind::Acquire | Kind::TakeOver);
        let agent = &mut next.hosts[host].agent;
        agent.pending = Kind::None;
        if self.has(Mistake::UnknownIsFailure) {
            return Some(next);
        }
        if let Some(turn) = agent.turn.as_mut() {
            turn.haunted |= is_out && !taker;
            if state.etcd.holder.rev != turn.rev {
                turn.standing = Standing::Over;
            }
        }
        Some(next)
    }

    /// The agent of `host`, if it may send a transaction: one at a time.
    fn mover<'s>(&self, state: &'s State, host: usize) -> Option<&'s Agent> {
        let agent = self.believer(state, host)?;
        let era = agent.era == state.etcd.era || self.has(Mistake::NoEra);
        (agent.pending == Kind::None && era).then_some(agent)
    }

    /// What every transaction compares, and a turn of `host`'s own.
    fn wire(&self, state: &State, host: usize, kind: Kind) -> Wire {
        let etcd = &state.etcd;
        let compares_intent = matches!(kind, Kind::Acquire | Kind::TakeOver | Kind::HandOver);
        Wire {
            kind,
            rev: etcd.holder.rev,
            beat: etcd.beat_rev(),
            era: etcd.era,
            intent: if compares_intent { etcd.intent.map_or(0, |intent| intent.op) } else { 0 },
            who: state.instance(host),
            lease: if kind == Kind::Release { 0 } else { state.hosts[host].agent.lease },
            created: 0,
            op: 0,
        }
    }
}

impl State {
    /// A transaction goes out. An older one that is still under way stays so; of more than two the oldest never arrives.
    fn send(&mut self, host: usize, wire: Wire) {
        let host = &mut self.hosts[host];
        if host.wires[0].kind != Kind::None {
            host.wires[1] = host.wires[0];
        }
        host.wires[0] = wire;
        host.agent.pending = wire.kind;
        if wire.kind == Kind::Release && host.service.told == Told::Active {
            // Whoever counts it as stopped does not ask it.
            host.service.told = Told::Quiesce;
        }
    }
}
