//! The agent's main loop, as far as the lease sees it: what is to run in each slot, what does, and how it ends.

use handover_agent::lease::wanted::{Life, LocalInstance, Wanted};
use handover_proto::ids::{InstanceId, SlotId};
use handover_proto::lease::Owner;

use super::fact::Who;
use super::mistake::Slip;
use super::service::Service;
use super::world::{Act, MS, World};

/// What is wanted of a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) version: &'static str,
    pub(crate) serving: bool,
    pub(crate) eligible: bool,
}

/// What the main loop knows of an instance whose main process has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// No process is left of it.
    Proved,
    /// None was found, but one may have left its descent.
    Unproved,
    /// Some are left.
    Lingers,
}

/// A slot of a host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slot {
    pub(crate) wish: Option<Wish>,
    pub(crate) who: Option<Who>,
    pub(crate) ready: bool,
    /// The process has ended, and children of it linger.
    pub(crate) lingers: bool,
    /// It is to be stopped, whatever is wished.
    pub(crate) give_up: bool,
    pub(crate) crashes: u32,
    starting: bool,
}

impl Slot {
    pub(crate) fn serving() -> Self {
        Self { wish: Some(Wish { version: "1.0.0", serving: true, eligible: true }), ..Self::default() }
    }

    fn life(&self) -> Life {
        match (self.lingers, self.give_up) {
            (true, _) => Life::Dead { proven: false },
            (false, true) => Life::GiveUp,
            (false, false) => Life::Running,
        }
    }

    /// Whether its instance is on its way out.
    pub(crate) fn leaves(&self) -> bool {
        self.lingers || self.give_up
    }
}

impl World {
    /// Brings the slots of a host nearer to what is wanted.
    pub(crate) fn settle(&mut self, host: usize) {
        for slot in 0..2 {
            let state = &self.hosts[host].slots[slot];
            let runs = state.who.map(|who| self.services[who].version);
            let wanted = state.wish.as_ref().map(|wish| wish.version);
            match (runs, wanted) {
                (None, Some(_)) if !state.starting && !self.hosts[host].lost => {
                    self.hosts[host].slots[slot].starting = true;
                    let after = self.chance.within(50, 400) * MS;
                    self.at(after, Act::Launch { host, slot });
                }
                (Some(runs), wanted) if wanted != Some(runs) && !state.give_up => {
                    self.hosts[host].slots[slot].give_up = true;
                    self.tell_wanted(host);
                }
                _ => {}
            }
        }
    }

    pub(crate) fn launch(&mut self, host: usize, slot: usize) {
        self.hosts[host].slots[slot].starting = false;
        let state = &self.hosts[host];
        let Some(wish) = state.slots[slot].wish.clone() else { return };
        if state.slots[slot].who.is_some() || state.lost {
            return;
        }
        let Ok(id) = self.chance.hex().parse::<InstanceId>() else { return };
        let who = self.services.len();
        self.ids.insert(id.clone(), who);
        self.services.push(Service::new(host, slot, id, wish.version));
        let state = &mut self.hosts[host].slots[slot];
        *state = Slot { wish: Some(wish), who: Some(who), crashes: state.crashes, ..Slot::default() };
        self.tell_wanted(host);
        let after = self.chance.within(5, 300) * MS;
        self.at(after, Act::Ready { who });
    }

    pub(crate) fn ready(&mut self, who: Who) {
        let (host, slot) = (self.services[who].host, self.services[who].slot);
        if self.services[who].alive && self.hosts[host].slots[slot].who == Some(who) {
            self.hosts[host].slots[slot].ready = true;
            self.tell_wanted(host);
        }
    }

    /// Whether the host has an instance that could take a free lease.
    pub(crate) fn could_take(&self, host: usize) -> bool {
        let able = |slot: &Slot| slot.ready && !slot.leaves() && slot.wish.as_ref().is_some_and(|wish| wish.eligible);
        self.hosts[host].slots.iter().any(|slot| slot.who.is_some() && able(slot))
    }

    pub(crate) fn wanted(&self, host: usize) -> Wanted {
        let names = ["a", "b"];
        let local = |who: Who, state: &Slot, life: Life| {
            let service = &self.services[who];
            let wish = state.wish.as_ref().filter(|_| !state.give_up);
            let owner = Owner {
                instance: service.id.clone(),
                agent: format!("app-{host}").parse().ok()?,
                host: format!("app-{host}"),
                boot_id: "boot".to_owned(),
                version: service.version.parse().ok()?,
            };
            let local = LocalInstance {
                owner,
                slot: names[service.slot].parse::<SlotId>().ok()?,
                app: ([127, 0, 0, 1], 1).into(),
                eligible: wish.is_some_and(|wish| wish.eligible),
                ready: state.ready,
                serving: state.ready && wish.is_some_and(|wish| wish.serving),
                rank: u32::from(!(state.ready && wish.is_some_and(|wish| wish.serving))),
                life,
            };
            Some((service.id.clone(), local))
        };
        let state = &self.hosts[host];
        let gone = Slot::default();
        let departed =
            state.departed.iter().filter_map(|(who, proven)| local(*who, &gone, Life::Dead { proven: *proven }));
        let running = state.slots.iter().filter_map(|slot| local(slot.who?, slot, slot.life()));
        Wanted { instances: departed.chain(running).collect() }
    }

    /// The main loop learns how an instance has ended. Its slot is free, unless it lingers.
    pub(crate) fn report(&mut self, who: Who, end: End) {
        let (host, slot) = (self.services[who].host, self.services[who].slot);
        let state = &mut self.hosts[host].slots[slot];
        if state.who != Some(who) {
            return;
        }
        if !state.lingers {
            state.crashes += 1;
        }
        state.lingers = end == End::Lingers;
        if !state.lingers {
            *state = Slot { wish: state.wish.take(), crashes: state.crashes, ..Slot::default() };
            self.hosts[host].departed.push((who, end == End::Proved));
        }
        self.count(if end == End::Proved { "proved deaths" } else { "unproved deaths" });
        self.tell_wanted(host);
        self.settle(host);
    }

    /// Nothing of the lease is in the way of an instance's end: SIGTERM, and its slot is empty.
    pub(crate) fn stopped(&mut self, who: Who) {
        let (host, slot) = (self.services[who].host, self.services[who].slot);
        let service = &self.services[who];
        if service.alive && service.unit.is_some() && !service.liar {
            return self.broken("main loop", format!("process {who} may stop and is at work"));
        }
        let state = &mut self.hosts[host].slots[slot];
        *state = Slot { wish: state.wish.take(), crashes: state.crashes, ..Slot::default() };
        if self.services[who].alive {
            self.die(who, true);
        }
        self.at(0, Act::Wanted { host });
        self.settle(host);
    }

    /// The processes of an instance end, with whatever they were doing.
    pub(crate) fn die(&mut self, who: Who, all: bool) {
        if !self.services[who].alive {
            return;
        }
        self.services[who].alive = false;
        let leaks = self.services[who].leaks && !all && self.services[who].unit.is_some();
        if leaks {
            let left = self.chance.within(100, 3000) * MS;
            self.at(left, Act::Orphan { who });
        } else {
            self.processes_end(who);
        }
        let early = self.mistake.is(Slip::SigtermIsStopped);
        let pause = self.chance.within(0, 100) * MS;
        let proved = early || (!leaks && (self.weather.single || !self.chance.percent(20)));
        let lingers = !proved && (leaks || self.chance.percent(50));
        let end = match (proved, lingers) {
            (true, _) => End::Proved,
            (false, true) => End::Lingers,
            (false, false) => End::Unproved,
        };
        self.at(pause, Act::Report { who, end });
        if lingers {
            let later = pause + self.chance.within(if leaks { 3000 } else { 200 }, 4000) * MS;
            self.at(later, Act::Report { who, end: End::Proved });
        }
    }

    pub(crate) fn orphan_ends(&mut self, who: Who) {
        self.processes_end(who);
    }
}
