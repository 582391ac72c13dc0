//! One core on a bench: the test is the clock, the store's patience and the service.

#![allow(dead_code, reason = "each test file uses its own part")]

mod others;
pub(crate) mod store;

use std::time::Duration;

use handover_agent::lease::certificate::Certificate;
use handover_agent::lease::deadline::Boot;
use handover_agent::lease::event::Event;
use handover_agent::lease::memory::Memory;
use handover_agent::lease::next::Now;
use handover_agent::lease::record::{Ack, AckState, Published, Told};
use handover_agent::lease::settings::LeaseSettings;
use handover_agent::lease::state::Core;
use handover_agent::lease::step::LeaseStep;
use handover_agent::lease::versions::Survey;
use handover_agent::lease::waiting::Waiting;
use handover_agent::lease::wanted::{InstanceLease, KeeperStatus, Life, LocalInstance, Wanted};
use handover_proto::ids::{InstanceId, OpId};
use handover_proto::keys::{EnvKeys, LeaseKeys};
use handover_proto::lease::{LeaseView, Owner, RawEntry};
use handover_proto::txn::Txn;
use handover_store::client::{Renewal, StoreError, TxnReply};

use store::ModelStore;

pub(crate) fn keys() -> LeaseKeys {
    EnvKeys::new(&"bench".parse().expect("env")).service(&"billing".parse().expect("service")).lease()
}

pub(crate) fn id(n: u8) -> InstanceId {
    format!("{n:016x}").parse().expect("an id")
}

pub(crate) fn owner(n: u8) -> Owner {
    Owner {
        instance: id(n),
        agent: format!("app-{n}").parse().expect("agent"),
        host: format!("host-{n}"),
        boot_id: "boot".to_owned(),
        version: "1.0.0".parse().expect("version"),
    }
}

pub(crate) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) fn unknown() -> StoreError {
    StoreError::Unknown { operation: "it".to_owned(), endpoint: "bench".to_owned(), reason: "lost".to_owned() }
}

/// What the store does with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Answers all.
    Good,
    /// Answers nothing; senders get an unknown outcome at once.
    Away,
    /// Carries lease transactions out, and their answers are lost.
    Deaf,
    /// Lease transactions wait in [`Bench::held`], for their senders with an unknown outcome.
    Late,
    /// Lease transactions and renewals are on their way; nobody has answered yet.
    Slow,
}

pub(crate) struct Bench {
    pub(crate) core: Core,
    pub(crate) store: ModelStore,
    pub(crate) now: Boot,
    /// Wall clock, which decides nothing.
    pub(crate) wall_ms: u64,
    pub(crate) mood: Mood,
    /// The state file cannot be written.
    pub(crate) disk_full: bool,
    pub(crate) saved: Option<Memory>,
    /// The service's answers; `None`: it does not answer.
    pub(crate) obeys: Option<AckState>,
    /// What else its answers say.
    pub(crate) says: Ack,
    pub(crate) steps: Vec<LeaseStep>,
    pub(crate) held: Vec<Txn>,
    /// Why kills fail.
    pub(crate) kill_trouble: Option<String>,
    pub(crate) waits: Option<Waiting>,
    /// What the members say of themselves.
    pub(crate) survey: Survey,
    /// What the lost holder's agent answers; `None`: it cannot be reached.
    pub(crate) certificate: Option<Certificate>,
    wanted: Wanted,
    cursor: usize,
    ops: u64,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(LeaseSettings::default(), ModelStore::default(), None)
    }

    pub(crate) fn with(settings: LeaseSettings, store: ModelStore, memory: Option<Memory>) -> Self {
        let mut bench = Self {
            core: Core::new(settings, keys(), "boot", memory),
            cursor: store.log.len(),
            store,
            now: Boot::from_ns(1_000_000_000_000),
            wall_ms: 0,
            mood: Mood::Good,
            disk_full: false,
            saved: None,
            obeys: Some(AckState::Quiesced),
            says: Ack::new(None, 0, AckState::Started),
            steps: Vec::new(),
            held: Vec::new(),
            kill_trouble: None,
            waits: None,
            survey: Survey::default(),
            certificate: None,
            wanted: Wanted::default(),
            ops: 1000,
        };
        let listing = bench.store.listing();
        bench.hear(Event::Listed(listing));
        bench
    }

    /// Reports instance `n` of this host, ready and eligible.
    pub(crate) fn report(&mut self, n: u8) {
        self.report_as(n, |_| {});
    }

    pub(crate) fn report_as(&mut self, n: u8, change: impl FnOnce(&mut LocalInstance)) {
        let (app, slot) = (([127, 0, 0, 1], 1).into(), "a".parse().expect("slot"));
        let mut local = LocalInstance {
            owner: owner(n),
            slot,
            app,
            eligible: true,
            ready: true,
            serving: true,
            rank: 0,
            life: Life::Running,
        };
        change(&mut local);
        self.wanted.instances.insert(id(n), local);
        self.hear(Event::Wanted(self.wanted.clone()));
    }

    pub(crate) fn change(&mut self, n: u8, change: impl FnOnce(&mut LocalInstance)) {
        change(self.wanted.instances.get_mut(&id(n)).expect("reported"));
        self.hear(Event::Wanted(self.wanted.clone()));
    }

    /// A bench on which instance 1 holds and works.
    pub(crate) fn holding() -> Self {
        let mut bench = Self::new();
        bench.report(1);
        assert_eq!(bench.told(1), Told::Active, "it holds: {:?}", bench.waits);
        bench.steps.clear();
        bench
    }

    /// As [`Bench::holding`], with instance 2 elsewhere prepared for an open intent.
    pub(crate) fn asked() -> (Self, OpId) {
        let mut bench = Self::holding();
        bench.obeys = None;
        let op = bench.ask(1, 2);
        bench.prepare(2, Some(&op));
        (bench, op)
    }

    pub(crate) fn hear(&mut self, event: Event) {
        self.core.apply(event, self.now);
        self.settle();
    }

    /// Time passes, in small steps.
    pub(crate) fn pass(&mut self, span: Duration) {
        let end = self.now.plus(span);
        while self.now < end {
            self.now = end.min(self.now.plus(ms(50)));
            self.settle();
        }
    }

    fn op(&mut self) -> OpId {
        self.ops += 1;
        format!("{:016x}", self.ops).parse().expect("an op")
    }

    /// Carries out steps until there is nothing but to wait.
    pub(crate) fn settle(&mut self) {
        for _ in 0..500 {
            self.watch();
            let op = self.op();
            let step = self.core.next(&Now { boot: self.now, wall_ms: self.wall_ms, op }).expect("a decision");
            self.core.started(&step, self.now).expect("a legal step");
            if let LeaseStep::Wait { reason, .. } = step {
                self.waits = reason;
                return;
            }
            self.steps.push(step.clone());
            if let Some(event) = self.perform(step) {
                self.core.apply(event, self.now);
            }
        }
        panic!("it does not come to rest: {:?}", &self.steps[self.steps.len() - 6..]);
    }

    fn watch(&mut self) {
        if self.mood == Mood::Away {
            return;
        }
        let news = self.store.log[self.cursor..].to_vec();
        for (revision, changes) in news {
            self.core.apply(Event::Changed { revision, changes }, self.now);
        }
        self.cursor = self.store.log.len();
    }

    fn perform(&mut self, step: LeaseStep) -> Option<Event> {
        let away = self.mood == Mood::Away;
        match step {
            LeaseStep::Save(memory) => {
                let result = if self.disk_full { Err("full".to_owned()) } else { Ok(()) };
                if !self.disk_full {
                    self.saved = Some(memory.clone());
                }
                Some(Event::Saved { memory, result })
            }
            LeaseStep::Read(asked) => {
                let result = if away { Err(unknown()) } else { self.store.txn(&asked) };
                Some(Event::Read { asked, result })
            }
            LeaseStep::Move { .. } | LeaseStep::Renew { .. } if self.mood == Mood::Slow => None,
            LeaseStep::Move { op, txn, .. } => {
                let result = self.transact(&txn);
                Some(Event::Moved { op, asked: txn, result })
            }
            LeaseStep::PutCandidate { instance, txn } => {
                let result = if away { Err(unknown()) } else { self.store.txn(&txn) };
                Some(Event::CandidatePut { instance, asked: txn, result })
            }
            LeaseStep::Renew { instance, expected, barrier, .. } if away => {
                Some(Event::Renewed { instance, sent: self.now, expected, barrier, result: Err(unknown()) })
            }
            LeaseStep::Renew { .. } => Some(self.answer_renewal(&step, self.now)),
            LeaseStep::Grant { instance, ttl } => {
                let result = if away { Err(unknown()) } else { Ok(self.store.grant(ttl, u64::MAX)) };
                Some(Event::Granted { instance, result })
            }
            LeaseStep::Revoke { lease } => {
                self.store.revoke(lease);
                Some(Event::Revoked { lease })
            }
            LeaseStep::PutRoster(asked) => {
                let result = if away { Err(unknown()) } else { self.store.txn(&asked) };
                Some(Event::RosterPut { asked, result })
            }
            LeaseStep::Survey => Some(Event::Surveyed(if away { Survey::default() } else { self.survey.clone() })),
            LeaseStep::AskCertificate { token, .. } => {
                let result = self.certificate.clone().ok_or_else(|| "no route to host".to_owned());
                Some(Event::Certified { token, result })
            }
            LeaseStep::Relist => (!away).then(|| Event::Listed(self.store.listing())),
            LeaseStep::Tell { instance, record, .. } => self.answer(instance, &record),
            LeaseStep::Kill { instance } => {
                let result = self.kill_trouble.clone().map_or(Ok(()), Err);
                Some(Event::Killed { instance, result })
            }
            LeaseStep::Begin { .. }
            | LeaseStep::End { .. }
            | LeaseStep::Leave { .. }
            | LeaseStep::Order { .. }
            | LeaseStep::Decline { .. }
            | LeaseStep::Adopt { .. }
            | LeaseStep::Drop { .. }
            | LeaseStep::Forget { .. }
            | LeaseStep::Wait { .. } => None,
        }
    }

    /// The store's answer to a renewal that was sent at `sent`.
    pub(crate) fn answer_renewal(&mut self, step: &LeaseStep, sent: Boot) -> Event {
        let LeaseStep::Renew { instance, lease, barrier, expected, .. } = step.clone() else { panic!("{step:?}") };
        let (ttl, keep_alive) = (self.store.keep_alive(lease, u64::MAX), self.store.origin());
        let result = self.store.txn(&barrier).map(|barrier| Renewal { ttl, keep_alive, barrier });
        Event::Renewed { instance, sent, expected, barrier, result }
    }

    fn transact(&mut self, txn: &Txn) -> Result<TxnReply, StoreError> {
        match self.mood {
            Mood::Good | Mood::Slow => self.store.txn(txn),
            Mood::Away => Err(unknown()),
            Mood::Deaf => self.store.txn(txn).and_then(|_| Err(unknown())),
            Mood::Late => {
                self.held.push(txn.clone());
                Err(unknown())
            }
        }
    }

    fn answer(&mut self, instance: InstanceId, record: &Published) -> Option<Event> {
        let stop = self.obeys?;
        let state = if record.told == Told::Active { AckState::Started } else { stop };
        Some(self.ack(instance, record, state))
    }

    /// The acknowledgement of `record`.
    pub(crate) fn ack(&self, instance: InstanceId, record: &Published, state: AckState) -> Event {
        let token = record.token.map(|token| token.get().to_string());
        let ack = Ack { token, seq: record.seq, state, ..self.says.clone() };
        Event::Answered { instance, seq: record.seq, result: Ok(ack) }
    }

    /// The service of instance `n` answers the last call, late.
    pub(crate) fn answers(&mut self, n: u8, state: AckState) {
        let record = self.last_call(n);
        let event = self.ack(id(n), &record, state);
        self.hear(event);
    }

    /// Instance `n` dies, and `n + 1` is started in its place.
    pub(crate) fn restart(&mut self, n: u8) {
        self.change(n, |local| local.life = Life::Dead { proven: true });
        self.report(n + 1);
    }

    /// What the last call to instance `n` said.
    pub(crate) fn last_call(&self, n: u8) -> Published {
        let call = self.steps.iter().rev().find_map(|step| match step {
            LeaseStep::Tell { instance, record, .. } if *instance == id(n) => Some(record.clone()),
            _ => None,
        });
        call.expect("a call")
    }

    /// How long the last call to instance `n` may take.
    pub(crate) fn last_limit(&self, n: u8) -> Duration {
        let call = self.steps.iter().rev().find_map(|step| match step {
            LeaseStep::Tell { instance, limit, .. } if *instance == id(n) => Some(*limit),
            _ => None,
        });
        call.expect("a call")
    }

    pub(crate) fn published(&self, n: u8) -> Published {
        self.core.board().remove(&id(n)).expect("a living instance").1
    }

    pub(crate) fn told(&self, n: u8) -> Told {
        self.published(n).told
    }

    pub(crate) fn lease_of(&self, n: u8) -> InstanceLease {
        self.status().instances[&id(n)].clone()
    }

    pub(crate) fn status(&self) -> KeeperStatus {
        self.core.status(&KeeperStatus::default(), None, self.now, 0)
    }

    /// Names of the steps done since they were last cleared.
    pub(crate) fn did(&self, name: &str) -> usize {
        self.steps.iter().filter(|step| step.name() == name).count()
    }

    pub(crate) fn view(&self) -> LeaseView {
        let mut view = LeaseView::default();
        for e in self.store.keys.values() {
            let (mod_revision, create_revision, lease) = (e.mod_revision, e.create_revision, e.lease);
            let raw = RawEntry { value: &e.value, mod_revision, create_revision, lease };
            view.put(&keys(), &e.key, Some(raw)).expect("readable");
        }
        view
    }

    pub(crate) fn is_held_by(&self, n: u8) -> bool {
        self.view().holder.is_some_and(|holder| holder.value.is_held_by(&id(n)))
    }
}
