//! An agent on a simulated host: the real keeper core and the real client of the store, on tokio's time alone.
//!
//! The keeper's own shell is a thread with a runtime, the kernel's clocks and a Unix socket, none of which a simulation can
//! drive; what it does with each step is written down here a second time, without them.

use handover_agent::lease::event::Event;
use handover_agent::lease::next::Now;
use handover_agent::lease::record::{Ack, AckState, Published, Told};
use handover_agent::lease::settings::LeaseSettings;
use handover_agent::lease::state::Core;
use handover_agent::lease::step::LeaseStep;
use handover_agent::lease::versions::Survey;
use handover_agent::lease::wanted::{Life, LocalInstance, Wanted};
use handover_proto::ids::{InstanceId, OpId};
use handover_proto::keys::{EnvKeys, LeaseKeys};
use handover_proto::lease::Owner;
use handover_store::client::{Store, WatchItem};
use handover_tests::sim::fact::{Token, Who};
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::net::{PORT, dial};
use super::site::{Site, boot, now};

const UNIT: Duration = Duration::from_millis(300);
/// Like the real keeper's: nothing sleeps longer.
const LONGEST_SLEEP: Duration = Duration::from_millis(200);

pub(crate) fn settings() -> LeaseSettings {
    LeaseSettings {
        ttl: Duration::from_secs(6),
        attempt: Duration::from_millis(500),
        c_unit: Duration::from_secs(1),
        c_kill: Duration::from_millis(500),
        failover_gap: Duration::from_millis(2900),
        ..LeaseSettings::default()
    }
}

fn keys() -> LeaseKeys {
    EnvKeys::new(&Default::default()).service(&"billing".parse().expect("a service")).lease()
}

fn instance(host: usize, life: u32) -> InstanceId {
    format!("{host:08x}{life:08x}").parse().expect("an instance")
}

/// The service beside the agent.
#[derive(Default)]
struct Work {
    right: Option<(Token, u64)>,
    unit: Option<(Token, Duration)>,
    /// Records that wait for the end of the unit.
    open: Vec<Published>,
}

struct Agent {
    host: usize,
    me: InstanceId,
    who: Who,
    site: Site,
    store: Store,
    core: Core,
    events: UnboundedSender<Event>,
    watch: Option<JoinHandle<()>>,
    work: Work,
}

pub(crate) async fn run(host: usize, site: Site) -> turmoil::Result {
    let (life, disk) = {
        let past = &mut site.get().pasts[host];
        past.lives += 1;
        (past.lives, past.disk.clone())
    };
    let (events, mut inbox) = unbounded_channel();
    let store = Store::dialled(&[format!("http://store:{PORT}")], dial())?;
    let core = Core::new(settings(), keys(), "boot", disk);
    let (me, who) = (instance(host, life), host + 10 * life as usize);
    let mut agent = Agent { host, me, who, site, store, core, events, watch: None, work: Work::default() };
    agent.follow();
    let wanted = agent.wanted(life);
    agent.core.apply(Event::Wanted(wanted), boot());
    loop {
        agent.work();
        let until = agent.lap();
        let sleep = until.unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP);
        let unit = agent.work.unit.map_or(LONGEST_SLEEP, |(_, end)| end.saturating_sub(now()));
        tokio::select! {
            biased;
            Some(event) = inbox.recv() => agent.core.apply(event, boot()),
            () = tokio::time::sleep(sleep.min(unit)) => {}
        }
    }
}

impl Agent {
    /// This process, and the one before it, which died with the host.
    fn wanted(&self, life: u32) -> Wanted {
        let local = |life: u32, state: Life| {
            let name = format!("app-{}", self.host);
            let owner = Owner {
                instance: instance(self.host, life),
                agent: name.parse().expect("an agent"),
                host: name,
                boot_id: "boot".to_owned(),
                version: "1.0.0".parse().expect("a version"),
            };
            let (slot, app) = ("a".parse().expect("a slot"), ([127, 0, 0, 1], 1).into());
            let runs = state == Life::Running;
            LocalInstance { owner, slot, app, eligible: runs, ready: runs, serving: runs, rank: 0, life: state }
        };
        let mut all = vec![local(life, Life::Running)];
        if life > 1 {
            all.push(local(life - 1, Life::Dead { proven: true }));
        }
        Wanted { instances: all.into_iter().map(|one| (one.owner.instance.clone(), one)).collect() }
    }

    fn follow(&mut self) {
        if let Some(old) = self.watch.take() {
            old.abort();
        }
        let (store, events) = (self.store.clone(), self.events.clone());
        self.watch = Some(tokio::spawn(async move {
            let mut watch = store.watch(&keys().prefix(), 0);
            loop {
                let event = match watch.next().await {
                    WatchItem::Changes { revision, changes } => Event::Changed { revision, changes },
                    WatchItem::Reset(listing) => Event::Listed(listing),
                    WatchItem::Interrupted(error) => Event::CutOff(error.to_string()),
                };
                if events.send(event).is_err() {
                    return;
                }
            }
        }));
    }

    /// Steps until there is nothing but to wait: for how long.
    fn lap(&mut self) -> Option<Duration> {
        loop {
            let boot = boot();
            let wall_ms = now().as_millis() as u64;
            let step = self.core.next(&Now { boot, wall_ms, op: OpId::random() }).expect("a decision");
            self.core.started(&step, boot).expect("a legal step");
            if let LeaseStep::Wait { until, .. } = step {
                return until.map(|until| until.since(boot));
            }
            self.start(step);
        }
    }

    fn then(&self, effect: impl Future<Output = Event> + Send + 'static) {
        let events = self.events.clone();
        // The receiver lives as long as the host.
        drop(tokio::spawn(async move { drop(events.send(effect.await)) }));
    }

    fn start(&mut self, step: LeaseStep) {
        let (store, sent) = (self.store.clone(), boot());
        match step {
            LeaseStep::Read(asked) => self.then(async move {
                let result = store.txn(&asked).await;
                Event::Read { asked, result }
            }),
            LeaseStep::Move { op, txn, .. } => self.then(async move {
                let result = store.txn(&txn).await;
                Event::Moved { op, asked: txn, result }
            }),
            LeaseStep::Renew { instance, lease, member, barrier, expected } => self.then(async move {
                let result = store.renew(member, lease, &barrier, expected.limit).await;
                Event::Renewed { instance, sent, expected, barrier, result }
            }),
            LeaseStep::Grant { instance, ttl } => self.then(async move {
                let result = store.grant(ttl).await;
                Event::Granted { instance, result }
            }),
            LeaseStep::PutCandidate { instance, txn } => self.then(async move {
                let result = store.txn(&txn).await;
                Event::CandidatePut { instance, asked: txn, result }
            }),
            LeaseStep::PutRoster(asked) => self.then(async move {
                let result = store.txn(&asked).await;
                Event::RosterPut { asked, result }
            }),
            LeaseStep::Revoke { lease } => self.then(async move {
                drop(store.revoke(lease).await);
                Event::Revoked { lease }
            }),
            // An embedded store, so that the long quarantine holds.
            LeaseStep::Survey => self.then(async { Event::Surveyed(Survey { embedded: true, ..Survey::default() }) }),
            LeaseStep::AskCertificate { token, .. } => {
                self.then(async move { Event::Certified { token, result: Err("nobody answers here".to_owned()) } });
            }
            LeaseStep::Relist => self.follow(),
            LeaseStep::Save(memory) => {
                self.site.get().pasts[self.host].disk = Some(memory.clone());
                drop(self.events.send(Event::Saved { memory, result: Ok(()) }));
            }
            LeaseStep::Tell { record, .. } => self.told(record),
            LeaseStep::Kill { .. }
            | LeaseStep::Begin { .. }
            | LeaseStep::End { .. }
            | LeaseStep::Leave { .. }
            | LeaseStep::Order { .. }
            | LeaseStep::Decline { .. }
            | LeaseStep::Adopt { .. }
            | LeaseStep::Drop { .. }
            | LeaseStep::Forget { .. }
            | LeaseStep::Wait { .. } => {}
        }
    }

    fn told(&mut self, record: Published) {
        self.work.right = match (record.told, record.token, record.deadlines) {
            (Told::Active, Some(token), Some(deadlines)) if self.site.install(self.who, token.get()) => {
                Some((token.get(), deadlines.soft.ns()))
            }
            _ => None,
        };
        self.work.open.push(record);
        self.work();
    }

    /// Ends and begins units, and answers what can be answered.
    fn work(&mut self) {
        if let Some((token, end)) = self.work.unit
            && now() >= end
        {
            self.work.unit = None;
            self.site.end(self.host, self.who, token);
        }
        let may = self.work.right.filter(|(token, soft)| boot().ns() < *soft && self.site.stored() == Some(*token));
        if let (Some((token, _)), None) = (may, self.work.unit) {
            self.work.unit = Some((token, now() + UNIT));
            self.site.begin(self.host, self.who, token);
        }
        let busy = self.work.unit.is_some();
        let (now, later) = std::mem::take(&mut self.work.open)
            .into_iter()
            .partition(|record: &Published| record.told == Told::Active || !busy);
        self.work.open = later;
        for record in now as Vec<Published> {
            let state = if record.told == Told::Active { AckState::Started } else { AckState::Quiesced };
            let ack = Ack::new(record.token.map(|token| token.get().to_string()), record.seq, state);
            let event = Event::Answered { instance: self.me.clone(), seq: record.seq, result: Ok(ack) };
            drop(self.events.send(event));
        }
    }
}
