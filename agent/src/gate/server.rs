//! The gate as a process: binds, restores, accepts, stops.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_util::task::AbortOnDropHandle;

use super::endpoint::{self, EndpointError};
use super::settings::{GateSettings, SettingsError};
use super::ticket::{Gate, Saved};
use super::tls::{Tls, TlsError};
use super::{connection, open_files, report, state_file};

/// How long the gate waits before it tries again what the system refused (a full table of files, a full disk).
const RETRY: Duration = Duration::from_millis(100);

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
    /// The control socket cannot be made.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Requests were cut off because they did not end in the time that stopping may take.
    #[error("the gate stopped with {requests} requests in flight on {connections} connections cut off after {}", crate::duration::render(*after))]
    CutOff {
        /// Requests that were in flight.
        requests: u64,
        /// Connections that were open.
        connections: u64,
        /// `limits.stop_time`.
        after: Duration,
    },
}

/// A gate that has its sockets and its last routes, and is ready to serve.
pub struct Server {
    gate: Arc<Gate>,
    listener: TcpListener,
    address: SocketAddr,
    control: Arc<UnixListener>,
}

/// Runs a gate until `shutdown` ends; then what is in flight finishes, for at most `limits.stop_time`.
///
/// # Errors
/// When the gate cannot start, or had to cut off requests when it stopped.
pub async fn run(settings: GateSettings, shutdown: impl Future<Output = ()>) -> Result<(), GateError> {
    Server::bind(settings).await?.serve(shutdown).await
}

impl Server {
    /// Takes the listener (first: only one gate can have it) and the control socket, and restores the last state.
    ///
    /// # Errors
    /// When the settings cannot work or a socket cannot be had.
    pub async fn bind(settings: GateSettings) -> Result<Self, GateError> {
        settings.check()?;
        let tls = settings.tls.as_ref().map(Tls::open).transpose()?.map(Arc::new);
        open_files::allow_for(&settings.limits);
        let listen_error = |source| GateError::Listen { address: settings.listen, source };
        let listener = TcpListener::bind(settings.listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let control = Arc::new(endpoint::bind(&settings.control).await?);
        let gate = Gate::new(settings, tls);
        restore(&gate);
        tracing::info!(%address, control = %gate.settings.control.display(), start_id = gate.start_id, "gate listens");
        Ok(Self { gate, listener, address, control })
    }

    /// Where it listens, with the real port if the settings said 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` ends and what is in flight has finished.
    ///
    /// # Errors
    /// When requests had to be cut off.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), GateError> {
        let Self { gate, listener, address, control } = self;
        let reports = watch::Sender::new(report::now(&gate));
        let background = [
            forever("reporter", {
                let (g, r) = (Arc::clone(&gate), reports.clone());
                move || report::publish(Arc::clone(&g), r.clone())
            }),
            forever("control socket", {
                let (g, r) = (Arc::clone(&gate), reports.clone());
                move || endpoint::serve(Arc::clone(&control), Arc::clone(&g), r.clone())
            }),
            forever("state saver", {
                let g = Arc::clone(&gate);
                move || save_states(Arc::clone(&g))
            }),
        ];
        let _certificate = gate.tls.clone().map(|tls| {
            let g = Arc::clone(&gate);
            forever("certificate watch", move || {
                let (g, tls) = (Arc::clone(&g), Arc::clone(&tls));
                tls.watch(move || g.news.notify_one())
            })
        });
        let mut clients = Clients { gate: Arc::clone(&gate), tasks: JoinSet::new() };
        clients.accept(&listener, shutdown).await;
        gate.stop();
        clients.accept_the_waiting(&listener).await;
        drop(listener);
        tracing::info!(%address, connections = clients.tasks.len(), "gate stops: listener closed, work in flight finishes");
        let finished = clients.finish().await;
        drop(background);
        // Left behind it would only be replaced by the next gate.
        if let Err(error) = std::fs::remove_file(&gate.settings.control) {
            tracing::warn!(%error, "cannot remove the control socket");
        }
        finished
    }
}

/// A background task that is started again should it end, which only a panic can bring about: a gate without its reporter
/// still serves, and must not be lost to that.
fn forever<F: Future<Output = ()> + Send + 'static>(
    name: &'static str,
    make: impl Fn() -> F + Send + 'static,
) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let ended = AbortOnDropHandle::new(tokio::spawn(make())).await;
            tracing::error!(name, ?ended, "a background task of the gate ended; it is started again");
            tokio::time::sleep(RETRY).await;
        }
    }))
}

/// The open client connections.
struct Clients {
    gate: Arc<Gate>,
    tasks: JoinSet<()>,
}

impl Clients {
    async fn accept(&mut self, listener: &TcpListener, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let limit = self.gate.settings.limits.connections;
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => return,
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => self.left(ended),
                // Beyond the limit they wait in the kernel's queue.
                accepted = listener.accept(), if self.tasks.len() < limit => match accepted {
                    Ok((stream, peer)) => self.welcome(stream, peer),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a client");
                        tokio::time::sleep(RETRY).await;
                    }
                },
            }
        }
    }

    /// Connections that the kernel has accepted already belong to clients whose requests must not be reset.
    async fn accept_the_waiting(&mut self, listener: &TcpListener) {
        // Lets the runtime learn from the kernel who waits.
        tokio::task::yield_now().await;
        while let Poll::Ready(Ok((stream, peer))) = poll_fn(|cx| Poll::Ready(listener.poll_accept(cx))).await {
            self.welcome(stream, peer);
        }
    }

    fn welcome(&mut self, stream: TcpStream, peer: SocketAddr) {
        // Without it small answers would wait for the client's acknowledgement; a socket that refuses is closing.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        self.tasks.spawn(connection::serve(Arc::clone(&self.gate), stream, peer));
        self.count();
    }

    fn left(&self, ended: Result<(), JoinError>) {
        if let Err(error) = ended {
            tracing::error!(%error, "the task of a client connection ended");
        }
        self.count();
    }

    fn count(&self) {
        self.gate.connections.store(self.tasks.len() as u64, Ordering::Relaxed);
    }

    async fn finish(mut self) -> Result<(), GateError> {
        let after = self.gate.settings.limits.stop_time;
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                self.left(ended);
            }
        };
        if tokio::time::timeout(after, all).await.is_ok() {
            return Ok(());
        }
        let requests = self.gate.core().report(self.gate.now()).in_flight;
        let connections = self.tasks.len() as u64;
        self.tasks.shutdown().await;
        Err(GateError::CutOff { requests, connections, after })
    }
}

/// Begins with the last routes. Without them the gate holds, and the agent is told why.
fn restore(gate: &Gate) {
    match state_file::load(&gate.settings.state_file) {
        Ok(None) => tracing::info!("no saved state: requests are held until the agent sends one"),
        Ok(Some(state)) => {
            let seq = state.seq;
            match gate.apply(state) {
                Ok(()) => {
                    gate.saved.send_replace(Saved { seq, error: None });
                }
                Err(refusal) => tracing::error!(%refusal, "the saved state cannot be applied: requests are held"),
            }
        }
        Err(error) => {
            tracing::error!(%error, "starting without routes: requests are held until the agent sends a state");
            gate.saved.send_replace(Saved { seq: 0, error: Some(error.to_string()) });
        }
    }
}

/// Saves each applied state (if they come fast, the last one), off the runtime's thread: the disk must not hold up requests.
async fn save_states(gate: Arc<Gate>) {
    let mut applied = gate.applied.subscribe();
    applied.mark_changed();
    loop {
        // The sender lives as long as the gate, which this task holds.
        if applied.changed().await.is_err() {
            return;
        }
        let state = applied.borrow_and_update().clone();
        let seq = state.seq;
        if seq == gate.saved.borrow().seq {
            continue;
        }
        let path: PathBuf = gate.settings.state_file.clone();
        let written = tokio::task::spawn_blocking(move || state_file::save(&path, &state)).await;
        let error = match written {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(format!("the task that saves ended: {error}")),
        };
        let failed = error.is_some();
        let before = gate.saved.borrow().seq;
        gate.saved.send_replace(Saved { seq: if failed { before } else { seq }, error: error.clone() });
        gate.news.notify_one();
        if let Some(error) = error {
            tracing::error!(%error, seq, "the applied state is in force but not saved; trying again");
            tokio::time::sleep(RETRY * 10).await;
            applied.mark_changed();
        }
    }
}
