//! The way between keeper and store: what is sent, what arrives, and what gets lost.

use std::time::Duration;

use handover_agent::lease::clock::ClockIdentity;
use handover_agent::lease::deadline::Boot;
use handover_agent::lease::event::Event;
use handover_agent::lease::step::LeaseStep;
use handover_proto::ids::InstanceId;
use handover_proto::txn::{Cmp, LeaseId, Revision, Txn};
use handover_store::client::{Origin, Renewal, StoreError, TxnReply};

use super::etcd::{Answers, Ending, unknown, unreachable};
use super::fact::{Fact, Returned};
use super::mistake::Slip;
use super::slot::End;
use super::world::{Act, MS, SECOND, World};

/// The client's limit on every call but renewals.
const CALL_LIMIT_US: u64 = 2 * SECOND;

/// A request on its way.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) host: usize,
    pub(crate) life: u32,
    pub(crate) step: LeaseStep,
    pub(crate) sent: Boot,
    /// True moment at which its sender gives up.
    pub(crate) deadline: u64,
    pub(crate) member: usize,
    /// What the keep-alive of a renewal was answered.
    pub(crate) kept: Option<(Duration, Origin, Answers)>,
    /// Its sender has given up already.
    pub(crate) stray: bool,
    /// Its number among what is asked of the holder key; 0: it is none.
    pub(crate) asked: u64,
    /// The newest turn that its sender knew of.
    pub(crate) knew: Revision,
}

fn identity() -> ClockIdentity {
    ClockIdentity { boot_id: "boot".to_owned(), time_ns: String::new() }
}

impl World {
    pub(crate) fn lost(&mut self) -> bool {
        !self.healed && self.chance.next() % 1000 < self.weather.loss
    }

    pub(crate) fn start(&mut self, host: usize, step: LeaseStep, sent: Boot) {
        self.remark(|| format!("host {host}: {}", step.name()));
        let life = self.hosts[host].life;
        match step {
            LeaseStep::Tell { instance, record, limit } => {
                let Some(who) = self.ids.get(&instance).copied() else { return };
                let record = Box::new(record.record(&instance, &identity(), sent));
                let until = self.now + (limit.as_micros() as f64 / self.hosts[host].clock.rate) as u64;
                let delay = self.chance.within(0, 3 * MS);
                self.at(delay, Act::Call { life, who, record, until });
            }
            LeaseStep::Order { instance, .. } => self.asks_by_itself(host, &instance, sent),
            LeaseStep::Kill { instance } => self.kill(host, &instance),
            LeaseStep::Save(memory) => {
                let fails = self.lost() || self.now < self.hosts[host].disk_fails_until;
                let result = if fails { Err("full".to_owned()) } else { Ok(()) };
                if !fails {
                    self.hosts[host].disk = Some(memory.clone());
                }
                let event = Event::Saved { memory, result };
                let delay = self.chance.within(0, 5 * MS);
                self.tell(delay, host, life, event);
            }
            LeaseStep::Read(_)
            | LeaseStep::Move { .. }
            | LeaseStep::Renew { .. }
            | LeaseStep::Grant { .. }
            | LeaseStep::PutCandidate { .. }
            | LeaseStep::PutRoster(_)
            | LeaseStep::Revoke { .. } => self.send(host, step, sent),
            LeaseStep::Relist => {
                self.hosts[host].cursor = None;
                self.pump_soon(host, MS);
            }
            LeaseStep::Survey => self.survey(host),
            LeaseStep::AskCertificate { agent, token } => self.ask_certificate(host, &agent, token),
            LeaseStep::Begin { .. }
            | LeaseStep::End { .. }
            | LeaseStep::Leave { .. }
            | LeaseStep::Decline { .. }
            | LeaseStep::Adopt { .. }
            | LeaseStep::Drop { .. }
            | LeaseStep::Forget { .. }
            | LeaseStep::Wait { .. } => {}
        }
    }

    /// A service may ask at any moment: here, as soon as there is something new.
    fn asks_by_itself(&mut self, host: usize, instance: &InstanceId, sent: Boot) {
        if self.chance.percent(70) {
            return;
        }
        let board = self.hosts[host].core.as_ref().map(handover_agent::lease::state::Core::board);
        let published = board.and_then(|mut board| board.remove(instance));
        if let (Some((_, published)), Some(who)) = (published, self.ids.get(instance).copied()) {
            self.told(who, &published.record(instance, &identity(), sent));
        }
    }

    fn kill(&mut self, host: usize, instance: &InstanceId) {
        let Some(who) = self.ids.get(instance).copied().filter(|who| self.services[*who].alive) else { return };
        self.count("kills");
        let c_kill = (self.settings.c_kill.as_micros() as f64 / self.hosts[host].clock.rate) as u64;
        if self.mistake.is(Slip::SigtermIsStopped) {
            // It ends its unit first, if ever.
            self.at(MS, Act::Report { who, end: End::Proved });
            return self.at(4 * c_kill, Act::Die { who, all: true });
        }
        let delay = self.chance.within(0, c_kill);
        self.at(delay, Act::Die { who, all: true });
        let (life, instance) = (self.hosts[host].life, instance.clone());
        self.tell(delay, host, life, Event::Killed { instance, result: Ok(()) });
    }

    fn send(&mut self, host: usize, step: LeaseStep, sent: Boot) {
        let (limit, member) = match &step {
            LeaseStep::Renew { expected, member, .. } => (expected.limit.as_micros() as u64, member % 3),
            _ => (CALL_LIMIT_US, self.hosts[host].member),
        };
        let limit = (limit as f64 / self.hosts[host].clock.rate) as u64;
        let (life, deadline) = (self.hosts[host].life, self.now + limit);
        let asked = self.asks(&step);
        let knew = self.hosts[host].core.as_ref().map_or(0, handover_agent::lease::state::Core::last_turn);
        let sent = Box::new(Sent { host, life, step, sent, deadline, member, kept: None, stray: false, asked, knew });
        if self.hosts[host].is_cut(member, self.now) || self.lost() {
            return self.give_up(&sent);
        }
        let moves = matches!(sent.step, LeaseStep::Move { .. });
        let late = moves && std::mem::take(&mut self.hosts[host].late_move);
        let stray = late || (!self.healed && self.chance.next() % 1000 < self.weather.stray);
        let soonest = if late { limit + 500 * MS } else { limit / 2 };
        let delay = if stray { self.chance.within(soonest, 6 * SECOND) } else { self.rtt() };
        if self.now + delay >= deadline {
            self.count("strays");
            self.give_up(&sent);
            return self.at(delay, Act::Arrive(Box::new(Sent { stray: true, ..*sent })));
        }
        self.at(delay, Act::Arrive(sent));
    }

    fn rtt(&mut self) -> u64 {
        let slowest = if self.healed { 5 } else { self.weather.slowest_ms };
        self.chance.within(100, slowest * MS)
    }

    /// The sender gets no answer in time.
    fn give_up(&mut self, sent: &Sent) {
        let hidden = |can_write: bool| if can_write { unknown() } else { unreachable() };
        let event = match sent.step.clone() {
            LeaseStep::Read(asked) => Event::Read { asked, result: Err(hidden(false)) },
            LeaseStep::Move { op, txn, .. } => Event::Moved { op, asked: txn, result: Err(hidden(true)) },
            LeaseStep::Renew { instance, barrier, expected, .. } => {
                Event::Renewed { instance, sent: sent.sent, expected, barrier, result: Err(unknown()) }
            }
            LeaseStep::Grant { instance, .. } => Event::Granted { instance, result: Err(hidden(false)) },
            LeaseStep::PutCandidate { instance, txn } => {
                Event::CandidatePut { instance, asked: txn, result: Err(hidden(true)) }
            }
            LeaseStep::PutRoster(asked) => Event::RosterPut { asked, result: Err(hidden(true)) },
            LeaseStep::Revoke { lease } => Event::Revoked { lease },
            _ => return,
        };
        if !matches!(sent.step, LeaseStep::Renew { .. }) {
            self.hosts[sent.host].member = (sent.member + 1) % 3;
        }
        let wait = sent.deadline.saturating_sub(self.now);
        self.answer_at(wait, sent, event);
    }

    /// Brings an answer to its sender.
    fn answer_at(&mut self, wait: u64, sent: &Sent, event: Event) {
        let Sent { host, life, asked, .. } = *sent;
        self.at(wait, Act::Hear { host, life, asked, event: Box::new(event) });
    }

    /// An answer comes; what it says of the holder key is known from here on.
    pub(crate) fn heard(&mut self, host: usize, life: u32, asked: u64, event: Event) {
        if asked > 0 && self.hosts[host].life == life {
            let returned = self.returned(&event);
            self.fact(Fact::Hears { id: asked, returned });
        }
        self.hear(host, life, event);
    }

    fn asks(&mut self, step: &LeaseStep) -> u64 {
        let on = match step {
            LeaseStep::Read(_) | LeaseStep::Renew { .. } => None,
            LeaseStep::Move { txn, .. } => self.compared(txn),
            _ => return 0,
        };
        self.asked += 1;
        self.fact(Fact::Asks { id: self.asked, on });
        self.asked
    }

    fn compared(&self, txn: &Txn) -> Option<i64> {
        let holder = self.keys.holder();
        txn.cmp.iter().find_map(|cmp| match cmp {
            Cmp::ModRevision(key, revision) if *key == holder => Some(*revision),
            _ => None,
        })
    }

    fn returned(&self, event: &Event) -> Returned {
        let read = |reply: &TxnReply| {
            let holder = reply.reads.first().and_then(Option::as_ref);
            Returned::Read(holder.map_or(0, |entry| entry.mod_revision))
        };
        match event {
            Event::Read { result: Ok(reply), .. } => read(reply),
            Event::Renewed { result: Ok(renewal), .. } if !self.mistake.is(Slip::NoBarrier) => read(&renewal.barrier),
            Event::Moved { result: Ok(reply), .. } if reply.succeeded => Returned::Wrote(reply.revision),
            Event::Moved { result: Ok(reply), .. } => read(reply),
            Event::Moved { result: Err(StoreError::Unknown { .. }), .. } => Returned::Unknown,
            _ => Returned::Nothing,
        }
    }

    pub(crate) fn arrive(&mut self, mut sent: Box<Sent>) {
        let answers = self.etcd.answers(sent.member, self.now);
        let renews = matches!(sent.step, LeaseStep::Renew { .. });
        if answers == Answers::Not || (answers == Answers::Stale && !renews) {
            if !sent.stray {
                self.give_up(&sent);
            }
            // It was on its way through the consensus when the leader changed: it may be carried out after all.
            if !sent.stray && !renews && answers == Answers::Not && self.chance.percent(30) {
                let later = self.etcd.ready_at.saturating_sub(self.now) + self.chance.within(1, 500) * MS;
                self.at(later, Act::Arrive(Box::new(Sent { stray: true, ..*sent })));
            }
            return;
        }
        let origin = self.etcd.origin(sent.member, answers);
        if let LeaseStep::Renew { lease, .. } = sent.step {
            let late = self.lateness();
            let ttl = self.etcd.keep_alive(lease, answers, self.now, late);
            sent.kept = Some((ttl, origin, answers));
            // A member that stalls is slow in everything.
            let pause = if answers == Answers::Stale { self.chance.within(0, 700) * MS } else { self.rtt() };
            return self.at(pause, Act::Barrier(sent));
        }
        let event = self.carry_out(&sent, origin);
        self.stored_by(sent.knew);
        self.reply(&sent, event);
    }

    fn lateness(&mut self) -> u64 {
        let percent = if self.healed { 0 } else { 10 };
        let longest = if self.chance.percent(percent) { 3000 } else { 500 };
        self.chance.within(0, longest) * MS
    }

    fn carry_out(&mut self, sent: &Sent, origin: Origin) -> Event {
        let now = self.now;
        match sent.step.clone() {
            LeaseStep::Read(asked) => {
                let result = self.etcd.txn(&asked, origin, now);
                Event::Read { asked, result }
            }
            LeaseStep::Move { op, txn, .. } => {
                let result = self.etcd.txn(&txn, origin, now);
                if let Ok(reply) = result.as_ref().map_err(drop).and_then(|r| r.succeeded.then_some(r).ok_or(())) {
                    let revision = reply.revision;
                    self.fact(Fact::Did { id: sent.asked, revision });
                }
                Event::Moved { op, asked: txn, result }
            }
            LeaseStep::PutCandidate { instance, txn } => {
                let result = self.etcd.txn(&txn, origin, now);
                Event::CandidatePut { instance, asked: txn, result }
            }
            LeaseStep::PutRoster(asked) => {
                let result = self.etcd.txn(&asked, origin, now);
                Event::RosterPut { asked, result }
            }
            LeaseStep::Grant { instance, ttl } => {
                let less = self.weather.grants_less && !self.healed && self.chance.percent(60);
                let ttl = if less { ttl / 2 } else { ttl };
                let late = self.lateness();
                let full = now < self.etcd.full_until;
                let result = if full { Err(super::etcd::no_space()) } else { Ok(self.etcd.grant(ttl, now, late)) };
                Event::Granted { instance, result }
            }
            LeaseStep::Revoke { lease } => {
                self.end_lease(lease, Ending::Revoked);
                Event::Revoked { lease }
            }
            _ => Event::CutOff(String::new()),
        }
    }

    pub(crate) fn barrier(&mut self, sent: Box<Sent>) {
        let (LeaseStep::Renew { instance, barrier, expected, .. }, Some((ttl, keep_alive, _))) =
            (&sent.step, sent.kept)
        else {
            return;
        };
        let answers = self.etcd.answers(sent.member, self.now);
        let origin = self.etcd.origin(sent.member, answers);
        let result = match answers {
            Answers::Well => self.etcd.txn(barrier, origin, self.now).ok(),
            Answers::Stale if self.mistake.is(Slip::NoBarrier) => self.etcd.stale_read(barrier, origin),
            Answers::Stale | Answers::Not => None,
        };
        let Some(barrier_reply) = result else {
            if !sent.stray {
                self.give_up(&sent);
            }
            return;
        };
        let result = Ok(Renewal { ttl, keep_alive, barrier: barrier_reply });
        let (instance, expected, barrier) = (instance.clone(), expected.clone(), barrier.clone());
        let event = Event::Renewed { instance, sent: sent.sent, expected, barrier, result };
        self.reply(&sent, event);
    }

    fn reply(&mut self, sent: &Sent, event: Event) {
        let back = self.rtt();
        if sent.stray {
            return;
        }
        if self.lost() || self.hosts[sent.host].is_cut(sent.member, self.now) || self.now + back >= sent.deadline {
            if self.mistake.is(Slip::LateReply) {
                self.late_reply(sent, &event);
            }
            return self.give_up(sent);
        }
        self.answer_at(back, sent, event);
    }

    /// The stream stays open, and the reply that comes late is taken for the one to the next request.
    fn late_reply(&mut self, sent: &Sent, event: &Event) {
        if let Event::Renewed { instance, expected, barrier, result, .. } = event {
            let wait = sent.deadline.saturating_sub(self.now) + self.chance.within(100, 1500) * MS;
            let moment = self.hosts[sent.host].clock.boot(self.now + wait);
            let (instance, expected) = (instance.clone(), expected.clone());
            let (barrier, result) = (barrier.clone(), result.clone());
            let event = Event::Renewed { instance, sent: moment, expected, barrier, result };
            self.tell(wait, sent.host, sent.life, event);
        }
    }

    pub(crate) fn end_lease(&mut self, lease: LeaseId, ending: Ending) {
        self.etcd.end_lease(lease, ending);
        self.stored();
    }
}
