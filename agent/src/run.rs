//! Starting the agent, and the gate: everything is opened in order, then [`crate::agent_loop`] turns.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use handover_proto::ids::{AgentId, InstanceId};
use handover_proto::keys::EnvKeys;
use handover_proto::registration::Registration;
use handover_proto::staging::Stages;
use handover_proto::stored::{Rest, STORED_VERSION};
use handover_proto::wire::agent_server::AgentServer;
use handover_proto::wire::{DESCRIPTOR, Report};
use handover_store::client::Store;
use handover_tls::Parties;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tracing::{error, warn};

use crate::agent_loop::{AgentLoop, Memory};
use crate::artifact::neighbours;
use crate::balancer::Balancers;
use crate::clock;
use crate::config::Config;
use crate::driver::{Driver, Opening, Owner};
use crate::gate::client::GateLink;
use crate::gate::server::{Beginning, Server};
use crate::host::Host;
use crate::kill_target::{KILL_TARGET, OWN_PROGRAM};
use crate::lease::deadline::Boot;
use crate::lease::fitness::HostFacts;
use crate::lease::socket::peer::Callers;
use crate::lease::wanted::Wanted;
use crate::lease::{Certifier, KeeperHandle};
use crate::notify::ServiceManager;
use crate::register::{self, FromStore};
use crate::routing::{GateRouting, Routing};
use crate::service::{AgentService, Offered};
use crate::signal_mode::SignalRouting;
use crate::stager::Stager;
use crate::state::StateFile;
use crate::watchdog;

/// Between two starts of a gate that cannot start.
const NEXT_START: Duration = Duration::from_secs(1);
/// A gate answers within milliseconds; after this its silence is what there is to report.
const FIRST_WORD: Duration = Duration::from_secs(1);

/// Runs the agent until SIGTERM or SIGINT. Instances, gate and lease outlive it.
///
/// # Errors
/// If it cannot start: config, ports, state file, a name that is taken.
pub async fn run(config: Config) -> Result<()> {
    let config = Arc::new(config);
    let _lock = prepare(&config)?;
    let boot_id = clock::boot_id().context("cannot read the host's boot id from /proc")?;
    let file = StateFile::open(&config.state_dir)?;
    leave_mark(&config);
    let grpc = bind("listen", config.listen).await?;
    let operations = bind("operations", config.operations).await?;
    let (store, parties) = (Store::open(&config.store)?, config.parties()?);
    for tls in store.tls().into_iter().chain(parties.tls()) {
        tokio::spawn(tls.clone().warn_of_expiry());
    }
    let owner = Owner {
        env: config.env.clone(),
        service: config.service.clone(),
        agent: config.agent.clone(),
        state_dir: config.state_dir.clone(),
    };
    let wake = Arc::new(Notify::new());
    let opening = Opening {
        owner,
        slots: config.slots.keys().cloned().collect(),
        runtime_dir: config.runtime_dir.clone(),
        finish: config.finish(),
        wake: wake.clone(),
    };
    let (driver, told) = Driver::open(&config.driver, opening).await?;
    let driver = Arc::new(driver);

    let registration = registration(&config, &file, &boot_id);
    let mut from_store = follow_store(&config, &store, registration).await?;
    let host = Host::take_over(config.clone(), driver.clone(), file, boot_id.clone(), wake.clone()).await?;
    let balancers = Balancers::open(&config.balancer, config.by(), config.targets(), &config.state_dir, &wake).await?;
    let routing = routing(&config, &wake);
    let (wanted, wanted_seen) = watch::channel(Wanted::default());
    let keeper = keeper(&config, parties.clone(), &driver, wanted_seen)?;
    let (reports, reports_seen) = watch::channel(Report::default());
    let certifier = keeper.as_ref().map(|keeper| (config.agent.clone(), keeper.certifier.clone()));
    tokio::spawn(watchdog::keep_telling(reports_seen.clone(), keeper.as_ref().map(|keeper| keeper.laps.clone())));
    let stager = Stager::start(config.clone(), store.clone(), wake.clone());
    let mut offers = serve(&config, (store, parties), (grpc, operations), reports_seen, certifier);

    let memory = Memory::silent_until(clock::boot() + FIRST_WORD);
    let manager = ServiceManager::of_environment();
    let mut agent =
        AgentLoop { config, boot_id, host, routing, balancers, keeper, stager, wanted, reports, manager, memory };
    agent.go(&mut offers, &mut from_store, told, &wake).await
}

fn routing(config: &Config, wake: &Arc<Notify>) -> Routing {
    match &config.gate {
        Some(gate) => Routing::Proxy(GateRouting::new(GateLink::connect(&gate.control), config.slots.clone())),
        None => Routing::Signal(SignalRouting::new(wake.clone())),
    }
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

/// For agents that share its directory of versions.
fn leave_mark(config: &Config) {
    let builds = config.driver.builds();
    if let Err(error) = neighbours::mark(builds, &config.service, &config.agent, &config.state_dir)
        && config.artifact.is_some()
    {
        let error = crate::report::chain(&error);
        warn!(error, "another agent of this service that shares the builds may prune what this one needs");
    }
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
        stages: Some(match config.artifact.as_ref().and_then(|artifact| artifact.fetch.as_ref()) {
            Some(_) => Stages::Fetches,
            None => Stages::Verifies,
        }),
        hold_ms: config.may_hold().map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
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

fn keeper(
    config: &Config,
    parties: Parties,
    driver: &Arc<Driver>,
    wanted: watch::Receiver<Wanted>,
) -> Result<Option<KeeperHandle>> {
    let Some(settings) = config.lease.clone().filter(|lease| lease.enabled) else { return Ok(None) };
    let host = HostFacts {
        watchdog: watchdog::period(),
        began: clock::process_began().map(|began| Boot::default().plus(began)),
        ..HostFacts::default()
    };
    let (driver, tries) = (driver.clone(), driver.clone());
    let target = [OWN_PROGRAM.to_owned(), KILL_TARGET.to_owned()];
    let trial = Box::new(move || tries.kill_time(&target).map_err(|error| crate::report::chain(&error)));
    // Called on a thread of the keeper's own, and carried out there: nothing on the main loop can delay it.
    let kill = Arc::new(move |instance: &InstanceId| {
        let killed = tokio::runtime::Handle::current().block_on(driver.kill(instance));
        killed.map_err(|error| {
            error!(%instance, %error, "the holder of a lease that is over could not be killed");
            crate::report::chain(&error)
        })
    });
    let place = crate::lease::Place {
        store: config.store.clone(),
        parties,
        env: config.env.clone(),
        service: config.service.clone(),
        agent: config.agent.clone(),
        state_dir: config.state_dir.clone(),
        runtime_dir: config.runtime_dir.clone(),
        host,
        trial: Some(trial),
        callers: Callers::new(nix::unistd::geteuid().as_raw(), config.callers.clone()),
    };
    Ok(Some(crate::lease::spawn(settings, place, wanted, kill, CancellationToken::new())?))
}

fn serve(
    config: &Arc<Config>,
    (store, parties): (Store, Parties),
    (grpc, operations): (TcpListener, TcpListener),
    reports: watch::Receiver<Report>,
    certifier: Option<(AgentId, Certifier)>,
) -> mpsc::Receiver<Offered> {
    let keys = EnvKeys::new(&config.env).service(&config.service);
    let (offers_out, offers) = mpsc::channel(16);
    let service = AgentService::new(store, (&config.env, keys), offers_out, reports.clone());
    let service = AgentServer::new(service.certifying(certifier).among(parties.clone()));
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
        let ended = match parties.tls() {
            Some(tls) => server.serve_with_incoming(handover_tls::incoming(grpc, tls.clone())).await,
            // Without nodelay a report waits for the acknowledgement of the one before: 40 ms, measured.
            None => server.serve_with_incoming(TcpIncoming::from(grpc).with_nodelay(Some(true))).await,
        };
        if let Err(error) = ended {
            error!(error = %crate::report::chain(&error), "the gRPC server ended");
        }
    });
    offers
}

/// The config wants no gate. Another start would change nothing: the unit does not try again after [`NoGate::EXIT_CODE`].
#[derive(Debug, thiserror::Error)]
#[error("the config says mode = \"signal\": there is no gate to run; disable its unit")]
pub struct NoGate;

impl NoGate {
    /// sysexits' EX_CONFIG; `RestartPreventExitStatus=` of the gate's unit.
    pub const EXIT_CODE: u8 = 78;
}

/// Runs the gate of the config in this file until SIGTERM or SIGINT, or until a newer one has taken over.
///
/// # Errors
/// If it cannot start; [`NoGate`] if it is not to.
pub async fn run_gate(config: &Path, beginning: Beginning) -> Result<()> {
    let mut stop = crate::signals::stop()?;
    let retried = std::env::var_os("NOTIFY_SOCKET").is_some() && !beginning.replace;
    let server = match begin_gate(config, beginning).await {
        Ok(server) => server,
        Err(error) => {
            // The service manager starts it again at once, which is right after a crash.
            if retried && !error.is::<NoGate>() {
                let error = format!("{error:#}");
                error!(%error, "the gate cannot start; the next try comes in a second");
                tokio::select! {
                    () = tokio::time::sleep(NEXT_START) => {}
                    () = stop.recv() => {}
                }
            }
            return Err(error);
        }
    };
    server.serve(async move { stop.recv().await }).await?;
    Ok(())
}

async fn begin_gate(config: &Path, beginning: Beginning) -> Result<Server> {
    let config = read(config)?;
    for dir in [&config.state_dir, &config.runtime_dir] {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make directory {}", dir.display()))?;
    }
    Ok(Server::begin(config.gate.ok_or(NoGate)?, beginning).await?)
}

/// Reads a config; for `main` and `check`.
///
/// # Errors
/// As [`Config::read`].
pub fn read(path: &Path) -> Result<Config> {
    Ok(Config::read(path)?)
}
