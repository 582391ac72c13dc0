//! Idle connections to upstreams. Own, because hyper-util's pooled client costs a tenth more per request (measured) and
//! repeats requests by rules of its own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use super::upload::RequestBody;

/// One connection to an upstream. Dropping it lets a request body that is still being passed on come to its end.
pub(super) struct Link {
    key: u64,
    sender: SendRequest<RequestBody>,
    task: AbortHandle,
}

/// Why a request did not get an answer.
pub(super) enum SendFailure {
    /// Not a byte of it was written: here it is, it may go another way.
    NotWritten(Box<Request<RequestBody>>, hyper::Error),
    /// It was written, wholly or in part; it may have been executed.
    Written(hyper::Error),
}

impl Link {
    /// Makes a new connection. Nothing is sent before the first request.
    pub(super) async fn connect(key: u64, address: SocketAddr, limit: Duration) -> std::io::Result<Link> {
        let connecting = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)
        };
        let (sender, connection) = tokio::time::timeout(limit, connecting).await??;
        // Ends when the sender is dropped or the upstream closes. Its error reaches the request that it concerns.
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, %error, "connection to upstream ended");
            }
        });
        Ok(Link { key, sender, task: task.abort_handle() })
    }

    /// What [`AbortHandle::abort`] closes the connection with at once. hyper alone would first flush what it has of a request
    /// body, for ever if the service does not read.
    pub(super) fn cutter(&self) -> AbortHandle {
        self.task.clone()
    }

    /// Sends one request and waits for the head of the answer.
    pub(super) async fn send(&mut self, request: Request<RequestBody>) -> Result<Response<Incoming>, SendFailure> {
        self.sender.try_send_request(request).await.map_err(|mut failure| match failure.take_message() {
            Some(request) => SendFailure::NotWritten(Box::new(request), failure.into_error()),
            None => SendFailure::Written(failure.into_error()),
        })
    }
}

struct Idle {
    link: Link,
    since: Instant,
}

/// Idle connections by upstream key, bounded in number and age.
pub(super) struct Pool {
    idle: Mutex<HashMap<u64, Vec<Idle>>>,
    cap: usize,
    age: Duration,
}

impl Pool {
    pub(super) fn new(cap: usize, age: Duration) -> Self {
        Self { idle: Mutex::new(HashMap::new()), cap, age }
    }

    /// A connection that can take a request now: the one used last, because it is the least likely to be closed just now.
    /// One that is still busy (a request body goes on after its answer) is left for later.
    pub(super) fn take(&self, key: u64) -> Option<Link> {
        let mut idle = self.lock();
        let links = idle.get_mut(&key)?;
        links.retain(|one| !one.link.sender.is_closed() && one.since.elapsed() < self.age);
        let ready = links.iter().rposition(|one| one.link.sender.is_ready())?;
        Some(links.remove(ready).link)
    }

    /// Takes back a connection whose answer has ended. Beyond the cap it is dropped, which closes it.
    pub(super) fn put(&self, link: Link) {
        if link.sender.is_closed() {
            return;
        }
        let mut idle = self.lock();
        let links = idle.entry(link.key).or_default();
        if links.len() < self.cap {
            links.push(Idle { link, since: Instant::now() });
        }
    }

    /// Drops connections that are too old, and all those of upstreams that are not `listed`.
    pub(super) fn sweep(&self, listed: &[u64]) {
        self.lock().retain(|key, links| {
            links.retain(|one| !one.link.sender.is_closed() && one.since.elapsed() < self.age);
            listed.contains(key) && !links.is_empty()
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
