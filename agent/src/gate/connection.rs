//! One client connection: what it speaks, and the watch over it while it does, by the rules of [`super::line`].

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::headers::Origin;
use super::line::{Fate, Line};
use super::peers::Share;
use super::proxy;
use super::settings::GateSettings;
use super::socket::{Socket, Stream};
use super::streams::Streams;
use super::ticket::Gate;
use super::tunnel::Tunnel;
use super::wire::Wire;

/// Least read buffer of a connection. hyper takes nothing below 8 KiB; 64 KiB keeps large bodies fast.
const BUFFER_BYTES: usize = 64 << 10;

/// One connection's line, shared by its socket, its requests and the task that watches it.
pub(super) struct Watched {
    line: Mutex<Line>,
    /// What the connection becomes when HTTP is over on it.
    tunnel: Mutex<Option<Tunnel>>,
    old: AtomicBool,
    gate: Arc<Gate>,
    pub(super) peer: SocketAddr,
    /// Where its requests come from.
    pub(super) origin: Origin,
    /// What its client's address has of the gate.
    pub(super) share: Arc<Share>,
}

impl Watched {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request's head is complete; it runs until the last clone of the answer is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Running {
        self.line().begin();
        self.share.begin();
        Running(Arc::new(RunningRequest { on: Arc::clone(self), whole: AtomicBool::new(false) }))
    }

    /// So many bytes came from the client.
    ///
    /// # Errors
    /// If it is flooding the gate: then nothing more is to be read from it.
    pub(super) fn bytes_read(&self, count: usize) -> io::Result<()> {
        let now = self.gate.now();
        let mut line = self.line();
        line.bytes_read(count, now);
        match line.streams.and_then(|streams| streams.excess(&self.gate.settings.http2)) {
            Some(why) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, why)),
            None => Ok(()),
        }
    }

    /// The client's side took bytes, or takes none now.
    pub(super) fn wrote(&self, taken: bool) {
        let mut line = self.line();
        // Not worth a look at the clock for each write.
        if line.heeds_write(taken) {
            line.wrote(taken, self.gate.now());
        }
    }

    /// The head of an upstream's answer is on its way, and when the time for all of it is over.
    pub(super) fn answers(&self, deadline: Option<Instant>) {
        let until = deadline.map(|at| self.gate.now() + at.saturating_duration_since(Instant::now()));
        self.line().answers(until);
    }

    /// Its requests are of HTTP/1.0, whose answers may end with the connection.
    pub(super) fn is_old(&self) {
        self.old.store(true, Ordering::Relaxed);
    }

    /// When answers to gRPC calls on this connection have to end, because it has become too old.
    pub(super) fn streams_end_at(&self) -> Option<Instant> {
        let http2 = &self.gate.settings.http2;
        let at = self.line().too_old_at(http2)? + http2.max_age_grace;
        Some(Instant::now() + at.saturating_sub(self.gate.now()))
    }

    /// Keeps a tunnel for when hyper lets go of the connection.
    pub(super) fn becomes(&self, tunnel: Tunnel) {
        *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = Some(tunnel);
    }

    fn tunnel(&self) -> Option<Tunnel> {
        self.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Held by both bodies of a request.
#[derive(Clone)]
pub(super) struct Running(Arc<RunningRequest>);

struct RunningRequest {
    on: Arc<Watched>,
    whole: AtomicBool,
}

impl Running {
    /// So many bytes of the answer are ready for a client of HTTP/2.
    pub(super) fn offered(&self, count: usize) {
        self.follow(|streams, now| {
            streams.offered(now);
            streams.passed(count);
        });
    }

    /// The client has taken it.
    pub(super) fn taken(&self) {
        self.follow(Streams::taken);
    }

    /// So many bytes of the request's body were passed on.
    pub(super) fn delivered(&self, count: usize) {
        if let Some(streams) = &mut self.0.on.line().streams {
            streams.delivered(count);
        }
    }

    fn follow(&self, step: impl FnOnce(&mut Streams, Duration)) {
        let now = self.0.on.gate.now();
        if let Some(streams) = &mut self.0.on.line().streams {
            step(streams, now);
        }
    }

    /// The answer has ended, or it was not the client that ended it.
    pub(super) fn is_whole(&self) {
        self.0.whole.store(true, Ordering::Relaxed);
    }
}

impl Drop for RunningRequest {
    fn drop(&mut self) {
        self.on.share.end();
        let now = self.on.gate.now();
        self.on.line().end(self.whole.load(Ordering::Relaxed), now);
    }
}

/// Serves one client until it leaves, is too slow, or the gate wants it to go.
pub(super) async fn serve(gate: Arc<Gate>, stream: TcpStream, peer: SocketAddr) {
    let Some(place) = gate.peers.enter(peer.ip()) else {
        gate.refused_connections.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let line = Mutex::new(Line { idle_since: gate.now(), ..Line::default() });
    let origin = Origin::new(peer, gate.tls.is_some());
    let watched = Arc::new(Watched {
        line,
        tunnel: Mutex::default(),
        old: AtomicBool::new(false),
        gate: Arc::clone(&gate),
        peer,
        origin,
        share: Arc::clone(&place.share),
    });
    let wire = Wire::new(stream);
    let opening = pin!(open(&gate, wire.clone(), Arc::clone(&watched)));
    let (socket, http2) = match keep(&gate, &watched, &wire, opening, |_| false).await {
        Some(Ok(opened)) => opened,
        Some(Err(error)) => {
            tracing::debug!(%peer, %error, "client connection ended before its first request");
            return;
        }
        None => return,
    };
    let ended = if http2 {
        serve_http2(&gate, &watched, &wire, socket).await
    } else {
        serve_http1(&gate, &watched, wire, socket).await
    };
    if let Some(Err(error)) = ended {
        tracing::debug!(%peer, %error, "client connection ended");
    }
}

/// Finds out what the client speaks.
async fn open(gate: &Gate, stream: Wire, watched: Arc<Watched>) -> io::Result<(Socket, bool)> {
    let Some(tls) = &gate.tls else {
        let mut socket = Socket::new(Stream::Plain(stream), watched);
        let http2 = socket.speaks_http2().await?;
        return Ok((socket, http2));
    };
    let stream = tokio::time::timeout(tls.handshake_time(), tls.acceptor.accept(stream)).await??;
    let agreed = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    watched.line().idle_since = gate.now();
    let mut socket = Socket::new(Stream::Tls(Box::new(stream)), watched);
    let http2 = agreed || socket.speaks_http2().await?;
    Ok((socket, http2))
}

async fn serve_http1(
    gate: &Arc<Gate>,
    watched: &Arc<Watched>,
    wire: Wire,
    socket: Socket,
) -> Option<hyper::Result<()>> {
    let service = service_fn(|request| proxy::serve(Arc::clone(gate), Arc::clone(watched), request));
    let limits = &gate.settings.limits;
    let mut was_idle = false;
    // half_close: a client may end its sending side and still wait for its answer, and cannot be told from one that is gone
    // until bytes are written to it. hyper then reads nothing during a request, so that `keep` must look whether it is there.
    let ended = {
        let connection = http1::Builder::new()
            .half_close(true)
            .header_read_timeout(None)
            .max_header_size(limits.header_bytes)
            .max_buf_size(limits.header_bytes.max(BUFFER_BYTES))
            .serve_connection(TokioIo::new(socket), service)
            .with_upgrades();
        keep(gate, watched, &wire, pin!(connection), |connection| {
            was_idle = true;
            connection.graceful_shutdown();
            true
        })
        .await
    };
    if let Some(tunnel) = watched.tunnel() {
        drop(wire);
        tunnel.run(gate).await;
    } else if watched.old.load(Ordering::Relaxed) && ended.as_ref().is_some_and(|ended| ended.is_err()) {
        wire.breaks();
    } else if ended.is_some() && !was_idle {
        // After hyper's last word, a 400 or 431 of its own or an answer that says `close`, more may have been sent.
        wire.linger().await;
    }
    ended
}

async fn serve_http2(
    gate: &Arc<Gate>,
    watched: &Arc<Watched>,
    wire: &Wire,
    socket: Socket,
) -> Option<hyper::Result<()>> {
    watched.line().speaks_http2(gate.now());
    let service = service_fn({
        let (gate, watched) = (Arc::clone(gate), Arc::clone(watched));
        move |request| proxy::serve(Arc::clone(&gate), Arc::clone(&watched), request)
    });
    let connection = http2_server(&gate.settings).serve_connection(TokioIo::new(socket), service);
    // GOAWAY twice, with a round trip in between: a stream that the client has just opened is still served.
    keep(gate, watched, wire, pin!(connection), |connection| {
        connection.graceful_shutdown();
        true
    })
    .await
}

fn http2_server(settings: &GateSettings) -> http2::Builder<TokioExecutor> {
    let limits = &settings.http2;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(settings.limits.header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .max_send_buf_size(limits.send_buffer_bytes)
        .max_pending_accept_reset_streams(limits.pending_resets)
        .max_local_error_reset_streams(limits.faulty_streams);
    builder
}

/// Polls what serves the client, and looks after its line. `leave` asks it to end in good order, at most once; false: there is
/// nothing to wait for. None: it was left or cut off.
async fn keep<F: Future>(
    gate: &Gate,
    watched: &Watched,
    wire: &Wire,
    mut serving: Pin<&mut F>,
    mut leave: impl FnMut(Pin<&mut F>) -> bool,
) -> Option<F::Output> {
    let (limits, http2) = (&gate.settings.limits, &gate.settings.http2);
    let mut leaving = gate.leaving.subscribe();
    // The line's state can change while this task sleeps, so it looks at least this often: a client that is too slow is
    // cut off after at most one and a half times its limit.
    let look = limits.header_time.min(limits.stall_time) / 2;
    let mut closing = false;
    loop {
        let now = gate.now();
        let wanted = *leaving.borrow_and_update();
        let (fate, notice, old_at) = {
            let mut line = watched.line();
            line.look(now, || wire.has_ended());
            let old_at = line.too_old_at(http2).filter(|_| !closing);
            let dismissed = wanted.dismissing || old_at.is_some_and(|at| at <= now);
            (line.fate(limits, http2, wanted.since, now), dismissed && line.wants_notice(), old_at)
        };
        if notice && !closing {
            closing = true;
            leave(serving.as_mut());
        }
        let wake = match fate {
            Fate::KeepUntil(until) => until.min(now + look),
            Fate::Close if !closing => {
                closing = true;
                if !leave(serving.as_mut()) {
                    return None;
                }
                now + look
            }
            Fate::Close => return None,
            Fate::Cut(why) => {
                tracing::debug!(peer = %watched.peer, why, "client cut off");
                return None;
            }
        };
        let wake = old_at.filter(|at| *at > now).map_or(wake, |at| wake.min(at));
        tokio::select! {
            biased;
            ended = serving.as_mut() => return Some(ended),
            () = wire.broken() => {
                tracing::debug!(peer = %watched.peer, "the client is gone");
                return None;
            }
            changed = leaving.changed() => if changed.is_err() { return None },
            () = tokio::time::sleep(wake.saturating_sub(now).max(Duration::from_millis(1))) => {}
        }
    }
}
