//! Stands in for the coordinator: assigns every host its version, and asks for hand-overs again and again, by the intent
//! key under the leader's check and nothing else. What becomes of them is the checkers' business.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use handover_proto::assignment::{
    Assignment, AtDeadline, Cause, DrainPolicy, LeaseRules, LeaseWish, Route, SlotWish, Upstream,
};
use handover_proto::ids::{InstanceId, OpId, SlotId};
use handover_proto::keys::{EnvKeys, ServiceKeys};
use handover_proto::lease::{self, EraValue, Intent, IntentKind, LeaseView, RawEntry};
use handover_proto::lifecycle::Lifecycle;
use handover_proto::numbers::{Era, Term};
use handover_proto::stored::{STORED_VERSION, decode, encode};
use handover_proto::txn::{Op, Revision, Txn};
use handover_store::client::Store;
use tokio::runtime::Runtime;

use super::site::VERSION;

/// From one look to the next.
const LOOK: Duration = Duration::from_millis(100);
/// As the fleet's rollouts give it.
const QUIESCE_TIMEOUT_MS: u64 = 5000;

/// The stand-in.
pub struct StandIn {
    runtime: Runtime,
    store: Store,
    service: ServiceKeys,
    leader: (String, Revision),
    term: Term,
}

/// A stand-in that asks for hand-overs on its own thread.
#[derive(Debug)]
pub struct Asking {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

/// The keys of the site's environment and service.
///
/// # Errors
/// Never, as long as the names are names.
pub fn keys() -> Result<(EnvKeys, ServiceKeys)> {
    let env = EnvKeys::new(&"demo".parse()?);
    let service = env.service(&"billing".parse()?);
    Ok((env, service))
}

impl StandIn {
    /// Takes the leader key, whosever it is: a reign of its own begins.
    ///
    /// # Errors
    /// If the store does not answer.
    pub fn new(endpoints: &[String]) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (env, service) = keys()?;
        let store = Store::connect(endpoints)?;
        let key = env.leader();
        let write = |op: Op| runtime.block_on(store.txn(&Txn { then: vec![op], ..Txn::default() }));
        write(Op::Delete(key.clone()))?;
        let revision = write(Op::put(key.clone(), b"{}".to_vec()))?.revision;
        let key_of_era = service.lease().era();
        let era = runtime.block_on(store.get(&key_of_era))?;
        let era = era.map(|entry| decode::<EraValue>(&key_of_era, &entry.value)).transpose()?;
        let term = Term::new(era.map_or(Era(0), |value| value.era), revision)?;
        Ok(Self { runtime, store, service, leader: (key, revision), term })
    }

    fn cause() -> Cause {
        Cause { rollout: None, step: 0, plan_hash: String::new() }
    }

    /// Wants the version to serve on every host and to be eligible; or, if not `up`, to be gone.
    ///
    /// # Errors
    /// If the store does not answer.
    pub fn assign(&self, agents: &[String], up: bool) -> Result<()> {
        let slot: SlotId = "a".parse()?;
        for agent in agents {
            let wish =
                SlotWish { version: VERSION.parse()?, lifecycle: Lifecycle::Serving, lease: LeaseWish::Eligible };
            let route = Route { to: Upstream::Slot(slot.clone()), reads: 100, writes: 100 };
            let assignment = Assignment {
                v: STORED_VERSION,
                term: self.term,
                cause: Self::cause(),
                slots: up.then(|| (slot.clone(), wish)).into_iter().collect(),
                routes: up.then_some(route).into_iter().collect(),
                drain: DrainPolicy { deadline_ms: 3000, at_deadline: AtDeadline::Cut, over_all: false },
                leaving: false,
                lease: LeaseRules::default(),
                hooks: Vec::new(),
                fallback: None,
            };
            let put = Op::put(self.service.assigned(&agent.parse()?), encode(&assignment)?);
            self.runtime.block_on(self.store.txn(&Txn { then: vec![put], ..Txn::default() }))?;
        }
        Ok(())
    }

    /// The lease's keys, as of one revision.
    ///
    /// # Errors
    /// If the store does not answer, or a value cannot be read.
    pub fn view(&self) -> Result<LeaseView> {
        self.runtime.block_on(view(&self.store, &self.service))
    }

    /// Goes on by itself: asks for a hand-over whenever the last holder has worked for `every`.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn ask_every(self, every: Duration) -> Result<Asking> {
        Asking::start(every, move || self.ask())
    }

    /// Whether the intent was written: the lease rests with a working holder, and another is ready.
    fn ask(&self) -> Result<bool> {
        let view = self.view()?;
        let Some((from, to)) = next_turn(&view) else { return Ok(false) };
        let intent = Intent {
            v: STORED_VERSION,
            op: OpId::random(),
            kind: IntentKind::Handoff,
            from,
            to: Some(to),
            quiesce_timeout_ms: QUIESCE_TIMEOUT_MS,
            term: self.term,
            cause: Self::cause(),
        };
        let asked = lease::ask(&self.service.lease(), &view, &intent, self.leader.clone())?;
        Ok(self.runtime.block_on(self.store.txn(&asked))?.succeeded)
    }
}

impl Asking {
    /// Asks again and again, from one hand-over that was asked for to the next so long after it.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(every: Duration, ask: impl Fn() -> Result<bool> + Send + 'static) -> Result<Self> {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (theirs, count) = (stop.clone(), asked.clone());
        let run = move || {
            let mut rested = Duration::ZERO;
            while !theirs.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK);
                rested += LOOK;
                if rested >= every && ask().is_ok_and(|asked| asked) {
                    count.fetch_add(1, Ordering::Relaxed);
                    rested = Duration::ZERO;
                }
            }
        };
        let thread = std::thread::Builder::new().name("asking".into()).spawn(run)?;
        Ok(Self { stop, asked, thread })
    }

    /// Ends it; how many hand-overs it asked for.
    ///
    /// # Errors
    /// If its thread panicked.
    pub fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the asking thread panicked"))?;
        Ok(self.asked.load(Ordering::Relaxed))
    }
}

async fn view(store: &Store, service: &ServiceKeys) -> Result<LeaseView> {
    let keys = service.lease();
    let mut view = LeaseView::default();
    for entry in store.list(&keys.prefix()).await.context("listing the lease's keys")?.entries {
        let raw = RawEntry {
            value: &entry.value,
            mod_revision: entry.mod_revision,
            create_revision: entry.create_revision,
            lease: entry.lease,
        };
        view.put(&keys, &entry.key, Some(raw))?;
    }
    Ok(view)
}

/// The holder, if its service works, and the next ready candidate in the order of instances: all get their turn.
fn next_turn(view: &LeaseView) -> Option<(InstanceId, InstanceId)> {
    let token = view.token().ok().flatten()?;
    let from = &view.holder.as_ref()?.value.held()?.owner.instance;
    view.candidates.get(from).filter(|seen| seen.value.active == Some(token))?;
    let mut ready = view.candidates.iter().filter(|(id, seen)| *id != from && seen.value.ready).map(|(id, _)| id);
    let to = ready.clone().find(|id| *id > from).or_else(|| ready.next())?;
    Some((from.clone(), to.clone()))
}
