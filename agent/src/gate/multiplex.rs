//! Connections to upstreams by HTTP/2 (prior knowledge), each shared by many requests.

use std::collections::HashMap;
use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::keep_alive;
use super::places::{Places, Runner, Taken};
use super::pool::SendFailure;
use super::quiet::{Heard, Quiet};
use super::upload::RequestBody;

/// Requests on one connection; then another is made. What most servers allow (RFC 9113 recommends at least 100).
const STREAMS_EACH: usize = 100;
/// How much of one answer is read before its client takes it: the protocol's own default.
const STREAM_WINDOW_BYTES: u32 = 65_535;
/// Room for that on every stream of a connection, so that a client that does not read holds up nobody else's answer.
const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * STREAMS_EACH as u32;
/// How much of a request body is taken before the service reads it, per stream.
const SEND_BUFFER_BYTES: usize = 64 << 10;

/// One request's place on a shared connection; free again when it and the request's body are dropped.
pub(super) struct Place {
    sender: SendRequest<RequestBody>,
    taken: Arc<Taken>,
    quiet: Arc<Quiet>,
}

impl Place {
    /// Sends one request and waits for the head of the answer.
    pub(super) async fn send(&mut self, mut request: Request<RequestBody>) -> Result<Response<Incoming>, SendFailure> {
        // A service may answer before it has taken the body, whose stream is then still open.
        request.body_mut().takes(Arc::clone(&self.taken));
        let _waiting = self.quiet.ask();
        self.sender.try_send_request(request).await.map_err(|mut failure| match failure.take_message() {
            Some(request) => SendFailure::NotWritten(Box::new(request), failure.into_error()),
            None => {
                let error = failure.into_error();
                if was_not_processed(&error) { SendFailure::Refused(error) } else { SendFailure::Written(error) }
            }
        })
    }

    /// For giving its request up.
    pub(super) fn taken(&self) -> Weak<Taken> {
        Arc::downgrade(&self.taken)
    }
}

/// RFC 9113 §8.7: a stream that was refused, and one above the last that a GOAWAY names, has not been processed. h2 ends only
/// the streams above with the GOAWAY as their error.
fn was_not_processed(error: &hyper::Error) -> bool {
    let Some(error) = error.source().and_then(|source| source.downcast_ref::<h2::Error>()) else { return false };
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (refused || error.is_go_away())
}

struct Shared {
    sender: SendRequest<RequestBody>,
    /// What the upstream allows, as far as it has said so.
    streams: Arc<AtomicUsize>,
    places: Arc<Places>,
    quiet: Arc<Quiet>,
}

impl Shared {
    /// How many requests are on it; none if there is no room for one more.
    fn with_room(&self) -> Option<usize> {
        let room = self.streams.load(Ordering::Relaxed).clamp(1, STREAMS_EACH);
        self.places.taken().filter(|taken| *taken < room && !self.quiet.is_silent())
    }

    fn place(&self) -> Option<Place> {
        let (sender, taken) = (self.sender.clone(), self.places.take()?);
        Some(Place { sender, taken, quiet: Arc::clone(&self.quiet) })
    }
}

/// The connections to one upstream.
#[derive(Default)]
struct Upstream {
    shared: Mutex<Vec<Shared>>,
    /// Held while connecting, so that of many requests one connects and the others share.
    connecting: tokio::sync::Mutex<()>,
}

/// Shared connections by upstream key.
#[derive(Default)]
pub(super) struct Multiplex {
    upstreams: Mutex<HashMap<u64, Arc<Upstream>>>,
}

impl Multiplex {
    /// A place on a connection to the upstream, which is made if there is none with room: within `limit`, and the kernel then
    /// waits for the upstream's word as long as `patience`.
    pub(super) async fn place(
        &self,
        key: u64,
        address: SocketAddr,
        limit: Duration,
        patience: Duration,
    ) -> std::io::Result<Place> {
        let upstream = Arc::clone(self.lock().entry(key).or_default());
        if let Some(place) = upstream.place() {
            return Ok(place);
        }
        let make = async {
            let _connecting = upstream.connecting.lock().await;
            if let Some(place) = upstream.place() {
                return Ok(place);
            }
            let shared = connect(address, patience).await?;
            let place = shared.place().ok_or(std::io::ErrorKind::ConnectionAborted)?;
            upstream.lock().push(shared);
            Ok(place)
        };
        // To wait for another's try counts, too: it is the same upstream that does not answer.
        tokio::time::timeout(limit, make).await?
    }

    /// Lets go of connections to upstreams that are not `listed`; they end with their last request.
    pub(super) fn sweep(&self, listed: &[u64]) {
        self.lock().retain(|key, upstream| {
            upstream.lock().retain(|shared| !shared.sender.is_closed());
            listed.contains(key)
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<Upstream>>> {
        self.upstreams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upstream {
    /// A place on the connection with the most room.
    fn place(&self) -> Option<Place> {
        let mut shared = self.lock();
        // One that got a GOAWAY is closed for new requests.
        shared.retain(|one| !one.sender.is_closed());
        let with_room = shared.iter().filter_map(|one| Some((one.with_room()?, one)));
        with_room.min_by_key(|(requests, _)| *requests).and_then(|(_, one)| one.place())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Shared>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn connect(address: SocketAddr, patience: Duration) -> std::io::Result<Shared> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    keep_alive::ask(&stream, patience);
    let (places, quiet) = (Arc::new(Places::default()), Quiet::new());
    let stream = Heard { stream, quiet: Arc::clone(&quiet) };
    let handshake = http2::Builder::new(Runner(Arc::clone(&places)))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await.map_err(std::io::Error::other)?;
    let streams = Arc::new(AtomicUsize::new(STREAMS_EACH));
    let allowed = Arc::clone(&streams);
    places.spawn(async move {
        let mut connection = pin!(connection);
        let ended = poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            if polled.is_pending() {
                allowed.store(connection.current_max_send_streams(), Ordering::Relaxed);
            }
            polled
        });
        if let Err(error) = ended.await {
            tracing::debug!(%address, %error, "connection to upstream ended");
        }
    });
    Ok(Shared { sender, streams, places, quiet })
}
