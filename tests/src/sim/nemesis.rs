//! Makes the weather's faults happen, and ends them.

use std::time::Duration;

use handover_agent::lease::event::Event;
use handover_agent::lease::state::Core;
use handover_agent::lease::suspect::Suspicion;

use super::etcd::Ending;
use super::fact::{Fact, Who};
use super::mistake::Slip;
use super::service::Wrong;
use super::slot::Wish;
use super::weather::{At, Fault};
use super::world::{Act, MS, World};

impl World {
    pub(crate) fn fault(&mut self, n: usize) {
        let Some((_, (at, fault))) = self.weather.faults.get(n).copied().filter(|_| !self.healed) else { return };
        let host = match at {
            At::Host(host) => host,
            At::Holder => self.present.map_or(0, |(who, _, _)| self.services[who].host),
        };
        self.fact(Fact::Nemesis(format!("{fault:?} on host {host}")));
        self.hosts[host].troubled = self.now;
        match fault {
            Fault::AgentCrash(ms) => self.crash_agent(host, ms),
            Fault::AgentPause(ms) => self.pause_agent(host, ms),
            Fault::Suspend(ms) => {
                self.freeze(host, ms, self.mistake.is(Slip::Monotonic));
                self.suspect(host, ms, Suspicion::Suspended(Duration::from_millis(ms)));
            }
            Fault::BlindPause(ms) => self.freeze(host, ms, true),
            Fault::Cut(ms) => self.cut(host, [true; 3], ms),
            Fault::HostLost => self.lose_host(host),
            Fault::SlowWatch(ms) => self.hosts[host].watch_behind_until = self.now + ms * MS,
            Fault::Alone(ms) => self.hosts[host].alone_until = self.now + ms * MS,
            Fault::DiskFails(ms) => self.hosts[host].disk_fails_until = self.now + ms * MS,
            Fault::WallStep(ms) => {
                self.hosts[host].wall_step_ms += ms;
                self.suspect(host, 0, Suspicion::Stepped(Duration::from_millis(ms.unsigned_abs())));
            }
            Fault::Loss(loss) => self.weather.loss = self.weather.loss.max(loss),
            other => self.process_fault(host, other),
        }
    }

    fn process_fault(&mut self, host: usize, fault: Fault) {
        let who = self.hosts[host].slots.iter().find_map(|slot| slot.who);
        match fault {
            Fault::ProcessDies { leaks } => {
                if let Some(who) = who {
                    self.services[who].leaks = leaks;
                    self.die(who, !leaks);
                }
            }
            Fault::Service(wrong) => self.go_wrong(who, wrong),
            Fault::Unready(ms) => {
                if let Some(who) = who.filter(|who| self.services[*who].alive) {
                    let slot = self.services[who].slot;
                    self.hosts[host].slots[slot].ready = false;
                    self.tell_wanted(host);
                    self.at(ms * MS, Act::Ready { who });
                }
            }
            Fault::Replace => self.replace(who),
            Fault::Second if self.weather.rollout => {}
            Fault::Second => {
                self.hosts[host].slots[1].wish = Some(Wish { version: "1.1.0", serving: false, eligible: true });
                self.settle(host);
            }
            other => self.order_fault(host, other),
        }
    }

    fn order_fault(&mut self, host: usize, fault: Fault) {
        match fault {
            Fault::Ask => drop(self.ask()),
            Fault::Snag => {
                self.hosts[host].late_move = true;
                if let Some(heir) = self.ask().filter(|heir| *heir != host) {
                    let (after, short) = (self.chance.within(2_050, 2_400), self.chance.within(1_000, 5_000));
                    self.soon(after, (At::Host(heir), Fault::Unready(short)));
                }
            }
            Fault::Swap => {
                if self.ask().is_some() {
                    let after = self.chance.within(20, 200);
                    self.soon(after, (At::Host(host), Fault::SlowWatch(2_500)));
                    self.soon(after + 2, (At::Host(host), Fault::CandidateDeleted));
                }
            }
            Fault::Rollout => self.begin_rollout(),
            Fault::Order(what) => self.order_rollout(what),
            Fault::CoordinatorAway(ms) => self.pause_coordinator(ms),
            store => self.store_fault(host, store),
        }
    }

    fn pause_agent(&mut self, host: usize, ms: u64) {
        self.hosts[host].agent_frozen_until = self.now + ms * MS;
        self.hosts[host].troubled = self.now + ms * MS;
        self.at(ms * MS, Act::Thaw { host });
        if ms > 500 {
            self.suspect(host, ms, Suspicion::Stalled(Duration::from_millis(ms)));
        }
    }

    fn store_fault(&mut self, host: usize, fault: Fault) {
        match fault {
            Fault::StallPinned(ms) => {
                let leader = self.etcd.leader;
                self.cut(host, [leader != 0, leader != 1, leader != 2], ms + 1500);
                self.stall(ms);
            }
            Fault::Stall(ms) => self.stall(ms),
            Fault::LeaderDies(ms) => {
                let election = self.chance.within(1_000, 2_000) * MS;
                self.etcd.depose(self.now, self.now + ms * MS, election, false);
            }
            Fault::StoreAway(ms) => {
                self.etcd.ready_at = self.etcd.ready_at.max(self.now + ms * MS);
            }
            Fault::Revoked => {
                if let Some((_, _, lease)) = self.present {
                    self.count("early revocations");
                    self.end_lease(lease, Ending::Revoked);
                }
            }
            Fault::CandidateDeleted => self.delete_candidate(),
            Fault::BackUp => self.etcd.back_up(),
            Fault::Restore => self.restore(),
            Fault::Freeze(ms) => {
                self.etcd.write(vec![(self.keys.freeze(), Some((b"{}".to_vec(), 0)))]);
                self.stored();
                self.soon(ms, (At::Host(host), Fault::Unfreeze));
            }
            Fault::Unfreeze => {
                self.etcd.write(vec![(self.keys.freeze(), None)]);
                self.stored();
            }
            Fault::Full(ms) => self.etcd.full_until = self.now + ms * MS,
            // What is not the store's has been dealt with.
            _ => {}
        }
    }

    fn stall(&mut self, ms: u64) {
        if self.etcd.deposed.is_none() {
            let election = self.chance.within(1_000, 2_000) * MS;
            self.etcd.depose(self.now, self.now + ms * MS, election, true);
            self.count("stalled leaders");
        }
    }

    fn crash_agent(&mut self, host: usize, ms: u64) {
        if self.hosts[host].core.is_some() {
            self.count("agent crashes");
            self.agent_down(host);
            self.at(ms * MS, Act::AgentUp { host });
        }
    }

    fn cut(&mut self, host: usize, members: [bool; 3], ms: u64) {
        let until = self.now + ms * MS;
        for (cut, member) in self.hosts[host].cut_until.iter_mut().zip(members) {
            *cut = if member { until.max(*cut) } else { *cut };
        }
        self.hosts[host].troubled = until;
        self.count("partitions");
    }

    fn freeze(&mut self, host: usize, ms: u64, hidden: bool) {
        if self.hosts[host].frozen_until > self.now {
            return;
        }
        let now = self.now;
        let state = &mut self.hosts[host];
        state.frozen_until = now + ms * MS;
        state.troubled = state.frozen_until;
        if hidden {
            state.clock.stand(true, now);
        }
        let working: Vec<Who> = (0..self.services.len())
            .filter(|who| self.services[*who].host == host && self.services[*who].unit.is_some())
            .collect();
        for who in working {
            self.fact(Fact::Froze { who });
        }
        self.count("pauses");
        self.at(ms * MS, Act::Thaw { host });
    }

    pub(crate) fn thaw(&mut self, host: usize) {
        let now = self.now;
        if self.hosts[host].frozen_until <= now {
            self.hosts[host].clock.stand(false, now);
        }
        for act in std::mem::take(&mut self.hosts[host].deferred) {
            self.at(0, act);
        }
    }

    /// The agent's tick finds, at its next look, that the host may have been away.
    fn suspect(&mut self, host: usize, after_ms: u64, what: Suspicion) {
        let look = (after_ms + self.chance.within(0, 51)) * MS;
        self.at(look, Act::Suspect { host, what });
    }

    pub(crate) fn suspected(&mut self, host: usize, what: Suspicion) {
        let (life, at) = (self.hosts[host].life, self.hosts[host].clock.boot(self.now));
        let watches = self.hosts[host].core.as_ref().is_some_and(Core::has_much_to_lose);
        if watches && !self.mistake.is(Slip::Monotonic) {
            self.count("suspicions");
            self.hear(host, life, Event::Suspected { what, at });
        }
    }

    fn lose_host(&mut self, host: usize) {
        if self.hosts.iter().any(|host| host.lost) {
            return;
        }
        self.hosts[host].lost = true;
        if self.hosts[host].core.is_some() {
            self.agent_down(host);
        }
        for slot in 0..2 {
            if let Some(who) = self.hosts[host].slots[slot].who.take() {
                self.services[who].alive = false;
                self.processes_end(who);
            }
        }
        // Another boot, and another clock.
        self.hosts[host].disk = None;
    }

    fn go_wrong(&mut self, who: Option<Who>, wrong: Wrong) {
        let Some(who) = who.filter(|who| self.services[*who].alive) else { return };
        // A unit that is under way would end by itself; the next one will not.
        self.services[who].wrong = Some(wrong);
        self.services[who].liar |= wrong == Wrong::Lies;
        self.count("services that go wrong");
    }

    fn replace(&mut self, who: Option<Who>) {
        if let Some(who) = who.filter(|who| self.services[*who].alive) {
            let (host, slot) = (self.services[who].host, self.services[who].slot);
            self.hosts[host].slots[slot].give_up = true;
            self.count("replaced");
            self.tell_wanted(host);
        }
    }

    /// So many milliseconds from now.
    fn soon(&mut self, after: u64, fault: (At, Fault)) {
        let n = self.weather.faults.len();
        self.weather.faults.push((self.now + after * MS, fault));
        self.at(after * MS, Act::Fault { n });
    }

    /// From here on nothing fails any more.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
        self.fact(Fact::Nemesis("everything heals".to_owned()));
        self.etcd.full_until = 0;
        self.etcd.lead_from(self.now);
        self.etcd.down_until = [0; 3];
        if let Some(deposed) = self.etcd.deposed.as_mut() {
            deposed.until = self.now;
        }
        self.etcd.write(vec![(self.keys.intent(), None), (self.keys.freeze(), None)]);
        self.stored();
        for host in 0..self.hosts.len() {
            let state = &mut self.hosts[host];
            (state.lost, state.disk_fails_until, state.cut_until) = (false, 0, [0; 3]);
            state.alone_until = 0;
            (state.frozen_until, state.agent_frozen_until) = (0, 0);
            self.thaw(host);
            for slot in 0..2 {
                if let Some(who) = self.hosts[host].slots[slot].who.filter(|who| self.services[*who].alive) {
                    self.hosts[host].slots[slot].ready = true;
                    self.mend(who);
                }
            }
            if self.hosts[host].core.is_none() {
                self.at(0, Act::AgentUp { host });
            }
            self.tell_wanted(host);
            self.settle(host);
        }
        // Work that began while services were still being mended says nothing of what comes after.
        self.works_since = None;
        let within_us = self.weather.recovers_us();
        self.fact(Fact::Healed { within_us });
    }

    /// A service that went wrong is restarted by its operator, if nobody has killed it yet.
    fn mend(&mut self, who: Who) {
        if self.services[who].wrong.is_some() {
            self.die(who, true);
        }
    }

    /// Everything is quiet: what is left that nobody needs?
    pub(crate) fn look_for_leaks(&mut self) {
        if !self.weather.to_the_end || self.now < self.weather.end_at {
            return;
        }
        let running = self.hosts.iter().flat_map(|host| &host.slots).filter(|slot| slot.who.is_some()).count();
        if self.etcd.leases.len() > running {
            let what = format!("{} etcd leases for {running} instances", self.etcd.leases.len());
            self.fact(Fact::Left { what });
        }
        let view = self.view();
        if view.candidates.len() > running {
            let what = format!("{} candidate keys for {running} instances", view.candidates.len());
            self.fact(Fact::Left { what });
        }
        if let Some(intent) = view.intent.filter(|_| !self.weather.rollout) {
            self.fact(Fact::Left { what: format!("intent {}", intent.value.op) });
        }
    }
}
