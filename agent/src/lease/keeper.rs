//! The keeper's thread: one current-thread runtime, one loop over the core, so that nothing else can delay a renewal.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use handover_proto::ids::OpId;
use handover_proto::ids::{AgentId, Env, Service};
use handover_proto::keys::EnvKeys;
use handover_proto::numbers::Token;
use handover_proto::wire::CertifyReply;
use handover_store::client::{Access, OpenError, Store};
use handover_tls::Parties;
use tokio::net::UnixListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::acks::Acks;
use super::certificate::Certified;
use super::clock::{ClockError, boot_now, identity, wall_ms};
use super::effects::{Effects, Kill};
use super::event::Event;
use super::fitness::{HostFacts, KillTime};
use super::memory::Memory;
use super::next::{NextError, Now};
use super::settings::{LeaseSettings, ServiceSide, SettingsError};
use super::socket::desk::Desk;
use super::socket::peer::Callers;
use super::socket::{self, SocketError};
use super::started::Illegal;
use super::state::Core;
use super::status::{Board, differs};
use super::step::LeaseStep;
use super::tick::{self, Ticker};
use super::trial::{self, Trial};
use super::waiting::Waiting;
use super::wanted::{KeeperStatus, Wanted};
use super::{deadline::Boot, files};
use crate::durable::{self, DurableError};

/// The state file in the state directory.
const STATE_FILE: &str = "lease-keeper.json";
/// Timers run on CLOCK_MONOTONIC, which a suspend stops and CLOCK_BOOTTIME does not. While there are deadlines the tick
/// thread wakes the keeper after a suspend; without any, this is early enough.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);
/// After a lap that could not decide: nothing but an event helps, and it must not spin.
const STUCK_REST: Duration = Duration::from_millis(500);

/// What the keeper needs to know of its place.
pub struct Place {
    /// The way to the store.
    pub store: Access,
    /// The other agents, which are asked for stop certificates.
    pub parties: Parties,
    /// The environment.
    pub env: Env,
    /// The service.
    pub service: Service,
    /// This agent; for the log.
    pub agent: AgentId,
    /// Holds the state file; exists.
    pub state_dir: PathBuf,
    /// Holds the socket and each slot's `lease.json`; exists.
    pub runtime_dir: PathBuf,
    /// Who may ask on the socket.
    pub callers: Callers,
    /// What is known of the host.
    pub host: HostFacts,
    /// Tries how long a kill takes; it may block. None: `c_kill` is taken as configured.
    pub trial: Option<Trial>,
}

/// The running keeper.
pub struct KeeperHandle {
    /// Its status; closed when it has ended.
    pub status: watch::Receiver<KeeperStatus>,
    /// Answers agents that would take over.
    pub certifier: Certifier,
    /// Counts its decisions.
    pub laps: Arc<AtomicU64>,
    /// Its thread.
    pub join: JoinHandle<Result<(), LeaseError>>,
}

/// The keeper cannot run.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The settings contradict each other.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The clock.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The endpoints, or the files of TLS.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The state file.
    #[error(transparent)]
    State(#[from] DurableError),
    /// A mistake is to be planted that there is not; only in builds for chaos.
    #[error(transparent)]
    Planted(#[from] handover_proto::planted::NoSuchMistake),
    /// The thread or its runtime.
    #[error("cannot start the lease keeper's thread")]
    Thread(#[source] std::io::Error),
}

/// Starts the keeper. It ends with `shutdown`, and with it nothing of the lease: what it holds, it goes on holding until
/// the deadline, so that the agent can be restarted or upgraded.
///
/// # Errors
/// [`LeaseError`], before anything of the lease is touched.
pub fn spawn(
    settings: LeaseSettings,
    place: Place,
    wanted: watch::Receiver<Wanted>,
    kill: Kill,
    shutdown: CancellationToken,
) -> Result<KeeperHandle, LeaseError> {
    settings.check()?;
    if let Some(warning) = settings.warning() {
        tracing::warn!("{warning}");
    }
    let clock = identity()?;
    boot_now()?;
    let store = Store::open(&place.store)?;
    let state_file = place.state_dir.join(STATE_FILE);
    let memory: Option<Memory> = durable::load(&state_file)?;
    let listener = socket::bind(&place.runtime_dir.join(socket::NAME), place.callers.names_others())?;
    let env = EnvKeys::new(&place.env);
    let service = env.service(&place.service);
    let call_path = settings.call_path.clone();
    let acks = (settings.service == ServiceSide::Pull).then(Acks::default);
    let quick_enough = settings.c_kill / 2;
    let host = HostFacts { kill: place.trial.as_ref().map_or(KillTime::Assumed, |_| KillTime::UnderWay), ..place.host };
    let core = Core::new(settings, service.lease(), &clock.boot_id, memory).on_host(host);
    let (status, status_seen) = watch::channel(KeeperStatus::default());
    let (board, board_seen) = watch::channel(Board::new());
    let (events, inbox) = unbounded_channel();
    let effects = Effects {
        store,
        parties: place.parties.clone(),
        events,
        kill,
        clock: clock.clone(),
        call_path,
        acks: acks.clone(),
        state_file,
        env,
        service,
        watch: None,
        calls: std::collections::BTreeMap::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(LeaseError::Thread)?;
    let (asks, asked) = unbounded_channel();
    let ticker = Ticker::start(&clock.boot_id).map_err(LeaseError::Thread)?;
    let laps = Arc::new(AtomicU64::new(0));
    let keeper = Keeper {
        core,
        effects,
        inbox,
        wanted,
        status,
        board,
        asked,
        open: Vec::new(),
        ticker,
        laps: laps.clone(),
        shutdown,
    };
    let desk = Desk { board: board_seen.clone(), clock: clock.clone(), callers: place.callers, acks };
    let run = move || {
        tick::raise();
        // Mistakes are planted per thread, and decisions are made on this one; a shipped build has none.
        handover_proto::planted::plant_from_env()?;
        let done = runtime.block_on(async move {
            let listener = UnixListener::from_std(listener).map_err(LeaseError::Thread)?;
            let aside = [
                tokio::spawn(socket::serve(listener, desk)),
                tokio::spawn(files::keep(board_seen, place.runtime_dir, clock)),
            ];
            if let Some(trial) = place.trial {
                trial::begin(trial, quick_enough, keeper.effects.events.clone()).map_err(LeaseError::Thread)?;
            }
            let done = keeper.run().await;
            aside.iter().for_each(tokio::task::JoinHandle::abort);
            done
        });
        runtime.shutdown_background();
        tracing::info!(agent = %place.agent, "the lease keeper has ended; what is held stays held until its deadline");
        done
    };
    let join = std::thread::Builder::new().name("lease-keeper".to_owned()).spawn(run).map_err(LeaseError::Thread)?;
    Ok(KeeperHandle { status: status_seen, certifier: Certifier(asks), laps, join })
}

/// A token, and where the answer goes.
type Question = (Token, oneshot::Sender<CertifyReply>);

/// Asks the keeper whether a service has stopped for good.
#[derive(Debug, Clone)]
pub struct Certifier(UnboundedSender<Question>);

impl Certifier {
    /// The answer for `token`, all but the agent's name; none: the keeper has ended.
    pub async fn certify(&self, token: Token) -> Option<CertifyReply> {
        let (answer, answered) = oneshot::channel();
        self.0.send((token, answer)).ok()?;
        answered.await.ok().map(|reply| CertifyReply { token: token.get(), ..reply })
    }
}

struct Keeper {
    core: Core,
    effects: Effects,
    inbox: UnboundedReceiver<Event>,
    wanted: watch::Receiver<Wanted>,
    status: watch::Sender<KeeperStatus>,
    board: watch::Sender<Board>,
    asked: UnboundedReceiver<Question>,
    /// Questions whose answer waits for the state file.
    open: Vec<Question>,
    ticker: Ticker,
    laps: Arc<AtomicU64>,
    shutdown: CancellationToken,
}

/// A lap that could not decide.
#[derive(Debug, thiserror::Error)]
enum LapError {
    #[error(transparent)]
    Next(#[from] NextError),
    #[error(transparent)]
    Illegal(#[from] Illegal),
}

impl Keeper {
    async fn run(mut self) -> Result<(), LeaseError> {
        self.effects.follow();
        let first = self.wanted.borrow_and_update().clone();
        self.core.apply(Event::Wanted(first), boot_now()?);
        loop {
            self.look()?;
            let now = boot_now()?;
            let lap = self.lap(now);
            self.laps.fetch_add(1, Ordering::Relaxed);
            let (until, reason) = lap.unwrap_or_else(|error| {
                tracing::error!(error = %error, "the lease keeper cannot decide");
                (Some(now.plus(STUCK_REST)), Some(Waiting::Refused(error.to_string())))
            });
            self.show(reason.as_ref(), now);
            self.answer(now);
            self.ticker.watch(self.core.has_much_to_lose());
            let sleep = until.map_or(LONGEST_SLEEP, |until| until.since(now).min(LONGEST_SLEEP));
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Ok(()),
                Some(event) = self.inbox.recv() => {
                    self.look()?;
                    self.core.apply(event, boot_now()?);
                }
                Some(question) = self.asked.recv() => {
                    self.core.apply(Event::CertifyAsked(question.0), boot_now()?);
                    self.open.push(question);
                }
                Ok(()) = self.wanted.changed() => {
                    let wanted = self.wanted.borrow_and_update().clone();
                    self.core.apply(Event::Wanted(wanted), boot_now()?);
                }
                () = self.ticker.found() => {}
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// Before anything is decided or taken in: has this host been away?
    fn look(&mut self) -> Result<(), LeaseError> {
        if let Some((what, at)) = self.ticker.look()? {
            tracing::warn!("{what}; nothing from before counts until the lease is confirmed");
            self.core.apply(Event::Suspected { what, at }, boot_now()?);
        }
        Ok(())
    }

    /// Steps until there is nothing to do but to wait: until when, and for what.
    fn lap(&mut self, now: Boot) -> Result<(Option<Boot>, Option<Waiting>), LapError> {
        loop {
            let step = self.core.next(&Now { boot: now, wall_ms: wall_ms(), op: OpId::random() })?;
            if let LeaseStep::Wait { until, reason } = step {
                return Ok((until, reason));
            }
            self.core.started(&step, now)?;
            log(&step, &self.core);
            if matches!(step, LeaseStep::Order { .. } | LeaseStep::Begin { .. } | LeaseStep::End { .. }) {
                self.publish();
            }
            let app = match &step {
                LeaseStep::Tell { instance, .. } => self.core.app(instance),
                _ => None,
            };
            self.effects.start(step, app, now);
        }
    }

    /// Answers the questions for certificates that can be answered now.
    fn answer(&mut self, now: Boot) {
        for question in std::mem::take(&mut self.open) {
            match self.core.certify(question.0) {
                // Whoever asked may have gone; then nobody needs the answer.
                Certified::Unwritten if !question.1.is_closed() => self.open.push(question),
                certified => drop(question.1.send(certified.reply(now, wall_ms()))),
            }
        }
    }

    fn publish(&self) {
        let board = self.core.board();
        self.board.send_if_modified(|old| {
            let changed = *old != board;
            *old = board;
            changed
        });
    }

    fn show(&self, reason: Option<&Waiting>, now: Boot) {
        self.publish();
        self.status.send_if_modified(|old| {
            let new = self.core.status(old, reason, now, wall_ms());
            let changed = differs(old, &new);
            *old = new;
            changed
        });
    }
}

fn log(step: &LeaseStep, core: &Core) {
    match step {
        LeaseStep::Begin { instance, turn } => tracing::info!(%instance, turn = ?turn, "holds the lease"),
        LeaseStep::End { instance } => tracing::info!(%instance, "its turn has ended"),
        LeaseStep::Order { instance, order } => {
            tracing::info!(%instance, why = order.reason(), "tells the service {order:?}")
        }
        LeaseStep::Decline { instance, op } => tracing::warn!(%instance, %op, "declines to hand over"),
        LeaseStep::Kill { instance } => {
            let why = core.doom_of(instance).map(|doom| doom.to_string()).unwrap_or_default();
            tracing::error!(%instance, "kills the instance: {why}")
        }
        LeaseStep::Move { instance, kind, op, .. } => tracing::info!(%instance, %op, "sends {kind:?}"),
        other => tracing::debug!(step = other.name(), "lease step"),
    }
}
