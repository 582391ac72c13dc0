//! The moving part: one thread decides, writes to disk and only then lets the world see it.
//!
//! Readers, keep-alives and watches look at the state behind a lock that is never held across disk work, so that a slow
//! disk delays writers and nobody else.

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use etcd_client::proto::PbResponseHeader;
use handover_proto::txn::{LeaseId, Revision};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout};
use tonic::{Code, Status};

use super::disk::{Disk, DiskError, Identity};
use super::state::{Refusal, Reply, Request, State};

/// What a waiting thread sleeps at most when no lease stands.
const LONG: Duration = Duration::from_secs(3600);

/// What every connection sees: all of it is on disk already.
pub(crate) struct Shared {
    state: Mutex<State>,
    identity: Identity,
    started: Instant,
    /// Moves as soon as a revision is durable.
    committed: watch::Sender<Revision>,
    /// True once the server stops: streams end.
    closing: watch::Sender<bool>,
}

/// A handle for those who write.
#[derive(Clone)]
pub(crate) struct Engine {
    shared: Arc<Shared>,
    orders: UnboundedSender<Order>,
}

/// What the writer is told.
enum Order {
    CarryOut {
        request: Request,
        answer: oneshot::Sender<Result<(Reply, Revision), Refusal>>,
    },
    /// End, after everything that was ordered before.
    Stop,
}

/// The writer thread, and the message that it leaves behind.
pub(crate) struct Writer {
    /// None: it is a task of the server's own runtime.
    pub(crate) thread: Option<JoinHandle<()>>,
    pub(crate) ended: Ended,
}

/// How the writer ended.
type Ended = oneshot::Receiver<Result<(), DiskError>>;

impl Shared {
    fn new(identity: Identity, state: State) -> Self {
        Self {
            committed: watch::Sender::new(state.revision()),
            closing: watch::Sender::new(false),
            state: Mutex::new(state),
            identity,
            started: Instant::now(),
        }
    }

    /// The state as it stands on disk. Hold it for a few lines.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that panics is done under the lock; and the state is changed in one call.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time since the start, which leases run on.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    pub(crate) fn header(&self, revision: Revision) -> PbResponseHeader {
        let Identity { cluster_id, member_id, raft_term } = self.identity;
        PbResponseHeader { cluster_id, member_id, revision, raft_term }
    }

    pub(crate) fn committed(&self) -> watch::Receiver<Revision> {
        self.committed.subscribe()
    }

    /// Resolves once the server stops.
    pub(crate) async fn closed(&self) {
        // The sender lives as long as we do.
        let _ = self.closing.subscribe().wait_for(|closing| *closing).await;
    }

    /// Carries out a request that changes nothing.
    pub(crate) fn read(&self, request: &Request) -> Result<(Reply, Revision), Status> {
        if *self.closing.borrow() {
            // A connection may outlive the server, and another server may be writing by then.
            return Err(stopped());
        }
        let (state, now) = (self.state(), self.now());
        let (effects, reply) = state.decide(request, now).map_err(refuse)?;
        Ok((reply, effects.revision))
    }

    /// A lease gets its full TTL again; `None`: it is gone.
    pub(crate) fn keep_alive(&self, lease: LeaseId) -> (Option<Duration>, Revision) {
        let (mut state, now) = (self.state(), self.now());
        (state.renew(lease, now), state.revision())
    }
}

impl Engine {
    /// Opens the data directory and starts the writer, on a thread of its own: a slow disk delays nobody else.
    pub(crate) fn start(data: &Path) -> Result<(Self, Writer), DiskError> {
        let (engine, body, ended) = Self::open(data)?;
        let failed = |error: std::io::Error| DiskError::Io {
            action: "start the writer thread for",
            path: data.to_owned(),
            reason: error.to_string(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
        let run = move || runtime.block_on(body);
        let thread = std::thread::Builder::new().name("store-writer".to_owned()).spawn(run).map_err(failed)?;
        Ok((engine, Writer { thread: Some(thread), ended }))
    }

    /// The same with the writer as a task, so that nothing runs on another clock than the caller's: simulated time.
    pub(crate) fn start_here(data: &Path) -> Result<(Self, Writer), DiskError> {
        let (engine, body, ended) = Self::open(data)?;
        drop(tokio::spawn(body));
        Ok((engine, Writer { thread: None, ended }))
    }

    fn open(data: &Path) -> Result<(Self, impl Future<Output = ()> + Send + use<>, Ended), DiskError> {
        let (disk, identity, stored) = Disk::open(data)?;
        let shared = Arc::new(Shared::new(identity, State::restore(stored, Duration::ZERO)));
        let (orders, mut queue) = unbounded_channel();
        let (tell, ended) = oneshot::channel();
        let seen = shared.clone();
        let body = async move {
            // Nobody listens any more once the server has gone: then there is nobody to tell.
            let _ = tell.send(run(&seen, &disk, &mut queue).await);
        };
        Ok((Self { shared, orders }, body, ended))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Carries out a request; what it changed is on disk when this returns.
    pub(crate) async fn write(&self, request: Request) -> Result<(Reply, Revision), Status> {
        let (answer, answered) = oneshot::channel();
        self.orders.send(Order::CarryOut { request, answer }).map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?.map_err(refuse)
    }

    /// Ends every stream and refuses every read, now and later.
    pub(crate) fn close(&self) {
        self.shared.closing.send_replace(true);
    }

    /// Ends the writer. Clients that stay connected cannot keep it: their handles are good for nothing any more.
    pub(crate) fn stop(&self) {
        // If it has ended already, that is what we want.
        let _ = self.orders.send(Order::Stop);
    }
}

/// etcd's words for "in doubt": the client must read back.
fn stopped() -> Status {
    Status::unavailable("etcdserver: server stopped")
}

pub(crate) fn refuse(refusal: Refusal) -> Status {
    let code = match refusal {
        Refusal::LeaseNotFound => Code::NotFound,
        Refusal::LeaseExists => Code::FailedPrecondition,
        Refusal::Compacted | Refusal::Future | Refusal::TtlTooLarge => Code::OutOfRange,
        Refusal::Unsupported(_) => Code::Unimplemented,
        Refusal::EmptyKey
        | Refusal::ValueProvided
        | Refusal::LeaseProvided
        | Refusal::KeyNotFound
        | Refusal::TooManyOps
        | Refusal::DuplicateKey
        | Refusal::TooLarge => Code::InvalidArgument,
    };
    Status::new(code, refusal.to_string())
}

/// Until it is told to stop, or the disk fails.
async fn run(shared: &Shared, disk: &Disk, queue: &mut UnboundedReceiver<Order>) -> Result<(), DiskError> {
    loop {
        let wait = expire(shared, disk)?;
        match timeout(wait, queue.recv()).await {
            Ok(Some(Order::CarryOut { request, answer })) => {
                let result = carry_out(shared, disk, &request)?;
                // A caller that hung up has its write all the same.
                let _ = answer.send(result);
            }
            Err(_) => {}
            Ok(Some(Order::Stop) | None) => return Ok(()),
        }
    }
}

/// Ends every lease whose time has come; gives the time until the next.
fn expire(shared: &Shared, disk: &Disk) -> Result<Duration, DiskError> {
    loop {
        let next = shared.state().next_expiry();
        match next {
            None => return Ok(LONG),
            Some((deadline, lease)) => {
                let left = deadline.saturating_sub(shared.now());
                if !left.is_zero() {
                    return Ok(left);
                }
                tracing::info!(lease = format!("{lease:x}"), "a lease expired");
                // Cannot be refused: the writer alone ends leases, and this one stands.
                let _ = carry_out(shared, disk, &Request::Expire(lease))?;
            }
        }
    }
}

fn carry_out(shared: &Shared, disk: &Disk, request: &Request) -> Result<Result<(Reply, Revision), Refusal>, DiskError> {
    let decided = shared.state().decide(request, shared.now());
    let (effects, reply) = match decided {
        Ok(decided) => decided,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let revision = effects.revision;
    disk.write(&effects)?;
    shared.state().evolve(effects, shared.now());
    shared.committed.send_replace(revision);
    Ok(Ok((reply, revision)))
}
