//! The agent's loop: observe, decide ([`crate::core::next`]), act, report; then wait for whatever happens next.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use handover_proto::blocker::{Blocker, BlockerKind};
use handover_proto::ids::InstanceId;
use handover_proto::keys::EnvKeys;
use handover_proto::registration::Registration;
use handover_proto::stored::{Rest, STORED_VERSION};
use handover_proto::wire::agent_server::AgentServer;
use handover_proto::wire::{DESCRIPTOR, Report};
use handover_store::client::Store;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::clock;
use crate::config::Config;
use crate::core::accept::{Accepted, Offer, Verdict, judge};
use crate::core::next::{Next, Waiting, next};
use crate::core::observed::{Instance, Observed, Slot};
use crate::driver::{Driver, Exit, Owner};
use crate::gate::client::GateLink;
use crate::host::Host;
use crate::lease::KeeperHandle;
use crate::lease::wanted::{KeeperStatus, LeaseState, Wanted};
use crate::register::{self, FromStore};
use crate::report::{Sources, report};
use crate::routing::Routing;
use crate::service::{AgentService, Answer, OfferError, Offered};
use crate::state::StateFile;

/// Laps in a row without waiting. A start takes four; more than this is a decision that undoes itself.
const LAPS: usize = 32;
/// Counters reach the reports at least this often while they move.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Runs the agent until SIGTERM or SIGINT. Instances, gate and lease outlive it.
///
/// # Errors
/// If it cannot start: config, ports, state file, a name that is taken.
pub async fn run(config: Config) -> Result<()> {
    let config = Arc::new(config);
    let _lock = prepare(&config)?;
    let boot_id = clock::boot_id().context("cannot read the host's boot id from /proc")?;
    let file = StateFile::open(&config.state_dir)?;
    let grpc = bind("listen", config.listen).await?;
    let operations = bind("operations", config.operations).await?;
    let store = Store::connect(&config.store)?;
    let owner = Owner {
        env: config.env.clone(),
        service: config.service.clone(),
        agent: config.agent.clone(),
        state_dir: config.state_dir.clone(),
    };
    let (driver, exits) = Driver::open(&config.driver, owner)?;
    let driver = Arc::new(driver);
    let wake = Arc::new(Notify::new());

    let registration = registration(&config, &file, &boot_id);
    let mut from_store = follow_store(&config, &store, registration).await?;
    let host = Host::take_over(config.clone(), driver.clone(), file, boot_id.clone(), wake.clone()).await?;
    let routing = Routing::new(GateLink::connect(&config.gate.control), config.slots.clone());
    let (wanted, wanted_seen) = watch::channel(Wanted::default());
    let keeper = keeper(&config, &driver, wanted_seen)?;
    let (reports, reports_seen) = watch::channel(Report::default());
    let mut offers = serve(&config, store, grpc, operations, reports_seen);

    let mut agent = AgentLoop {
        config,
        boot_id,
        host,
        routing,
        keeper,
        wanted,
        reports,
        blocker: None,
        last_sentence: String::new(),
    };
    agent.go(&mut offers, &mut from_store, exits, &wake).await
}

/// Directories, and the lock that keeps a second agent out of them.
fn prepare(config: &Config) -> Result<nix::fcntl::Flock<std::fs::File>> {
    for dir in [&config.state_dir, &config.runtime_dir] {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make directory {}", dir.display()))?;
    }
    let path = config.state_dir.join("agent.lock");
    let file = std::fs::File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        anyhow::anyhow!("{}: another agent runs with this state_dir ({errno}); stop it, or use another", path.display())
    })
}

async fn bind(field: &str, address: std::net::SocketAddr) -> Result<TcpListener> {
    let taken = || format!("`{field}`: cannot listen on {address}; free the port, or choose another in the config");
    TcpListener::bind(address).await.with_context(taken)
}

fn registration(config: &Config, file: &StateFile, boot_id: &str) -> Registration {
    Registration {
        v: STORED_VERSION,
        agent: config.agent.clone(),
        service: config.service.clone(),
        endpoint: config.listen,
        operations: config.operations,
        host: config.host.clone(),
        slots: config.slots.clone(),
        labels: config.labels.clone(),
        state_dir_id: file.state.state_dir_id.clone(),
        boot_id: boot_id.to_owned(),
        agent_version: env!("CARGO_PKG_VERSION").into(),
        protocol: (1, 1),
        rest: Rest::new(),
    }
}

/// Registers and follows the own assignment. Waits for the first word on the name, since an agent whose name is taken
/// must not touch anything; an unreachable store is no reason not to start (fail static).
async fn follow_store(config: &Config, store: &Store, me: Registration) -> Result<mpsc::Receiver<FromStore>> {
    let keys = EnvKeys::new(&config.env).service(&config.service);
    let (out, mut said) = mpsc::channel(16);
    tokio::spawn(register::stay_registered(store.clone(), keys.clone(), me, out.clone()));
    match said.recv().await {
        Some(FromStore::Refused(error)) => bail!(error),
        Some(FromStore::Away(reason)) => {
            warn!(%reason, "the store does not answer; starting with what the state file knows");
        }
        Some(FromStore::Registered | FromStore::Assigned(_)) | None => {}
    }
    tokio::spawn(register::follow_assignment(store.clone(), keys, config.agent.clone(), out));
    Ok(said)
}

fn keeper(config: &Config, driver: &Arc<Driver>, wanted: watch::Receiver<Wanted>) -> Result<Option<KeeperHandle>> {
    let Some(settings) = config.lease.clone() else { return Ok(None) };
    let driver = driver.clone();
    // Called on the keeper's own thread, and carried out there: nothing on the main loop can delay it.
    let kill = Arc::new(move |instance: &InstanceId| {
        let (driver, instance) = (driver.clone(), instance.clone());
        tokio::spawn(async move {
            if let Err(error) = driver.kill(&instance).await {
                error!(%instance, %error, "the holder of a lease that is over could not be killed");
            }
        });
    });
    let place = crate::lease::Place {
        endpoints: config.store.clone(),
        env: config.env.clone(),
        service: config.service.clone(),
        agent: config.agent.clone(),
        state_dir: config.state_dir.clone(),
        runtime_dir: config.runtime_dir.clone(),
    };
    Ok(Some(crate::lease::spawn(settings, place, wanted, kill, CancellationToken::new())?))
}

fn serve(
    config: &Arc<Config>,
    store: Store,
    grpc: TcpListener,
    operations: TcpListener,
    reports: watch::Receiver<Report>,
) -> mpsc::Receiver<Offered> {
    let keys = EnvKeys::new(&config.env).service(&config.service);
    let (offers_out, offers) = mpsc::channel(16);
    let service = AgentServer::new(AgentService::new(store, (&config.env, keys), offers_out, reports.clone()));
    tokio::spawn(crate::ops::serve(operations, reports));
    tokio::spawn(async move {
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<AgentServer<AgentService>>().await;
        let reflection =
            tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTOR).build_v1();
        let server = tonic::transport::Server::builder().add_service(health_service).add_service(service);
        let server = match reflection {
            Ok(reflection) => server.add_service(reflection),
            Err(error) => {
                error!(%error, "no gRPC reflection");
                server
            }
        };
        if let Err(error) = server.serve_with_incoming(TcpListenerStream::new(grpc)).await {
            error!(error = %crate::report::chain(&error), "the gRPC server ended");
        }
    });
    offers
}

struct AgentLoop {
    config: Arc<Config>,
    boot_id: String,
    host: Host,
    routing: Routing,
    keeper: Option<KeeperHandle>,
    wanted: watch::Sender<Wanted>,
    reports: watch::Sender<Report>,
    blocker: Option<Blocker>,
    last_sentence: String,
}

impl AgentLoop {
    async fn go(
        &mut self,
        offers: &mut mpsc::Receiver<Offered>,
        from_store: &mut mpsc::Receiver<FromStore>,
        mut exits: mpsc::Receiver<Exit>,
        wake: &Notify,
    ) -> Result<()> {
        let mut gate = self.routing.watch();
        let mut keeper = self.keeper.as_ref().map(|keeper| keeper.status.clone());
        let mut stop = crate::signals::stop()?;
        loop {
            let wake_at = self.settle().await;
            let until = wake_at.map(|at| at.saturating_sub(clock::boot()));
            tokio::select! {
                Some(offered) = offers.recv() => self.offered(offered),
                Some(said) = from_store.recv() => self.store_said(said)?,
                Some(exit) = exits.recv() => self.exited(&exit),
                _ = gate.changed() => {}
                () = changed(&mut keeper) => {}
                () = wake.notified() => {}
                () = sleep(until) => {}
                () = stop.recv() => break,
            }
        }
        info!("stopping; instances, gate and lease go on without the agent");
        Ok(())
    }

    /// Laps until nothing is left to do now. Returns when to look again though nothing happened.
    async fn settle(&mut self) -> Option<Duration> {
        let mut trouble = None;
        for _ in 0..LAPS {
            let observed = self.observe();
            let assignment = self.host.file.state.accepted.as_ref().and_then(|accepted| accepted.parsed.clone());
            let decided = next(assignment.as_ref(), &observed, self.config.grace(), clock::boot());
            let Some(decided) = decided else {
                self.tell_keeper(None);
                self.publish(&observed, None);
                return None;
            };
            self.routing.tell(&decided.routes);
            self.tell_keeper(Some(&decided));
            if decided.effects.is_empty() || trouble.is_some() {
                self.note_reached(&decided);
                self.publish(&observed, trouble.or(decided.waiting.clone()));
                return [decided.wake_at, self.host.trust_ends(clock::boot())].into_iter().flatten().min();
            }
            for effect in &decided.effects {
                trouble = self.host.act(effect).await.or(trouble);
            }
        }
        error!("the agent's decisions do not come to rest; please report this with the log");
        Some(clock::boot() + REPORT_EVERY)
    }

    fn observe(&mut self) -> Observed {
        let keeper = self.keeper.as_ref().map(|keeper| keeper.status.borrow().clone());
        let lets_go = |instance: &_| keeper.as_ref().is_none_or(|status| may_stop(status, instance));
        let held = |instance: &InstanceId| keeper.as_ref().is_some_and(|status| holds(status, instance));
        self.host.forget_departed(held);
        let gate = self.routing.seen();
        let slots = self.host.places.iter().map(|(id, place)| {
            let instance = place.running.as_ref().map(|running| {
                let id = &running.record.instance;
                Instance {
                    id: id.clone(),
                    version: running.record.version.clone(),
                    process: running.process,
                    lifecycle: running.record.lifecycle,
                    ready: running.ready(),
                    unmet: running.unmet(),
                    ledger: self.routing.ledger(id),
                    draining_since: running.draining_since,
                    holds_lease: keeper.as_ref().is_some_and(|status| holds(status, id)),
                    lease_lets_stop: lets_go(id),
                }
            });
            (id.clone(), Slot { instance, crashes: place.crashes.clone() })
        });
        Observed { slots: slots.collect(), gate }
    }

    fn tell_keeper(&self, decided: Option<&Next>) {
        let none = Default::default();
        let wanted = self.host.wanted(decided.map_or(&none, |decided| &decided.lease));
        self.wanted.send_if_modified(|before| {
            let changed = *before != wanted;
            *before = wanted;
            changed
        });
    }

    fn note_reached(&mut self, decided: &Next) {
        let serial = self.host.file.state.accepted.as_ref().map(|accepted| accepted.serial);
        let Some(serial) = serial.filter(|_| decided.reached) else { return };
        if let Err(error) = self.host.file.change(|state| state.reached = serial) {
            warn!(%error, "what was reached could not be recorded");
        }
    }

    /// One sentence per lap that changed something, and the report.
    fn publish(&mut self, observed: &Observed, waiting: Option<Waiting>) {
        let sentence = match &waiting {
            Some(waiting) => format!("waiting for {}: {}", waiting.kind, waiting.sentence),
            None => "as assigned".to_owned(),
        };
        if sentence != self.last_sentence {
            info!(serial = self.accepted_serial(), "{sentence}");
            self.last_sentence = sentence;
        }
        let since = |kind: BlockerKind| match &self.blocker {
            Some(blocker) if blocker.kind == kind => blocker.since_ms,
            _ => clock::wall_ms(),
        };
        self.blocker = waiting.map(|waiting| Blocker {
            kind: waiting.kind,
            since_ms: since(waiting.kind),
            waiting_for: waiting.sentence,
        });
        let keeper = self.keeper.as_ref().map(|keeper| keeper.status.borrow().clone());
        let gate = self.routing.report();
        let fresh = report(&Sources {
            config: &self.config,
            boot_id: &self.boot_id,
            host: &self.host,
            observed,
            gate: gate.as_ref(),
            keeper: keeper.as_ref(),
            blocker: self.blocker.as_ref(),
        });
        self.reports.send_if_modified(|before| {
            let changed = *before != fresh;
            *before = fresh;
            changed
        });
    }

    fn accepted_serial(&self) -> i64 {
        self.host.file.state.accepted.as_ref().map_or(0, |accepted| accepted.serial.0)
    }

    fn offered(&mut self, offered: Offered) {
        let answer = self.judge(&offered.offer, offered.verified);
        if let Err(error) = &answer {
            warn!(%error, "an assignment was not taken");
        }
        // The caller may have given up; the assignment counts all the same.
        drop(offered.answer.send(answer));
    }

    /// Records what is new before anything acts on it.
    fn judge(&mut self, offer: &Offer, verified: Option<handover_proto::numbers::Term>) -> Result<Answer, OfferError> {
        match judge(self.host.file.state.accepted.as_ref(), offer, verified)? {
            Verdict::Same => Ok(Answer::Accepted(offer.serial)),
            Verdict::VerifyTerm(_) => Ok(Answer::VerifyTerm),
            Verdict::New(assignment) => {
                let accepted = Accepted {
                    term: offer.term,
                    serial: offer.serial,
                    text: offer.text.clone(),
                    parsed: Some(assignment),
                };
                let saved = self.host.file.change(|state| state.accepted = Some(accepted));
                saved.map_err(|error| OfferError::Disk(crate::report::chain(&error)))?;
                Ok(Answer::Accepted(offer.serial))
            }
        }
    }

    fn store_said(&mut self, said: FromStore) -> Result<()> {
        match said {
            FromStore::Registered => debug!("the name is ours"),
            // The store was restored or the name was taken while we were away: whatever serves goes on serving.
            FromStore::Refused(error) => error!(error = %crate::report::chain(&error), "not registered"),
            FromStore::Away(reason) => debug!(%reason, "the store is away"),
            FromStore::Assigned(offer) => {
                let term = offer.term;
                if let Err(error) = self.judge(&offer, Some(term)) {
                    warn!(%error, "the assignment in the store was not taken");
                }
            }
        }
        Ok(())
    }

    fn exited(&mut self, exit: &Exit) {
        if let Some(trouble) = self.host.exited(exit) {
            warn!(reason = trouble.sentence, "the end of an instance could not be recorded");
        }
    }
}

fn holds(status: &KeeperStatus, instance: &InstanceId) -> bool {
    use LeaseState::{Candidate, Fenced, Holder, None, Quiescing, Starting, Stopped};
    status.instances.get(instance).is_some_and(|lease| match lease.state {
        Starting | Holder | Quiescing | Stopped => true,
        None | Candidate | Fenced => false,
    })
}

fn may_stop(status: &KeeperStatus, instance: &InstanceId) -> bool {
    status.instances.get(instance).is_some_and(|lease| lease.may_stop)
}

async fn sleep(until: Option<Duration>) {
    match until {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

async fn changed(keeper: &mut Option<watch::Receiver<KeeperStatus>>) {
    match keeper {
        Some(status) => drop(status.changed().await),
        None => std::future::pending().await,
    }
}

/// Runs the gate until SIGTERM or SIGINT.
///
/// # Errors
/// If it cannot start.
pub async fn run_gate(config: Config) -> Result<()> {
    for dir in [&config.state_dir, &config.runtime_dir] {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make directory {}", dir.display()))?;
    }
    let mut stop = crate::signals::stop()?;
    crate::gate::server::run(config.gate, async move { stop.recv().await }).await?;
    Ok(())
}

/// Reads a config; for `main` and `check`.
///
/// # Errors
/// As [`Config::read`].
pub fn read(path: &Path) -> Result<Config> {
    Ok(Config::read(path)?)
}
