//! What the store's changes mean: facts for the checkers, and news for the agents, each with a lag of its own.

use handover_agent::lease::event::Event;
use handover_proto::lease::{Candidate, Holder, HolderState, LeaseCause};
use handover_proto::numbers::Token as Minted;
use handover_proto::stored::decode;
use handover_proto::txn::Revision;
use handover_store::client::Entry;
use std::time::Duration;

use super::fact::{Fact, Kind, Turn};
use super::world::{Act, MS, SECOND, World};

impl World {
    /// Tells of everything that has changed in the store since the last time; whoever changed it knew all.
    pub(crate) fn stored(&mut self) {
        self.stored_by(Revision::MAX);
    }

    /// The same, of a change by an agent that knew of no newer turn than this one.
    pub(crate) fn stored_by(&mut self, knew: Revision) {
        if self.read_log == self.etcd.log.len() {
            return;
        }
        let news = self.etcd.log[self.read_log..].to_vec();
        self.read_log = self.etcd.log.len();
        let (holder, beat) = (self.keys.holder(), self.keys.beat());
        for (revision, changes) in news {
            let turned = changes.iter().find(|change| change.key == holder).and_then(|change| change.value.as_ref());
            let lost = changes.iter().any(|change| change.key == beat && change.value.is_none());
            match turned {
                Some(entry) => self.turned(entry, knew),
                None if lost => self.fact(Fact::BeatLost { revision }),
                None => {}
            }
        }
        for host in 0..self.hosts.len() {
            let slow = !self.healed && self.chance.percent(6);
            let lag = if slow { self.chance.within(0, 3 * SECOND) } else { self.chance.within(100, 10 * MS) };
            self.pump_soon(host, lag);
        }
    }

    fn turned(&mut self, entry: &Entry, knew: Revision) {
        let Ok(holder) = decode::<Holder>(&entry.key, &entry.value) else {
            return self.broken("turns", "the holder key cannot be read".to_owned());
        };
        let kind = match &holder.cause {
            LeaseCause::Acquire => Kind::Acquire,
            LeaseCause::TakeOver => Kind::TakeOver,
            LeaseCause::HandOver { .. } => Kind::HandOver,
            LeaseCause::Release => Kind::Release,
            LeaseCause::Renewed => Kind::Mint,
            LeaseCause::BreakGlass(_) | LeaseCause::Other => Kind::Operator,
        };
        self.count(match kind {
            Kind::Acquire => "T1",
            Kind::TakeOver => "T2",
            Kind::HandOver => "T3",
            Kind::Release => "T4",
            Kind::Mint => "T5",
            Kind::Operator => "T6",
        });
        let token = Minted::new(holder.era, entry.mod_revision).map_or(0, Minted::get);
        let who = self.ids.get(&holder.owner().instance).copied();
        let beat = self.etcd.keys.get(&self.keys.beat());
        let lease = beat.map_or(0, |beat| beat.lease);
        let held = matches!(holder.state, HolderState::Held(_));
        let candidate = self.etcd.keys.get(&self.keys.candidate(&holder.owner().instance));
        let host = who.map_or(0, |who| self.services[who].host);
        let turn = Turn {
            revision: entry.mod_revision,
            token,
            kind,
            holder: who.filter(|_| held),
            host,
            beat: beat.map(|beat| (self.beats(beat), beat.mod_revision, beat.lease)),
            candidate: candidate.filter(|entry| decode::<Candidate>(&entry.key, &entry.value).is_ok()).map(|e| e.lease),
            quarantine_us: self.quarantine_us(host),
            knew,
        };
        self.present = turn.holder.map(|who| (who, token, lease));
        self.turn_leases.insert(token, lease);
        self.fact(Fact::Turned(turn));
    }

    fn beats(&self, beat: &Entry) -> Option<usize> {
        let value: handover_proto::lease::Beat = decode(&beat.key, &beat.value).ok()?;
        self.ids.get(&value.instance).copied()
    }

    /// What the taker of the present turn has to wait by its own clock, in true time.
    fn quarantine_us(&self, host: usize) -> u64 {
        if self.present.is_some_and(|(_, token, _)| self.certified.contains(&token)) {
            return 0;
        }
        let wait = match self.weather.habits.trusted {
            true => Duration::from_secs(1),
            false => self.settings.quarantine_of(self.settings.ttl),
        };
        (wait.as_micros() as f64 / self.hosts[host].clock.rate) as u64
    }

    pub(crate) fn pump_soon(&mut self, host: usize, lag: u64) {
        let at = self.now + lag;
        let state = &mut self.hosts[host];
        if state.pump_at <= self.now || at < state.pump_at {
            state.pump_at = at;
            self.at(lag, Act::Pump { host });
        }
    }

    pub(crate) fn pump(&mut self, host: usize) {
        let member = self.hosts[host].member;
        let behind = self.hosts[host].watch_behind_until;
        if behind > self.now {
            return self.pump_soon(host, behind - self.now);
        }
        let silent = self.etcd.answers(member, self.now) != super::etcd::Answers::Well;
        if self.hosts[host].is_cut(member, self.now) || silent {
            // The watch moves on to another member when this one is silent.
            if self.chance.percent(30) {
                self.hosts[host].member = (member + 1) % 3;
            }
            return self.pump_soon(host, 300 * MS);
        }
        let life = self.hosts[host].life;
        let end = self.etcd.log.len();
        match self.hosts[host].cursor.replace(end) {
            None => {
                let listing = self.etcd.listing();
                self.hear(host, life, Event::Listed(listing));
            }
            Some(from) => {
                // Hearing changes the world, so the log's part is taken out first.
                let news: Vec<_> = self.etcd.log[from..end].to_vec();
                for (revision, changes) in news {
                    self.hear(host, life, Event::Changed { revision, changes: changes.to_vec() });
                }
            }
        }
    }

    /// Every 100 ms: leases whose time is over, and a leader that wakes up.
    pub(crate) fn tick(&mut self) {
        self.at(100 * MS, Act::Tick);
        for lease in self.etcd.wake_deposed(self.now) {
            self.count("early revocations");
            self.end_lease(lease, super::etcd::Ending::Revoked);
        }
        for lease in self.etcd.expired(self.now) {
            self.count("expired leases");
            let end = self.etcd.leases.get(&lease).map_or(self.now, |lease| lease.end);
            self.end_lease(lease, super::etcd::Ending::Expired(end));
        }
    }
}
