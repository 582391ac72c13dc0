//! The shell round the pure core: its lock, its clock, and the ticket that a request holds while it is in flight.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::admission::{Arrival, Ask, Bounds, Core, News, Route, Verdict};
use super::control::{Admission, GateState, Reason, Refusal, Upstream};
use super::counts::Event;
use super::cut::{About, CutLog, Passed, millis};
use super::handover::succession::Succession;
use super::headers::RequestIds;
use super::multiplex::Multiplex;
use super::patience::Patience;
use super::peers::{Peers, Share, Waiting};
use super::pool::Pool;
use super::settings::GateSettings;
use super::tls::Tls;

/// How saving the applied state stands.
#[derive(Debug, Clone, Default)]
pub(super) struct Saved {
    /// The state in the file; 0 for none.
    pub(super) seq: u64,
    /// Why it is not the one in force.
    pub(super) error: Option<String>,
}

/// What client connections should know about leaving.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Leaving {
    /// Since when idle ones should end, by the gate's clock: it is shut or stopping.
    pub(super) since: Option<Duration>,
    /// When the process ends whatever is left: it is stopping.
    pub(super) ends_at: Option<Duration>,
    /// Whether clients should be told to go elsewhere.
    pub(super) dismissing: bool,
}

/// One gate process's shared parts.
pub(super) struct Gate {
    pub(super) settings: GateSettings,
    pub(super) pool: Pool,
    /// Connections to upstreams by HTTP/2.
    pub(super) multiplex: Multiplex,
    /// Makes the ids of requests that have none.
    pub(super) ids: RequestIds,
    /// Random per process.
    pub(super) start_id: String,
    /// Client connections now open.
    pub(super) connections: AtomicU64,
    /// Connections closed at once because their address had as many as one may have.
    pub(super) refused_connections: AtomicU64,
    /// How many connections each client address has.
    pub(super) peers: Arc<Peers>,
    /// If clients speak TLS.
    pub(super) tls: Option<Arc<Tls>>,
    /// The state last applied; held requests and the saver wait for it to change.
    pub(super) applied: watch::Sender<GateState>,
    /// What the state file holds.
    pub(super) saved: watch::Sender<Saved>,
    /// Rung when a report should go out at once.
    pub(super) news: Notify,
    /// Whether client connections should end.
    pub(super) leaving: watch::Sender<Leaving>,
    /// What is cut off, for the log.
    pub(super) cuts: CutLog,
    /// Which gate is in charge.
    pub(super) succession: Succession,
    stopping: AtomicBool,
    core: Mutex<Core>,
    started: Instant,
}

impl Gate {
    pub(super) fn new(settings: GateSettings, tls: Option<Arc<Tls>>) -> Arc<Self> {
        let core = Core::new(Bounds { held: settings.hold.count, in_flight: settings.limits.in_flight });
        let start_id = format!("{:016x}", rand::random::<u64>());
        Arc::new(Self {
            multiplex: Multiplex::default(),
            ids: RequestIds::new(&start_id),
            pool: Pool::new(settings.limits.pool_idle, settings.limits.pool_idle_time),
            start_id,
            connections: AtomicU64::new(0),
            refused_connections: AtomicU64::new(0),
            peers: Peers::new(settings.limits.connections_of_a_peer()),
            tls,
            applied: watch::Sender::new(core.state().clone()),
            saved: watch::Sender::default(),
            news: Notify::new(),
            leaving: watch::Sender::default(),
            cuts: CutLog::default(),
            succession: Succession::default(),
            stopping: AtomicBool::new(false),
            core: Mutex::new(core),
            started: Instant::now(),
            settings,
        })
    }

    /// Time since the gate's start.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// The runtime's name for a time of the gate's clock.
    pub(super) fn instant(&self, at: Duration) -> tokio::time::Instant {
        (self.started + at).into()
    }

    /// The core, for a few lines; never across an await. A panic in another task leaves counts that are still usable.
    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a state in force: the next request already meets it.
    pub(super) fn apply(&self, state: GateState) -> Result<(), Refusal> {
        let now = self.now();
        let mut core = self.core();
        core.apply(state.clone(), now)?;
        if *self.applied.borrow() != state {
            tracing::info!(seq = state.seq, admission = ?state.admission, upstreams = state.upstreams.len(), "gate state applied");
        }
        let (shut, dismissing) = (state.admission == Admission::Shut, dismisses(state.admission));
        // Under the lock, so that what is announced last is what is in force.
        self.applied.send_replace(state);
        drop(core);
        if !self.stopping.load(Ordering::Relaxed) {
            self.leaving.send_if_modified(|leaving| {
                let wanted =
                    Leaving { since: shut.then(|| leaving.since.unwrap_or(now)), ends_at: leaving.ends_at, dismissing };
                std::mem::replace(leaving, wanted) != wanted
            });
        }
        self.news.notify_one();
        Ok(())
    }

    /// The process is to end: every answer tells its client to leave, idle connections are closed.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let now = self.now();
        self.leaving.send_modify(|leaving| {
            leaving.since = leaving.since.or(Some(now));
            leaving.ends_at = Some(now + self.settings.limits.stop_time);
            leaving.dismissing = true;
        });
    }

    /// A newer gate has taken over. Every answer tells its client to leave, and so does HTTP/2 at once; but a client that
    /// says nothing may stay as long as any idle one: closing its connection could meet a request on its way.
    pub(super) fn retire(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let end = self.now() + self.settings.limits.replaced_time;
        self.leaving.send_modify(|leaving| {
            leaving.ends_at = leaving.ends_at.or(Some(end));
            leaving.dismissing = true;
        });
    }

    /// Whether answers should tell clients to leave.
    pub(super) fn dismisses_clients(&self) -> bool {
        let admission = self.applied.borrow().admission;
        self.stopping.load(Ordering::Relaxed) || dismisses(admission)
    }

    /// Lets a request in, at once or after it was held.
    pub(super) async fn enter(
        self: &Arc<Self>,
        ask: impl Into<Ask>,
        share: &Arc<Share>,
        patience: &mut Patience,
    ) -> Result<Ticket, Reason> {
        let ask = ask.into();
        let first = self.core().admit(ask, Arrival::New, self.now());
        match first {
            Verdict::Go(route) => Ok(Ticket::new(Arc::clone(self), route)),
            Verdict::Refuse(reason) => Err(reason),
            Verdict::Hold => self.wait_to_enter(ask, share, patience).await,
        }
    }

    async fn wait_to_enter(
        self: &Arc<Self>,
        ask: Ask,
        share: &Arc<Share>,
        patience: &mut Patience,
    ) -> Result<Ticket, Reason> {
        let waiting = share.wait(self.settings.hold.of_a_peer());
        let allowed = waiting.is_some();
        let mut place = HeldPlace { gate: Arc::clone(self), given_up: true, _waiting: waiting };
        if !allowed {
            return Err(Reason::PeerLimit);
        }
        let mut changes = self.applied.subscribe();
        let deadline = patience.until(self.settings.hold.time);
        loop {
            // Asked again after subscribing, so that a state applied in between is not missed.
            let verdict = self.core().admit(ask, Arrival::Held, self.now());
            match verdict {
                Verdict::Go(route) => {
                    place.given_up = false;
                    return Ok(Ticket::new(Arc::clone(self), route));
                }
                Verdict::Refuse(reason) => {
                    place.given_up = false;
                    return Err(reason);
                }
                Verdict::Hold => {}
            }
            match tokio::time::timeout_at(deadline, changes.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(Reason::HoldExpired),
            }
        }
    }

    /// No ready upstream could be connected to, or took the request: `why`. Waits until another state is in force, or it is
    /// time to try again.
    pub(super) async fn wait_for_reach(
        self: &Arc<Self>,
        why: Reason,
        patience: &mut Patience,
        share: &Arc<Share>,
    ) -> Result<(), Reason> {
        let (now, has_waited) = (tokio::time::Instant::now(), patience.has_begun());
        let until = patience.until(self.settings.hold.time);
        if now >= until {
            // A client that was made to wait is told that it may come again.
            return Err(if has_waited && why == Reason::Connect { Reason::HoldExpired } else { why });
        }
        let waiting = share.wait(self.settings.hold.of_a_peer());
        if waiting.is_none() || !self.core().begin_hold() {
            return Err(why);
        }
        let _place = HeldPlace { gate: Arc::clone(self), given_up: true, _waiting: waiting };
        let mut changes = self.applied.subscribe();
        // That it ran out of time, and that the gate ends, both show at the next try.
        let _either = tokio::time::timeout_at(until.min(now + patience.pause(why)), changes.changed()).await;
        Ok(())
    }

    /// Says what was cut off of all upstreams. Called when the process ends.
    pub(super) fn sum_up_cuts(&self) {
        let left = self.core().report(self.now()).in_flight;
        for tally in self.cuts.sums().into_values() {
            tally.say("the gate's time to stop was over");
        }
        if left > 0 {
            tracing::warn!(requests = left, "the gate ends with requests that have not let go");
        }
    }

    fn tell(&self, news: News) {
        if news == News::Urgent {
            self.news.notify_one();
        }
    }
}

fn dismisses(admission: Admission) -> bool {
    matches!(admission, Admission::LameDuck | Admission::Shut)
}

/// A held request's place; a client that goes away gives it up by dropping the request.
struct HeldPlace {
    gate: Arc<Gate>,
    given_up: bool,
    _waiting: Option<Waiting>,
}

impl Drop for HeldPlace {
    fn drop(&mut self) {
        if self.given_up {
            self.gate.core().leave_hold();
        }
    }
}

/// One request in flight through one upstream, until the last clone of its `Arc` is dropped.
pub(super) struct Ticket {
    gate: Arc<Gate>,
    route: Route,
    about: Option<About>,
    /// How much of it has passed.
    pub(super) passed: Passed,
    /// It was cut off, and that has been said.
    cut: AtomicBool,
}

impl Ticket {
    fn new(gate: Arc<Gate>, route: Route) -> Self {
        Self { gate, route, about: None, passed: Passed::default(), cut: AtomicBool::new(false) }
    }

    /// With what the log is to say of it, should it be cut off.
    pub(super) fn about(mut self, about: Option<About>) -> Self {
        self.about = about;
        self
    }

    /// What the log would say of it.
    pub(super) fn known(&self) -> Option<About> {
        self.about.clone()
    }

    pub(super) fn key(&self) -> u64 {
        self.route.key
    }

    pub(super) fn upstream(&self) -> &Upstream {
        &self.route.upstream
    }

    /// The head of the answer arrived.
    pub(super) fn answered(&self, status: u16) {
        let mut core = self.gate.core();
        let after = core.age(&self.route, self.gate.now());
        let news = core.record(&self.route, Event::Answered { status, after });
        drop(core);
        self.gate.tell(news);
    }

    /// The answer was 101, and the client was told: this is a tunnel from now on.
    pub(super) fn upgraded(&self) {
        let news = self.gate.core().upgrade(&self.route, self.gate.now());
        self.gate.tell(news);
    }

    /// Since when its upstream is drained.
    pub(super) fn drained_since(&self) -> Option<Duration> {
        self.gate.core().drained_since(&self.route)
    }

    /// The gate closes this tunnel because of a drain.
    pub(super) fn closes_upgraded(&self) {
        self.gate.core().closes_upgraded(&self.route);
    }

    /// Something else happened. Only an upstream's first error is logged, because a dead one would fill the log with one line
    /// per request; the others are counted and reported.
    pub(super) fn record(&self, event: Event) {
        let mut core = self.gate.core();
        let news = core.record(&self.route, event);
        let drained = core.drained_since(&self.route).is_some();
        drop(core);
        if drained && matches!(event, Event::NoAnswer | Event::Lost) {
            self.cut_off("its instance was drained and broke off");
        }
        if news == News::Urgent {
            let upstream = self.upstream();
            tracing::warn!(instance = %upstream.instance, address = %upstream.address, ?event, "first error of an upstream");
        }
        self.gate.tell(news);
    }

    /// It ends before its end, because of a drain or because the gate ends.
    pub(super) fn cut_off(&self, why: &'static str) {
        if self.cut.swap(true, Ordering::Relaxed) {
            return;
        }
        let age = self.gate.core().age(&self.route, self.gate.now());
        let Some(about) = self.about.as_ref().filter(|_| self.gate.cuts.take(self.key(), age)) else { return };
        let bytes = about.counts().then(|| self.passed.both());
        let (received_bytes, sent_bytes) = bytes.unzip();
        let (upstream, class, age_ms) = (self.upstream(), self.route.class(), millis(age));
        let (instance, version, client) = (&upstream.instance, &upstream.version, about.client);
        tracing::warn!(request = %about, %client, age_ms, received_bytes, sent_bytes, ?class, %version, %instance, why, "a request was cut off");
    }

    /// A ticket for another upstream than those tried.
    pub(super) fn elsewhere(&self, ask: impl Into<Ask>, tried: &[u64]) -> Result<Ticket, Reason> {
        let verdict = self.gate.core().admit(ask, Arrival::Again(tried), self.gate.now());
        match verdict {
            Verdict::Go(route) => Ok(Ticket::new(Arc::clone(&self.gate), route).about(self.known())),
            Verdict::Refuse(reason) => Err(reason),
            Verdict::Hold => Err(Reason::Connect),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.gate.cuts.is_ending() {
            self.cut_off("the gate's time to stop was over");
        }
        let news = self.gate.core().finish(&self.route, self.gate.now());
        // Nothing new comes to this upstream, and this was its last.
        if news == News::Urgent
            && let Some(tally) = self.gate.cuts.sum(self.key())
        {
            tally.say("their instance was drained");
        }
        self.gate.tell(news);
    }
}
