//! A service that keeps its obligations A1 to A8 (`SAFETY.md` §1.10), except for the faults that it is given.

use handover_agent::lease::event::Event;
use handover_agent::lease::record::{Ack, AckState, LeaseRecord, Told};
use handover_agent::lease::state::Core;
use handover_proto::ids::InstanceId;

use super::database::Install;
use super::etcd::Ending;
use super::fact::{Fact, Stands, Token, Who};
use super::mistake::Slip;
use super::world::{Act, MS, World};

/// What a service does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It does not acknowledge a stop, and its unit never ends.
    Ignores,
    /// It acknowledges a stop at once and goes on with its unit.
    Lies,
    /// It answers nothing and its unit never ends.
    Hangs,
}

pub(crate) struct Service {
    pub(crate) host: usize,
    pub(crate) slot: usize,
    pub(crate) id: InstanceId,
    pub(crate) version: &'static str,
    pub(crate) alive: bool,
    pub(crate) wrong: Option<Wrong>,
    /// It went wrong as a liar once: what it said then still counts with those who believed it.
    pub(crate) liar: bool,
    /// Its children outlive it for a while.
    pub(crate) leaks: bool,
    /// Until when it may begin units, on its host's clock; 0: not at all.
    soft_ns: u64,
    seq: u64,
    token: Option<Token>,
    installed: Option<Token>,
    /// The unit under way.
    pub(crate) unit: Option<u64>,
    units: u64,
    /// Calls that wait for the end of a unit or of an install.
    calls: Vec<(u32, LeaseRecord)>,
}

impl Service {
    pub(crate) fn new(host: usize, slot: usize, id: InstanceId, version: &'static str) -> Self {
        Self {
            host,
            slot,
            id,
            version,
            alive: true,
            wrong: None,
            liar: false,
            leaks: false,
            soft_ns: 0,
            seq: 0,
            token: None,
            installed: None,
            unit: None,
            units: 0,
            calls: Vec::new(),
        }
    }
}

impl World {
    /// A call reaches the service.
    pub(crate) fn called(&mut self, life: u32, who: Who, record: LeaseRecord, until: u64) {
        if !self.services[who].alive {
            let (host, instance) = (self.services[who].host, self.services[who].id.clone());
            let event = Event::Answered { instance, seq: record.seq, result: Err("refused".to_owned()) };
            return self.tell(MS, host, life, event);
        }
        self.told(who, &record);
        let seq = record.seq;
        self.services[who].calls.push((life, record));
        self.answer(who);
        if self.services[who].calls.iter().any(|(_, record)| record.seq == seq) {
            let left = until.saturating_sub(self.now).max(1);
            self.at(left, Act::Hangup { who, seq });
        }
    }

    pub(crate) fn hang_up(&mut self, who: Who, seq: u64) {
        let (host, instance) = (self.services[who].host, self.services[who].id.clone());
        let calls = std::mem::take(&mut self.services[who].calls);
        let (over, left) = calls.into_iter().partition(|(_, record)| record.seq == seq);
        self.services[who].calls = left;
        for (life, record) in over as Vec<(u32, LeaseRecord)> {
            let event = Event::Answered { instance: instance.clone(), seq: record.seq, result: Err("late".to_owned()) };
            self.tell(0, host, life, event);
        }
    }

    /// The service takes in a record, by call or by its own question.
    pub(crate) fn told(&mut self, who: Who, record: &LeaseRecord) {
        let service = &mut self.services[who];
        if !service.alive || record.seq < service.seq || service.wrong == Some(Wrong::Hangs) {
            return;
        }
        service.seq = record.seq;
        match record.state {
            Told::Active => {
                service.soft_ns = record.soft_deadline_boot_ns;
                service.token = record.token.as_deref().and_then(|token| token.parse().ok());
                self.deadline_told(who, record.hard_deadline_boot_ns);
                self.install(who);
                self.unit(who);
            }
            Told::Quiesce | Told::Stopped | Told::Fenced => service.soft_ns = 0,
            Told::Unknown => {}
        }
    }

    fn deadline_told(&mut self, who: Who, hard_ns: u64) {
        let Some(token) = self.services[who].token else { return };
        let clock = &self.hosts[self.services[who].host].clock;
        // Its processes are gone so long after the hard deadline at the latest.
        let gone_ns = hard_ns + self.settings.c_kill.as_nanos() as u64;
        let hard_us = self.now + clock.until(gone_ns, self.now);
        let lease = self.turn_leases.get(&token).copied().unwrap_or_default();
        let stands = match (self.etcd.leases.get(&lease), self.etcd.ended.get(&lease)) {
            (Some(lease), _) => Stands::Until(lease.end),
            (None, Some(Ending::Expired(at))) => Stands::Expired(*at),
            (None, _) => Stands::Revoked,
        };
        // A record that comes when its deadline is over, as after a suspend, allows nothing.
        if self.weather.two_at_once() || hard_us == self.now {
            return;
        }
        self.fact(Fact::Told { who, token, hard_us, stands });
    }

    fn install(&mut self, who: Who) {
        let service = &self.services[who];
        let Some(token) = service.token.filter(|token| service.installed != Some(*token)) else { return };
        if self.mistake.is(Slip::StartBeforeInstall) && !self.database.is_open(who) && service.units == 0 {
            return;
        }
        let mut facts = Vec::new();
        if self.database.install(who, token, &mut facts) == Install::Done {
            self.services[who].installed = Some(token);
        }
        facts.into_iter().for_each(|fact| self.fact(fact));
    }

    /// A1: a unit begins only with the right to it, checked immediately before. A2: it ends in time.
    pub(crate) fn unit(&mut self, who: Who) {
        let early = self.mistake.is(Slip::StartBeforeInstall);
        let service = &self.services[who];
        if !service.alive || service.unit.is_some() || service.wrong == Some(Wrong::Hangs) {
            return;
        }
        let clock = &self.hosts[service.host].clock;
        let Some(token) = service.token.filter(|token| service.installed == Some(*token) || early) else { return };
        if clock.ns(self.now) >= service.soft_ns {
            return;
        }
        // Time alone has to keep two apart, so the unit counts from before the database has its say.
        let knew = self.hosts[self.services[who].host].core.as_ref().map_or(0, Core::last_turn);
        self.fact(Fact::Began { who, token, knew });
        if !self.database.begin(who, token) {
            // Fenced: nothing under this token any more; a lost install would be repaired by the next record.
            self.services[who].installed = None;
            return self.fact(Fact::Ended { who });
        }
        let clock = &self.hosts[self.services[who].host].clock;
        let longest = (self.settings.c_unit.as_micros() as f64 / clock.rate) as u64;
        let length = self.chance.within(longest / 3, longest);
        let service = &mut self.services[who];
        service.units += 1;
        service.unit = Some(service.units);
        let (n, endless) = (service.units, service.wrong == Some(Wrong::Ignores));
        self.count("units");
        if self.healed && self.works_since.is_none() {
            self.works_since = Some(self.now);
        }
        if !endless {
            self.at(length, Act::UnitEnd { who, n });
            self.at(longest + longest / 4, Act::Timeout { who, n });
        }
    }

    pub(crate) fn unit_end(&mut self, who: Who, n: u64) {
        let service = &mut self.services[who];
        if service.unit != Some(n) || !service.alive {
            return;
        }
        service.unit = None;
        self.fact(Fact::Ended { who });
        self.end_transaction(who, true);
        self.install(who);
        self.answer(who);
        self.unit(who);
    }

    /// `transaction_timeout`: the database ends what takes longer than a unit may.
    pub(crate) fn timeout(&mut self, who: Who, n: u64) {
        if self.services[who].unit == Some(n) {
            self.end_transaction(who, false);
        }
    }

    pub(crate) fn end_transaction(&mut self, who: Who, commits: bool) {
        let mut facts = Vec::new();
        let installed = self.database.end(who, commits, &mut facts);
        facts.into_iter().for_each(|fact| self.fact(fact));
        for who in installed {
            self.services[who].installed = self.database.stored();
            self.answer(who);
            self.unit(who);
        }
    }

    /// Its last process is gone: what it had sent last may still be carried out.
    pub(crate) fn processes_end(&mut self, who: Who) {
        if self.services[who].unit.take().is_some() {
            self.fact(Fact::Ended { who });
        }
        self.database.forget(who);
        if self.database.is_open(who) && self.chance.percent(30) {
            let late = self.chance.within(0, 900) * MS;
            self.at(late, Act::LateCommit { who });
        } else {
            self.end_transaction(who, false);
        }
    }

    /// Answers the calls that can be answered now. A stop is acknowledged when the unit has ended (A4).
    pub(crate) fn answer(&mut self, who: Who) {
        if !self.services[who].alive || self.services[who].wrong == Some(Wrong::Hangs) {
            return;
        }
        let (host, calls) = (self.services[who].host, std::mem::take(&mut self.services[who].calls));
        for (life, record) in calls {
            let Some(ack) = self.ack(who, &record) else {
                self.services[who].calls.push((life, record));
                continue;
            };
            let (instance, seq) = (self.services[who].id.clone(), record.seq);
            let lost = self.lost();
            let result = if lost { Err("lost".to_owned()) } else { Ok(ack) };
            let event = Event::Answered { instance, seq, result };
            let back = self.chance.within(0, if lost { 100 } else { 5 } * MS);
            self.tell(back, host, life, event);
        }
    }

    fn ack(&self, who: Who, record: &LeaseRecord) -> Option<Ack> {
        let service = &self.services[who];
        let active = record.state == Told::Active;
        let token: Option<Token> = record.token.as_deref().and_then(|token| token.parse().ok());
        let over = self.database.stored() > token && active;
        let state = match (record.seq < service.seq, active) {
            (true, _) => AckState::Failed,
            (false, true) if over => AckState::Failed,
            (false, true) if service.installed == token || self.mistake.is(Slip::StartBeforeInstall) => {
                AckState::Started
            }
            (false, true) => return None,
            (false, false) if service.wrong == Some(Wrong::Lies) => AckState::Quiesced,
            (false, false) if service.wrong == Some(Wrong::Ignores) || service.unit.is_some() => return None,
            (false, false) => AckState::Quiesced,
        };
        let stored_token = self.database.stored().map(|token| token.to_string());
        let (in_flight, progress) = (u64::from(service.unit.is_some()), Some(service.units));
        Some(Ack { stored_token, in_flight, progress, ..Ack::new(record.token.clone(), record.seq, state) })
    }
}
