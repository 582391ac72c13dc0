//! Connections to upstreams by HTTP/1.1, one request at a time on each. Own, because hyper-util's pooled client costs a tenth
//! more per request (measured) and repeats requests by rules of its own. Those by HTTP/2 are in [`super::multiplex`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use super::multiplex::Place;
use super::places::Taken;
use super::upload::RequestBody;
use super::wire::Wire;
use super::{keep_alive, places};

/// What carries one request to an upstream. Dropping it lets a request body that is still being passed on come to its end.
pub(super) struct Link {
    key: u64,
    sender: Sender,
}

enum Sender {
    /// A connection of its own.
    Http1(SendRequest<RequestBody>, AbortHandle),
    /// A place on a shared one.
    Http2(Place),
}

/// Why a request did not get an answer.
pub(super) enum SendFailure {
    /// Not a byte of it was written: here it is, it may go another way.
    NotWritten(Box<Request<RequestBody>>, hyper::Error),
    /// It was written, and the upstream said that it has not processed it (REFUSED_STREAM, GOAWAY).
    Refused(hyper::Error),
    /// It was written, wholly or in part; it may have been executed.
    Written(hyper::Error),
}

/// Ends what a request is using, for a request that is given up.
pub(super) enum Cutter {
    /// The connection is its own.
    Http1(AbortHandle),
    /// Others are on it.
    Http2(Weak<Taken>),
}

impl Cutter {
    /// Closes a connection at once. hyper alone would first flush what it has of a request body, for ever if the service does
    /// not read. A stream of HTTP/2 is reset by letting go of it, unless it is stuck as [`super::places`] says.
    pub(super) fn cut(&self) {
        match self {
            Cutter::Http1(connection) => connection.abort(),
            Cutter::Http2(taken) => places::give_up(Weak::clone(taken)),
        }
    }
}

impl Link {
    /// Makes a new connection within `limit`; the kernel then waits for the upstream's word as long as `patience`. Nothing is
    /// sent before the first request.
    pub(super) async fn connect(
        key: u64,
        address: SocketAddr,
        limit: Duration,
        patience: Duration,
    ) -> std::io::Result<Link> {
        let connecting = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            keep_alive::ask(&stream, patience);
            http1::handshake(TokioIo::new(Wire::new(stream))).await.map_err(std::io::Error::other)
        };
        let (sender, connection) = tokio::time::timeout(limit, connecting).await??;
        // Ends when the sender is dropped or the upstream closes. Its error reaches the request that it concerns.
        let task = tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%address, %error, "connection to upstream ended");
            }
        });
        Ok(Link { key, sender: Sender::Http1(sender, task.abort_handle()) })
    }

    /// Takes a place on a shared connection.
    pub(super) fn shared(key: u64, place: Place) -> Link {
        Link { key, sender: Sender::Http2(place) }
    }

    pub(super) fn cutter(&self) -> Cutter {
        match &self.sender {
            Sender::Http1(_, task) => Cutter::Http1(task.clone()),
            Sender::Http2(place) => Cutter::Http2(place.taken()),
        }
    }

    /// Sends one request and waits for the head of the answer.
    pub(super) async fn send(&mut self, request: Request<RequestBody>) -> Result<Response<Incoming>, SendFailure> {
        match &mut self.sender {
            Sender::Http1(sender, _) => {
                sender.try_send_request(request).await.map_err(|mut failure| match failure.take_message() {
                    Some(request) => SendFailure::NotWritten(Box::new(request), failure.into_error()),
                    None => SendFailure::Written(failure.into_error()),
                })
            }
            Sender::Http2(place) => place.send(request).await,
        }
    }

    fn idle(&self) -> Option<&SendRequest<RequestBody>> {
        match &self.sender {
            Sender::Http1(sender, _) if !sender.is_closed() => Some(sender),
            _ => None,
        }
    }
}

struct Idle {
    link: Link,
    since: Instant,
}

impl Idle {
    fn is_fresh(&self, age: Duration) -> bool {
        self.link.idle().is_some() && self.since.elapsed() < age
    }
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
        // They stand in the order of their last use. Only as many are looked at as it takes: the sweep sees to the others.
        for at in (0..links.len()).rev() {
            if !links[at].is_fresh(self.age) {
                links.remove(at);
            } else if links[at].link.idle().is_some_and(SendRequest::is_ready) {
                return Some(links.remove(at).link);
            }
        }
        None
    }

    /// Takes back a connection whose answer has ended. Beyond the cap it is dropped, which closes it; so is a place on a
    /// shared one, which frees it.
    pub(super) fn put(&self, link: Link) {
        if link.idle().is_none() {
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
            links.retain(|one| one.is_fresh(self.age));
            listed.contains(key) && !links.is_empty()
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
