//! The gate as a process: gets its listener, restores, accepts, hands over or stops.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio_util::task::AbortOnDropHandle;

use super::background::Background;
use super::clients::Clients;
use super::control_socket::{ControlSocket, EndpointError};
use super::handover::forerunners;
use super::handover::given::{Given, WrongAddress};
use super::handover::source::{Listening, Source};
use super::handover::succession::{Phase, Post};
use super::handover::take::{TakeOver, TakeOverError};
use super::settings::{GateSettings, SettingsError};
use super::ticket::Gate;
use super::tls::{Tls, TlsError};
use super::{heap, open_files, report, saving};
use crate::notify::ServiceManager;

/// How long the last report may take to reach those who listen.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why the gate did not start, or did not stop in good order.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The settings cannot work.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The address cannot be listened on.
    #[error(
        "the gate cannot listen on {address}: {source}; find who holds the port with `ss -ltnp`, or set another `listen` address"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The service manager passed a socket that does not fit.
    #[error(transparent)]
    Given(#[from] WrongAddress),
    /// The control socket cannot be made.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The gate that runs did not hand over.
    #[error(transparent)]
    TakeOver(#[from] TakeOverError),
    /// Requests were cut off because they did not end in the time that stopping may take.
    #[error("the gate stopped with {requests} requests in flight on {connections} connections cut off after {}", crate::duration::render(*after))]
    CutOff {
        /// Requests that were in flight.
        requests: u64,
        /// Connections that were open.
        connections: u64,
        /// How long they were waited for.
        after: Duration,
    },
}

/// How a gate begins.
#[derive(Debug, Default)]
pub struct Beginning {
    /// Sockets that the service manager passed.
    pub given: Given,
    /// Take over from the gate that runs, if one does. Without it, that one is an error.
    pub replace: bool,
}

/// A gate that has its sockets and its last routes, and is ready to serve.
pub struct Server {
    gate: Arc<Gate>,
    listening: Listening,
    control: Arc<ControlSocket>,
    followed: Vec<AbortOnDropHandle<()>>,
    /// The state file is the older gate's until that one has left.
    file: Option<OwnedMutexGuard<()>>,
}

/// Runs a gate until `shutdown` ends, or a newer gate has taken over; then what is in flight finishes, for at most
/// `limits.stop_time` or `limits.replaced_time`.
///
/// # Errors
/// When the gate cannot start, or had to cut off requests when it stopped.
pub async fn run(
    settings: GateSettings,
    beginning: Beginning,
    shutdown: impl Future<Output = ()>,
) -> Result<(), GateError> {
    Server::begin(settings, beginning).await?.serve(shutdown).await
}

impl Server {
    /// As [`Server::begin`], with nothing given and nobody to replace.
    ///
    /// # Errors
    /// As [`Server::begin`].
    pub async fn bind(settings: GateSettings) -> Result<Self, GateError> {
        Self::begin(settings, Beginning::default()).await
    }

    /// Gets the listener (first: only one gate accepts, as a rule) and the control socket, and restores the last state.
    ///
    /// # Errors
    /// When the settings cannot work or a socket cannot be had.
    pub async fn begin(settings: GateSettings, beginning: Beginning) -> Result<Self, GateError> {
        settings.check()?;
        let tls = settings.tls.as_ref().map(Tls::open).transpose()?.map(Arc::new);
        open_files::allow_for(&settings.limits);
        heap::keep_what_is_freed();
        let listening = Listening::get(&settings, beginning.given, beginning.replace).await?;
        let gate = Gate::new(settings, tls);
        let control = Arc::new(ControlSocket::bind(&gate.settings.control, &gate.start_id)?);
        let followed = forerunners::follow(&gate, &gate.settings.control, &control.own).await;
        let (offer, file) = match &listening.source {
            Source::TakenOver { offer, .. } => {
                // Never set before: the gate was made here.
                drop(gate.succession.took_over_from.set(offer.start_id.clone()));
                (Some(offer.as_ref()), Some(Arc::clone(&gate.succession.file).lock_owned().await))
            }
            Source::Bound | Source::Activated | Source::Kept => (None, None),
        };
        saving::restore(&gate, offer);
        let (listener, activated) = (Arc::clone(&listening.listener), listening.source.is_activated());
        gate.succession.set_post(Post { listener, activated, control: Arc::clone(&control) });
        if offer.is_none() {
            control.publish()?;
        }
        let control_path = gate.settings.control.display();
        tracing::info!(address = %listening.address, control = %control_path, start_id = gate.start_id, "gate is ready");
        Ok(Self { gate, listening, control, followed, file })
    }

    /// Where it listens, with the real port if the settings said 0.
    pub fn address(&self) -> SocketAddr {
        self.listening.address
    }

    /// Serves until `shutdown` ends or a newer gate takes over, and what is in flight has finished.
    ///
    /// # Errors
    /// When requests had to be cut off.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), GateError> {
        let Self { gate, listening, control, followed, file } = self;
        let Listening { listener, address, source } = listening;
        let manager = ServiceManager::of_environment();
        let mut shutdown = pin!(shutdown);
        let reports = watch::Sender::new(report::now(&gate));
        let background = Background::start(&gate, &control, &reports);
        let mut clients = Clients::new(Arc::clone(&gate));
        let activated = source.is_activated();
        if let Source::TakenOver { talk, offer } = source {
            let confirmed = confirm(talk, &offer.start_id, &control, &gate);
            if let Err(error) = clients.accept(&listener, pin!(confirmed)).await {
                return give_way(&gate, listener, clients, error).await;
            }
        }
        drop(file);
        manager.ready("accepts clients");
        if activated {
            manager.forget()
        } else {
            manager.keep(listener.as_fd())
        }

        let end = clients.accept(&listener, pin!(ends(&gate, shutdown.as_mut()))).await;
        if end == Phase::Stopping {
            gate.stop();
            manager.stopping("finishes what is in flight");
        } else {
            gate.retire();
        }
        if gate.succession.queue_is_ours() {
            clients.accept_the_waiting(&listener).await;
        }
        drop(listener);
        gate.succession.clear_post();
        tracing::info!(%address, connections = clients.count(), ?end, "gate leaves: it accepts no more, work in flight finishes");
        // Told to stop a second time it does not hurry; told for the first time, it has the stop time from then on.
        let told = async {
            match end {
                Phase::Stopping => std::future::pending().await,
                _ => {
                    shutdown.await;
                    gate.stop();
                }
            }
        };
        let limits = &gate.settings.limits;
        let patience = if end == Phase::Stopping { limits.stop_time } else { limits.replaced_time };
        let finished = clients.finish(patience, pin!(told)).await;
        gate.succession.end();
        // Those who listen hear that nothing is left.
        let heard = tokio::time::timeout(LAST_WORDS, background.endpoint).await;
        tracing::debug!(?heard, "gate ends");
        drop((background.others, followed, control));
        finished
    }
}

/// Brings a hand-over to its end: this gate accepts clients and answers agents, and the older one leaves.
async fn confirm(mut talk: TakeOver, from: &str, control: &ControlSocket, gate: &Gate) -> Result<(), GateError> {
    // So that the first look for clients has been taken.
    tokio::task::yield_now().await;
    control.publish()?;
    match talk.confirm().await {
        Ok(()) => Ok(()),
        Err(error) if forerunners::has_ended(gate, from).await => {
            tracing::warn!(%error, "the older gate died while it handed over; this one goes on alone");
            Ok(())
        }
        Err(error) => Err(TakeOverError::Broken(error).into()),
    }
}

/// The older gate goes on, and there must not be two: what came here in the meantime is finished.
async fn give_way(
    gate: &Gate,
    listener: Arc<TcpListener>,
    clients: Clients,
    error: GateError,
) -> Result<(), GateError> {
    gate.succession.stop();
    gate.stop();
    gate.succession.clear_post();
    drop(listener);
    let finished = clients.finish(gate.settings.limits.stop_time, pin!(std::future::pending())).await;
    if let Err(cut_off) = finished {
        tracing::error!(%cut_off, "giving way to the older gate");
    }
    Err(error)
}

/// Ends with the way in which this gate is to leave.
async fn ends(gate: &Gate, shutdown: impl Future<Output = ()>) -> Phase {
    let mut phase = gate.succession.phase();
    tokio::select! {
        () = shutdown => gate.succession.stop(),
        // The sender lives as long as the gate.
        _ = phase.wait_for(|phase| *phase != Phase::Serving) => {}
    }
    *gate.succession.phase().borrow()
}
