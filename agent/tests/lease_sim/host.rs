//! A host: an agent that crashes and comes back, its main loop, and the way between keeper, store and services.

use handover_agent::lease::deadline::Boot;
use handover_agent::lease::event::Event;
use handover_agent::lease::memory::Memory;
use handover_agent::lease::next::Now;
use handover_agent::lease::record::LeaseRecord;
use handover_agent::lease::state::Core;
use handover_agent::lease::step::LeaseStep;
use handover_agent::lease::wanted::{KeeperStatus, Life, LocalInstance, Wanted};
use handover_proto::ids::InstanceId;
use handover_proto::lease::Owner;

use super::service::Service;
use super::{MS, SECOND, World, keys};

/// What happens at a moment.
pub(crate) enum Act {
    AgentUp {
        host: usize,
    },
    AgentDown {
        host: usize,
    },
    /// A new instance starts.
    Launch {
        host: usize,
    },
    /// The keeper's timer.
    Wake {
        host: usize,
        n: u64,
    },
    /// The keeper hears something.
    Hear {
        host: usize,
        life: u32,
        event: Box<Event>,
    },
    /// A request reaches the store.
    Arrive {
        host: usize,
        life: u32,
        step: Box<LeaseStep>,
        sent: Boot,
        deadline: u64,
    },
    /// The watch passes on what it has.
    Pump {
        host: usize,
    },
    /// A call reaches a service.
    Call {
        host: usize,
        life: u32,
        id: InstanceId,
        record: LeaseRecord,
        until: u64,
    },
    /// A service looks whether it may begin a unit.
    Unit {
        id: InstanceId,
    },
    /// The processes of an instance end.
    Die {
        id: InstanceId,
    },
    /// The main loop reports the end.
    Report {
        id: InstanceId,
        proven: bool,
    },
    /// Chance has its turn.
    Tick,
}

pub(crate) struct Host {
    n: usize,
    pub(crate) rate: f64,
    pub(crate) core: Option<Core>,
    /// Counts agent processes: news for an earlier one is dropped.
    pub(crate) life: u32,
    /// Number of the timer that counts.
    timer: u64,
    pub(crate) disk: Option<Memory>,
    wanted: Wanted,
    pub(crate) cursor: usize,
    pub(crate) cut_until: u64,
    pub(crate) calm: bool,
}

impl Host {
    pub(crate) fn new(n: usize, rate: f64) -> Self {
        let wanted = Wanted::default();
        Self { n, rate, core: None, life: 0, timer: 0, disk: None, wanted, cursor: 0, cut_until: 0, calm: false }
    }

    pub(crate) fn clock_ns(&self, now: u64) -> u64 {
        // Each host booted at its own time.
        (now as f64 * self.rate) as u64 * 1000 + (self.n as u64 + 1) * 1_000_000_000
    }

    fn boot(&self, now: u64) -> Boot {
        Boot::from_ns(self.clock_ns(now))
    }

    /// True microseconds until `moment` on this clock.
    fn until(&self, moment: Boot, now: u64) -> u64 {
        (moment.since(self.boot(now)).as_micros() as f64 / self.rate) as u64 + 1
    }
}

impl World {
    pub(crate) fn act(&mut self, act: Act) {
        match act {
            Act::AgentUp { host } => self.agent_up(host),
            Act::AgentDown { host } => {
                self.hosts[host].core = None;
                self.counts.add("agent crashes");
                let pause = self.random.within(100, 12_000) * MS;
                self.at(pause, Act::AgentUp { host });
            }
            Act::Launch { host } => self.launch(host),
            // An older timer was set anew since.
            Act::Wake { host, n } if n == self.hosts[host].timer => self.lap(host),
            Act::Wake { .. } => {}
            Act::Hear { host, life, event } => self.hear(host, life, *event),
            Act::Arrive { host, life, step, sent, deadline } => self.arrive(host, life, *step, sent, deadline),
            Act::Pump { host } => self.pump(host),
            Act::Call { host, life, id, record, until } => self.call(host, life, id, record, until),
            Act::Unit { id } => self.unit(&id),
            Act::Die { id } => {
                self.die(&id);
                let (pause, proven) = (self.random.within(0, 300) * MS, !self.random.once_in(4));
                self.at(pause, Act::Report { id, proven });
            }
            Act::Report { id, proven } => self.report(&id, proven),
            Act::Tick => self.tick(),
        }
    }

    fn agent_up(&mut self, host: usize) {
        let now = self.now;
        let state = &mut self.hosts[host];
        if state.core.is_some() {
            return;
        }
        state.life += 1;
        let mut core = Core::new(self.settings.clone(), keys(), "boot", state.disk.clone());
        core.apply(Event::Wanted(state.wanted.clone()), state.boot(now));
        state.core = Some(core);
        state.cursor = usize::MAX;
        self.at(0, Act::Pump { host });
        self.lap(host);
    }

    fn launch(&mut self, host: usize) {
        if self.running(host).len() > 1 {
            return;
        }
        let id: InstanceId = self.random.hex().parse().expect("an id");
        let stubborn = self.weather.stubborn && self.random.once_in(3);
        self.services.insert(id.clone(), Service::new(host, stubborn));
        let owner = Owner {
            instance: id.clone(),
            agent: format!("app-{host}").parse().expect("agent"),
            host: format!("app-{host}"),
            boot_id: "boot".to_owned(),
            version: "1.0.0".parse().expect("version"),
        };
        let app = ([127, 0, 0, 1], 1).into();
        let slot = "a".parse().expect("slot");
        let serving = self.random.once_in(2);
        let local = LocalInstance {
            owner,
            slot,
            app,
            eligible: true,
            ready: true,
            serving,
            rank: u32::from(!serving),
            life: Life::Running,
        };
        self.hosts[host].wanted.instances.insert(id, local);
        self.tell_wanted(host);
    }

    pub(crate) fn all_ready(&mut self, host: usize) {
        self.hosts[host].wanted.instances.values_mut().for_each(|local| local.ready = true);
        self.tell_wanted(host);
    }

    fn running(&self, host: usize) -> Vec<InstanceId> {
        let instances = self.hosts[host].wanted.instances.iter();
        instances.filter(|(_, local)| local.life == Life::Running).map(|(id, _)| id.clone()).collect()
    }

    fn tell_wanted(&mut self, host: usize) {
        let (life, wanted) = (self.hosts[host].life, self.hosts[host].wanted.clone());
        self.hear(host, life, Event::Wanted(wanted));
    }

    fn report(&mut self, id: &InstanceId, proven: bool) {
        let Some(host) = self.services.get(id).map(|service| service.host) else { return };
        if let Some(local) = self.hosts[host].wanted.instances.get_mut(id) {
            local.life = Life::Dead { proven };
            self.counts.add(if proven { "proved deaths" } else { "unproved deaths" });
        }
        self.tell_wanted(host);
        let pause = self.random.within(200, 4000) * MS;
        self.at(pause, Act::Launch { host });
    }

    pub(crate) fn hear(&mut self, host: usize, life: u32, event: Event) {
        let now = self.now;
        let state = &mut self.hosts[host];
        let boot = state.boot(now);
        let Some(core) = state.core.as_mut().filter(|_| life == state.life) else { return };
        core.apply(event, boot);
        self.lap(host);
    }

    /// What the shell does: steps until there is nothing but to wait.
    fn lap(&mut self, host: usize) {
        for _ in 0..200 {
            let (now, op) = (self.now, self.random.hex().parse().expect("an op"));
            let boot = self.hosts[host].boot(now);
            let Some(core) = self.hosts[host].core.as_mut() else { return };
            let step = core.next(&Now { boot, wall_ms: now / MS, op }).expect("a decision");
            core.started(&step, boot).unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
            if let LeaseStep::Wait { until, .. } = step {
                let after = until.map_or(SECOND, |until| self.hosts[host].until(until, now));
                self.hosts[host].timer += 1;
                let n = self.hosts[host].timer;
                self.at(after, Act::Wake { host, n });
                return self.retire(host);
            }
            self.start(host, step, boot);
        }
        panic!("seed {}: the keeper of host {host} does not come to rest", self.seed);
    }

    /// The main loop: what may stop is stopped, what is gone from the lease is forgotten.
    fn retire(&mut self, host: usize) {
        let now = self.now;
        let Some(core) = &self.hosts[host].core else { return };
        let status = core.status(&KeeperStatus::default(), None, self.hosts[host].boot(now), now / MS);
        let may_stop = |(id, lease): (&InstanceId, &handover_agent::lease::wanted::InstanceLease)| {
            lease.may_stop.then(|| id.clone())
        };
        let done: Vec<InstanceId> = status.instances.iter().filter_map(may_stop).collect();
        for id in done {
            if self.hosts[host].wanted.instances.remove(&id).is_none() {
                continue;
            }
            let works = self.services[&id].unit_end.is_some_and(|end| end > now);
            assert!(!works, "seed {}, {now} us: {id} may stop and is at work", self.seed);
            if self.services[&id].alive {
                self.die(&id);
                let pause = self.random.within(200, 4000) * MS;
                self.at(pause, Act::Launch { host });
            }
            let (life, wanted) = (self.hosts[host].life, self.hosts[host].wanted.clone());
            self.at(0, Act::Hear { host, life, event: Box::new(Event::Wanted(wanted)) });
        }
    }

    /// Once a second, chance.
    fn tick(&mut self) {
        self.at(self.random_tick(), Act::Tick);
        for lease in self.store.expired(self.now / MS) {
            self.store.revoke(lease);
            self.counts.add("expired leases");
            self.pump_all();
        }
        if self.random.once_in(3) {
            self.coordinate();
        }
        if self.hosts[0].calm {
            return;
        }
        if self.random.once_in(300) {
            self.store_back = self.now + self.random.within(1, 12) * SECOND;
            self.counts.add("store outages");
        }
        if self.random.once_in(200) {
            // M3: a live lease is deleted, whatever its owner may think.
            let leases: Vec<i64> = self.store.leases.keys().copied().collect();
            if !leases.is_empty() {
                let lease = leases[self.random.next() as usize % leases.len()];
                self.store.revoke(lease);
                self.counts.add("early revocations");
                self.pump_all();
            }
        }
        for host in 0..self.hosts.len() {
            self.chance(host);
        }
    }

    fn random_tick(&self) -> u64 {
        100 * MS
    }

    fn chance(&mut self, host: usize) {
        if self.random.once_in(400) {
            self.hosts[host].cut_until = self.now + self.random.within(1, 15) * SECOND;
            self.counts.add("partitions");
        }
        if !self.weather.stubborn && self.random.once_in(300) && self.hosts[host].core.is_some() {
            self.at(0, Act::AgentDown { host });
        }
        let running = self.running(host);
        if running.len() == 1 && self.random.once_in(300) {
            self.counts.add("second instances");
            self.launch(host);
        }
        let Some(id) = running.into_iter().next() else { return };
        if self.random.once_in(100) {
            let local = self.hosts[host].wanted.instances.get_mut(&id).expect("just seen");
            local.ready = !local.ready;
            self.tell_wanted(host);
        }
        if self.random.once_in(400) {
            self.at(0, Act::Die { id });
        } else if self.random.once_in(300) {
            self.counts.add("give up");
            let local = self.hosts[host].wanted.instances.get_mut(&id).expect("just seen");
            local.life = Life::GiveUp;
            self.tell_wanted(host);
        }
    }
}
