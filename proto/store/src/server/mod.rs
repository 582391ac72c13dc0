//! The embedded store: a single node that speaks the part of etcd's v3 API that Handover uses, durable on disk.
//!
//! One process, no replication. When it is down no ownership moves, and agents run to their deadlines; where that is not
//! enough, etcd it is (`DESIGN.md` §10).
//!
//! The road through it: a service (`kv`, `lease`, `watch`, `admin`) turns a message into plain data (`wire`),
//! the `engine`'s one writer asks the pure `state` what it would do, puts that on `disk`, and shows it.

mod admin;
mod disk;
mod engine;
mod kv;
mod lease;
mod state;
mod watch;
mod wire;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use etcd_client::proto::{PbClusterServer, PbKvServer, PbLeaseServer, PbMaintenanceServer, PbWatchServer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_stream::Stream;
use tonic::transport::Server;
use tonic::transport::server::{Connected, TcpIncoming};

pub use disk::DiskError;

use admin::AdminApi;
use engine::{Engine, Writer};
use kv::KvApi;
use lease::LeaseApi;
use watch::WatchApi;

/// How the embedded store's version begins, which etcd's never does.
pub const VERSION_PREFIX: &str = "handover-";

/// Above the limit on a write, as in etcd, so that an oversized one gets a proper refusal.
const MAX_MESSAGE_BYTES: usize = 2 << 20;
/// How long calls in flight may take to end once the server is told to stop.
const GRACE: Duration = Duration::from_secs(2);

/// Where the embedded store lives.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Its directory; created if need be.
    pub data: PathBuf,
    /// Its address, which must be a loopback one; port 0 takes any free port.
    pub listen: SocketAddr,
}

/// Why the embedded store does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// There is no authentication, hence no listening where others could connect.
    #[error("the embedded store listens on loopback addresses only, not on {0}; for several machines, use etcd")]
    NotLoopback(SocketAddr),
    /// The address cannot be had.
    #[error("cannot listen on {address}: {source}; if a store runs there already, use that one")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// The data directory cannot be used, or the disk failed while running.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The gRPC server ended by itself.
    #[error("the store's server on {address} broke: {source}")]
    Transport {
        /// Where it listened.
        address: SocketAddr,
        /// The cause.
        source: tonic::transport::Error,
    },
    /// The writer thread ended without a word, which is a bug.
    #[error("the store's writer ended unexpectedly; what it had acknowledged is on disk; start the store again")]
    WriterLost,
}

/// Runs the embedded store until `shutdown` resolves; `ready` is told the address once clients can connect.
///
/// # Errors
/// See [`ServerError`]. A failed write to disk is one of them: the store stops rather than to answer from a state that
/// might not survive.
pub async fn serve(
    options: ServerOptions,
    ready: impl FnOnce(SocketAddr),
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError> {
    if !options.listen.ip().is_loopback() {
        return Err(ServerError::NotLoopback(options.listen));
    }
    let refused = |source| ServerError::Listen { address: options.listen, source };
    let listener = TcpListener::bind(options.listen).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    let (engine, writer) = Engine::start(&options.data)?;
    let identity = engine.shared().identity();
    tracing::info!(%address, data = %options.data.display(), term = identity.raft_term, "embedded store: a single node without replication");
    ready(address);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    run(incoming, address, &options.data, engine, writer, shutdown).await
}

/// Runs the store over connections that somebody else accepts, wholly on the caller's runtime and clock: a simulated
/// network. `address` is what it tells clients.
///
/// # Errors
/// As [`serve`].
pub async fn serve_over<C>(
    data: &Path,
    address: SocketAddr,
    incoming: impl Stream<Item = std::io::Result<C>>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let (engine, writer) = Engine::start_here(data)?;
    run(incoming, address, data, engine, writer, shutdown).await
}

async fn run<C>(
    incoming: impl Stream<Item = std::io::Result<C>>,
    address: SocketAddr,
    data: &Path,
    engine: Engine,
    writer: Writer,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServerError>
where
    C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let shared = engine.shared().clone();
    let file = disk::file(data);
    let admin = AdminApi { shared: shared.clone(), address: format!("http://{address}"), file };
    let (stop, stopped) = oneshot::channel::<()>();
    let server = Server::builder()
        .add_service(PbKvServer::new(KvApi(engine.clone())).max_decoding_message_size(MAX_MESSAGE_BYTES))
        .add_service(PbLeaseServer::new(LeaseApi(engine.clone())))
        .add_service(PbWatchServer::new(WatchApi(shared)))
        .add_service(PbMaintenanceServer::new(admin.clone()))
        .add_service(PbClusterServer::new(admin))
        .serve_with_incoming_shutdown(incoming, async {
            // Dropped or told: both mean stop.
            let _ = stopped.await;
        });
    let mut server = Box::pin(server);
    let Writer { thread, mut ended } = writer;
    let outcome = tokio::select! {
        result = &mut server => result.map_err(|source| ServerError::Transport { address, source }),
        ended = &mut ended => {
            engine.close();
            return Err(writer_end(ended));
        }
        () = shutdown => Ok(()),
    };
    engine.close();
    drop(stop);
    if outcome.is_ok() && tokio::time::timeout(GRACE, &mut server).await.is_err() {
        tracing::warn!(grace_ms = GRACE.as_millis(), "some clients did not hang up in time");
    }
    engine.stop();
    match ended.await {
        Ok(result) => result?,
        Err(_) => return Err(ServerError::WriterLost),
    }
    // It has said its last word: this does not block.
    thread.map_or(Ok(()), JoinHandle::join).map_err(|_| ServerError::WriterLost)?;
    outcome
}

fn writer_end(ended: Result<Result<(), DiskError>, oneshot::error::RecvError>) -> ServerError {
    match ended {
        Ok(Err(error)) => ServerError::Disk(error),
        Ok(Ok(())) | Err(_) => ServerError::WriterLost,
    }
}
