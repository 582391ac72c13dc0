//! A world of hosts, one store and chance: real keeper cores, everything else a model. Time is a number.
//!
//! Every clock has its own rate (within rho of each other), the watch lags, requests and answers get lost or arrive after
//! their sender has given up on them, leases expire late or are revoked early, agents crash and come back with what they
//! saved, processes die with and without proof, services dawdle, and a coordinator asks for hand-overs.

pub(crate) mod host;
pub(crate) mod random;
pub(crate) mod service;
pub(crate) mod store;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use handover_agent::lease::settings::LeaseSettings;
use handover_proto::assignment::Cause;
use handover_proto::ids::InstanceId;
use handover_proto::keys::{EnvKeys, LeaseKeys};
use handover_proto::lease::{Intent, IntentKind, LeaseView, RawEntry};
use handover_proto::numbers::{Era, Term, Token};
use handover_proto::stored::encode;
use handover_proto::txn::{Op, Txn};

use host::{Act, Host};
use random::Random;
use service::Service;
use store::ModelStore;

/// How bad the world is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    /// One request or answer in so many is lost; 0: none.
    pub(crate) loss: u64,
    /// One request in so many arrives seconds late.
    pub(crate) stray: u64,
    /// Services that never acknowledge a stop are killed; with them, agents do not crash (A2 is broken).
    pub(crate) stubborn: bool,
}

/// What happened, so that a run which did nothing is noticed.
#[derive(Debug, Default, Clone)]
pub(crate) struct Counts(pub(crate) BTreeMap<&'static str, u64>);

impl Counts {
    pub(crate) fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }
}

pub(crate) struct World {
    pub(crate) seed: u64,
    /// True time, in microseconds.
    pub(crate) now: u64,
    pub(crate) random: Random,
    pub(crate) weather: Weather,
    pub(crate) settings: LeaseSettings,
    pub(crate) store: ModelStore,
    /// The store answers nobody before this.
    pub(crate) store_back: u64,
    /// The store's seconds per true second.
    pub(crate) store_rate: f64,
    pub(crate) hosts: Vec<Host>,
    pub(crate) services: BTreeMap<InstanceId, Service>,
    pub(crate) queue: BTreeMap<(u64, u64), Act>,
    order: u64,
    checked: i64,
    last_token: Option<Token>,
    pub(crate) counts: Counts,
}

pub(crate) const MS: u64 = 1_000;
pub(crate) const SECOND: u64 = 1_000_000;

pub(crate) fn keys() -> LeaseKeys {
    EnvKeys::new(&"sim".parse().expect("env")).service(&"billing".parse().expect("service")).lease()
}

impl World {
    pub(crate) fn new(seed: u64, hosts: usize) -> Self {
        let mut random = Random::new(seed);
        let stubborn = random.once_in(4);
        let weather = Weather { loss: random.within(0, 3) * 12, stray: random.within(8, 60), stubborn };
        let rate = |random: &mut Random| 0.96 + random.within(0, 80) as f64 / 1000.0;
        let mut world = Self {
            seed,
            now: SECOND,
            weather,
            settings: LeaseSettings::default(),
            store: ModelStore::default(),
            store_back: 0,
            store_rate: rate(&mut random),
            hosts: (0..hosts).map(|n| Host::new(n, rate(&mut random))).collect(),
            services: BTreeMap::new(),
            queue: BTreeMap::new(),
            order: 0,
            checked: 0,
            last_token: None,
            counts: Counts::default(),
            random,
        };
        for host in 0..hosts {
            let after = world.random.within(0, 500) * MS;
            world.at(after, Act::AgentUp { host });
            world.at(after, Act::Launch { host });
        }
        world.at(SECOND, Act::Tick);
        world
    }

    pub(crate) fn at(&mut self, after: u64, act: Act) {
        self.order += 1;
        self.queue.insert((self.now + after, self.order), act);
    }

    /// Runs until true time `end`.
    pub(crate) fn run_to(&mut self, end: u64) {
        while let Some((&(at, order), _)) = self.queue.first_key_value() {
            if at > end {
                break;
            }
            let act = self.queue.remove(&(at, order)).expect("just seen");
            self.now = at;
            self.act(act);
            self.check();
        }
        self.now = end;
    }

    /// From here on nothing fails any more.
    pub(crate) fn heal(&mut self) {
        self.weather = Weather { loss: 0, stray: 0, stubborn: false };
        self.store_back = 0;
        for service in self.services.values_mut() {
            service.stubborn = false;
        }
        for host in 0..self.hosts.len() {
            self.hosts[host].calm = true;
            self.hosts[host].cut_until = 0;
            self.all_ready(host);
            if self.hosts[host].core.is_none() {
                self.at(0, Act::AgentUp { host });
            }
        }
        let txn = Txn { then: vec![Op::Delete(keys().intent())], ..Txn::default() };
        self.store.txn(&txn).expect("a delete");
        self.pump_all();
    }

    pub(crate) fn view(&self) -> LeaseView {
        let mut view = LeaseView::default();
        for entry in self.store.keys.values() {
            let raw = RawEntry {
                value: &entry.value,
                mod_revision: entry.mod_revision,
                create_revision: entry.create_revision,
                lease: entry.lease,
            };
            view.put(&keys(), &entry.key, Some(raw)).expect("readable");
        }
        view
    }

    /// I1, I2 and I5 after every change of the store. I3 is checked where units begin.
    fn check(&mut self) {
        if self.store.revision == self.checked {
            return;
        }
        self.checked = self.store.revision;
        let (seed, now) = (self.seed, self.now);
        let view = self.view();
        view.check().unwrap_or_else(|error| panic!("seed {seed}, {now} us: {error}"));
        let holder = view.holder.as_ref();
        let held = holder.and_then(|holder| holder.value.held());
        if let Some(beat) = &view.beat {
            assert_eq!(Some(&beat.value.instance), held.map(|held| &held.owner.instance), "seed {seed}, {now} us: I1");
        }
        let token = view.token().expect("fits");
        if token == self.last_token {
            return;
        }
        assert!(token > self.last_token, "seed {seed}, {now} us: I2");
        self.last_token = token;
        if let Some(holder) = holder {
            self.counts.add(match &holder.value.cause {
                handover_proto::lease::LeaseCause::Acquire => "T1",
                handover_proto::lease::LeaseCause::TakeOver => "T2",
                handover_proto::lease::LeaseCause::HandOver { .. } => "T3",
                handover_proto::lease::LeaseCause::Release => "T4",
                handover_proto::lease::LeaseCause::Renewed => "T5",
                handover_proto::lease::LeaseCause::BreakGlass(_) | handover_proto::lease::LeaseCause::Other => "T6",
            });
        }
        // Whatever the turn's change: nobody is inside a unit under an older token (I5; for T2 the quarantine's work).
        for (id, service) in &self.services {
            assert!(
                service.unit_end.is_none_or(|end| end <= now),
                "seed {seed}, {now} us: {id} works while the turn changes"
            );
        }
    }

    /// The coordinator asks now and then, and withdraws what was declined, done or never came to be.
    pub(crate) fn coordinate(&mut self) {
        let view = self.view();
        let holder = view.holder.as_ref().and_then(|seen| seen.value.held()).map(|held| held.owner.instance.clone());
        if let Some(intent) = &view.intent {
            let open = view.open_intent().is_some();
            let from = view.candidates.get(&intent.value.from).and_then(|seen| seen.value.declined.clone());
            let stale = holder.as_ref() != Some(&intent.value.from) || from.as_ref() == Some(&intent.value.op);
            if !open || stale || self.random.once_in(20) {
                self.store.txn(&Txn { then: vec![Op::Delete(keys().intent())], ..Txn::default() }).expect("a delete");
                self.pump_all();
            }
            return;
        }
        let Some(from) = holder.filter(|_| !self.hosts[0].calm && self.random.once_in(4)) else { return };
        let others: Vec<&InstanceId> = view.candidates.keys().filter(|id| **id != from).collect();
        if others.is_empty() {
            return;
        }
        let to = others[self.random.next() as usize % others.len()].clone();
        let intent = Intent {
            v: 1,
            op: self.random.hex().parse().expect("an op"),
            kind: IntentKind::Handoff,
            from,
            to: Some(to),
            quiesce_timeout_ms: 3_000,
            term: Term::new(Era(0), 1).expect("fits"),
            cause: Cause { rollout: None, step: 0, plan_hash: String::new() },
        };
        let then = vec![Op::put(keys().intent(), encode(&intent).expect("json"))];
        self.store.txn(&Txn { then, ..Txn::default() }).expect("a put");
        self.counts.add("intents");
        self.pump_all();
    }

    pub(crate) fn lost(&mut self) -> bool {
        self.weather.loss > 0 && self.random.once_in(self.weather.loss)
    }

    pub(crate) fn c_unit(&self) -> Duration {
        self.settings.c_unit
    }
}
