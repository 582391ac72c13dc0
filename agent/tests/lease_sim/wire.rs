//! The way between keeper, store and services: what is sent, what arrives, and what gets lost.

use std::time::Duration;

use handover_agent::lease::clock::ClockIdentity;
use handover_agent::lease::deadline::Boot;
use handover_agent::lease::event::Event;
use handover_agent::lease::record::{Ack, LeaseRecord};
use handover_agent::lease::step::LeaseStep;
use handover_agent::lease::versions::Survey;
use handover_proto::ids::InstanceId;
use handover_store::client::{Renewal, StoreError};

use super::host::Act;
use super::{MS, SECOND, World};

fn unknown() -> StoreError {
    StoreError::Unknown { operation: "it".to_owned(), endpoint: "sim".to_owned(), reason: "lost".to_owned() }
}

impl World {
    pub(crate) fn start(&mut self, host: usize, step: LeaseStep, sent: Boot) {
        let life = self.hosts[host].life;
        match step {
            LeaseStep::Tell { instance, record, limit } => {
                let clock = ClockIdentity { boot_id: "boot".to_owned(), time_ns: String::new() };
                let record = record.record(&instance, &clock, sent);
                let until = self.now + limit.as_micros() as u64;
                let delay = self.random.within(0, 5 * MS);
                self.at(delay, Act::Call { host, life, id: instance, record, until });
            }
            LeaseStep::Order { instance, .. } => {
                // It may ask by itself at any moment.
                let clock = ClockIdentity { boot_id: "boot".to_owned(), time_ns: String::new() };
                let board = self.hosts[host].core.as_ref().expect("it runs").board();
                if let Some((_, published)) = board.get(&instance).filter(|_| self.random.once_in(2)) {
                    let record = published.record(&instance, &clock, sent);
                    self.told(&instance, &record);
                }
            }
            LeaseStep::Kill { instance } => {
                self.counts.add("kills");
                let delay = (self.settings.c_kill.as_micros() as f64 / self.hosts[host].rate) as u64;
                let delay = self.random.within(0, delay);
                self.at(delay, Act::Die { id: instance });
            }
            LeaseStep::Save(memory) => {
                let fails = self.lost();
                let result = if fails { Err("full".to_owned()) } else { Ok(()) };
                if !fails {
                    self.hosts[host].disk = Some(memory.clone());
                }
                let event = Box::new(Event::Saved { memory, result });
                let delay = self.random.within(0, 10 * MS);
                self.at(delay, Act::Hear { host, life, event });
            }
            LeaseStep::Read(_)
            | LeaseStep::Move { .. }
            | LeaseStep::Renew { .. }
            | LeaseStep::Grant { .. }
            | LeaseStep::PutCandidate { .. }
            | LeaseStep::PutRoster(_)
            | LeaseStep::Survey
            | LeaseStep::AskCertificate { .. }
            | LeaseStep::Relist
            | LeaseStep::Revoke { .. } => self.send(host, step, sent),
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

    fn send(&mut self, host: usize, step: LeaseStep, sent: Boot) {
        let life = self.hosts[host].life;
        let limit = match &step {
            LeaseStep::Renew { expected, .. } => expected.limit,
            _ => Duration::from_secs(2),
        };
        let deadline = self.now + limit.as_micros() as u64;
        let stray = self.weather.stray > 0 && self.random.once_in(self.weather.stray);
        let delay = if stray { self.random.within(0, 8 * SECOND) } else { self.random.within(100, 10 * MS) };
        let cut = self.now < self.hosts[host].cut_until || self.now < self.store_back;
        if cut || self.lost() {
            self.give_up(host, life, step, sent, deadline);
            return;
        }
        if delay + self.now >= deadline {
            // The sender gives up on it, and it arrives nevertheless.
            self.counts.add("strays");
            self.give_up(host, life, step.clone(), sent, deadline);
            self.at(delay, Act::Arrive { host, life: u32::MAX, step: Box::new(step), sent, deadline: 0 });
            return;
        }
        self.at(delay, Act::Arrive { host, life, step: Box::new(step), sent, deadline });
    }

    fn give_up(&mut self, host: usize, life: u32, step: LeaseStep, sent: Boot, deadline: u64) {
        let event = match step {
            LeaseStep::Read(asked) => Event::Read { asked, result: Err(unknown()) },
            LeaseStep::Move { op, txn, .. } => Event::Moved { op, asked: txn, result: Err(unknown()) },
            LeaseStep::Renew { instance, barrier, expected, .. } => {
                Event::Renewed { instance, sent, expected, barrier, result: Err(unknown()) }
            }
            LeaseStep::Grant { instance, .. } => Event::Granted { instance, result: Err(unknown()) },
            LeaseStep::PutCandidate { instance, txn } => {
                Event::CandidatePut { instance, asked: txn, result: Err(unknown()) }
            }
            LeaseStep::PutRoster(asked) => Event::RosterPut { asked, result: Err(unknown()) },
            LeaseStep::Survey => Event::Surveyed(Survey::default()),
            LeaseStep::AskCertificate { token, .. } => Event::Certified { token, result: Err("no route".to_owned()) },
            LeaseStep::Relist => Event::CutOff("no answer".to_owned()),
            LeaseStep::Revoke { lease } => Event::Revoked { lease },
            other => panic!("{} is not for the store", other.name()),
        };
        self.at(deadline - self.now, Act::Hear { host, life, event: Box::new(event) });
    }

    pub(crate) fn arrive(&mut self, host: usize, life: u32, step: LeaseStep, sent: Boot, deadline: u64) {
        let now = self.now;
        let end = |world: &mut Self, ttl: Duration| {
            let late = world.random.within(0, 500);
            now / MS + (ttl.as_millis() as f64 / world.store_rate) as u64 + late
        };
        let again = step.clone();
        let event = match step {
            LeaseStep::Read(asked) => {
                let result = self.store.txn(&asked);
                Event::Read { asked, result }
            }
            LeaseStep::Move { op, txn, .. } => {
                let result = self.store.txn(&txn);
                Event::Moved { op, asked: txn, result }
            }
            LeaseStep::PutCandidate { instance, txn } => {
                let result = self.store.txn(&txn);
                Event::CandidatePut { instance, asked: txn, result }
            }
            LeaseStep::PutRoster(asked) => {
                let result = self.store.txn(&asked);
                Event::RosterPut { asked, result }
            }
            LeaseStep::Survey => Event::Surveyed(Survey::default()),
            LeaseStep::AskCertificate { token, .. } => Event::Certified { token, result: Err("no route".to_owned()) },
            LeaseStep::Relist => Event::Listed(self.store.listing()),
            LeaseStep::Renew { instance, lease, barrier, expected, .. } => {
                let end = end(self, self.settings.ttl);
                let ttl = self.store.keep_alive(lease, end);
                let origin = self.store.origin();
                let result = self.store.txn(&barrier).map(|barrier| Renewal { ttl, keep_alive: origin, barrier });
                Event::Renewed { instance, sent, expected, barrier, result }
            }
            LeaseStep::Grant { instance, ttl } => {
                let end = end(self, ttl);
                Event::Granted { instance, result: Ok(self.store.grant(ttl, end)) }
            }
            LeaseStep::Revoke { lease } => {
                self.store.revoke(lease);
                Event::Revoked { lease }
            }
            other => panic!("{} is not for the store", other.name()),
        };
        self.pump_all();
        let back = self.random.within(100, 10 * MS);
        if life == u32::MAX {
            return;
        }
        if self.lost() || now + back >= deadline {
            self.give_up(host, life, again, sent, deadline.max(now));
        } else {
            self.at(back, Act::Hear { host, life, event: Box::new(event) });
        }
    }

    pub(crate) fn pump_all(&mut self) {
        for host in 0..self.hosts.len() {
            let lag = if self.random.once_in(15) {
                self.random.within(0, 3 * SECOND)
            } else {
                self.random.within(100, 10 * MS)
            };
            let lag = if self.hosts[host].calm { lag.min(10 * MS) } else { lag };
            self.at(lag, Act::Pump { host });
        }
    }

    pub(crate) fn pump(&mut self, host: usize) {
        let (life, cursor) = (self.hosts[host].life, self.hosts[host].cursor);
        if self.now < self.hosts[host].cut_until || self.now < self.store_back {
            self.at(200 * MS, Act::Pump { host });
            return;
        }
        self.hosts[host].cursor = self.store.log.len();
        if cursor == usize::MAX {
            let listing = self.store.listing();
            return self.hear(host, life, Event::Listed(listing));
        }
        let news = self.store.log[cursor..].to_vec();
        for (revision, changes) in news {
            self.hear(host, life, Event::Changed { revision, changes });
        }
    }

    pub(crate) fn call(&mut self, host: usize, life: u32, id: InstanceId, record: LeaseRecord, until: u64) {
        if record.seq > 0 {
            self.told(&id, &record);
        }
        let lost = self.lost();
        let ack: Option<Ack> = self.ack(&id, &record).filter(|_| !lost);
        let seq = record.seq;
        match ack {
            Some(ack) => {
                let event = Box::new(Event::Answered { instance: id, seq, result: Ok(ack) });
                let back = self.random.within(0, 5 * MS);
                self.at(back, Act::Hear { host, life, event });
            }
            None if self.now >= until || lost => {
                let event = Box::new(Event::Answered { instance: id, seq, result: Err("late".to_owned()) });
                self.at(until.saturating_sub(self.now), Act::Hear { host, life, event });
            }
            // It answers when its unit has ended.
            None => self.at(5 * MS, Act::Call { host, life, id, record, until }),
        }
    }
}
