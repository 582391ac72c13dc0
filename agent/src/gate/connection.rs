//! One client connection: HTTP/1.1 over a watched socket, closed when [`super::line`] says so.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::line::{Fate, Line};
use super::proxy;
use super::ticket::Gate;

/// Least read buffer of a connection. hyper takes nothing below 8 KiB; 64 KiB keeps large bodies fast.
const BUFFER_BYTES: usize = 64 << 10;

/// One connection's line, shared by its socket, its requests and the task that watches it.
pub(super) struct Watched {
    line: Mutex<Line>,
    gate: Arc<Gate>,
}

impl Watched {
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request's head is complete; it runs until the last clone of the answer is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Running {
        self.line().begin();
        Running(Arc::new(RunningRequest(Arc::clone(self))))
    }
}

/// Held by both bodies of a request.
#[derive(Clone)]
pub(super) struct Running(#[allow(dead_code, reason = "held for its drop")] Arc<RunningRequest>);

struct RunningRequest(Arc<Watched>);

impl Drop for RunningRequest {
    fn drop(&mut self) {
        let now = self.0.gate.now();
        self.0.line().end(now);
    }
}

/// Serves one client until it leaves, is too slow, or the gate wants it to go.
pub(super) async fn serve(gate: Arc<Gate>, stream: TcpStream, peer: SocketAddr) {
    let line = Mutex::new(Line { idle_since: gate.now(), ..Line::default() });
    let watched = Arc::new(Watched { line, gate: Arc::clone(&gate) });
    let service = service_fn(|request| proxy::serve(Arc::clone(&gate), Arc::clone(&watched), peer, request));
    let socket = WatchedSocket { stream, watched: Arc::clone(&watched) };
    let limits = &gate.settings.limits;
    // half_close: a client may end its sending side and still wait for its answer, and cannot be told from one that is gone
    // until bytes are written to it. So a request goes on without its client until then, which is what the service sees too.
    let connection = http1::Builder::new()
        .half_close(true)
        .header_read_timeout(None)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes.max(BUFFER_BYTES))
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    let mut leaving = gate.leaving.subscribe();
    // The line's state can change while this task sleeps, so it looks at least this often: a client that is too slow is
    // cut off after at most one and a half times its limit.
    let look = limits.header_time.min(limits.stall_time) / 2;
    let mut closing = false;
    loop {
        let now = gate.now();
        let leaving_since = *leaving.borrow_and_update();
        let fate = watched.line().fate(limits, leaving_since, now);
        let wake = match fate {
            Fate::KeepUntil(until) => until.min(now + look),
            Fate::Close if !closing => {
                closing = true;
                connection.as_mut().graceful_shutdown();
                now + look
            }
            Fate::Close => return,
            Fate::Cut(why) => {
                tracing::debug!(%peer, why, "client cut off");
                return;
            }
        };
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "client connection ended");
                }
                return;
            }
            changed = leaving.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wake.saturating_sub(now).max(Duration::from_millis(1))) => {}
        }
    }
}

/// A socket that tells its line about every byte.
struct WatchedSocket {
    stream: TcpStream,
    watched: Arc<Watched>,
}

impl WatchedSocket {
    fn wrote(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let now = self.watched.gate.now();
        self.watched.line().wrote(polled.is_ready(), now);
        polled
    }
}

impl AsyncRead for WatchedSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            let now = self.watched.gate.now();
            self.watched.line().bytes_read(now);
        }
        polled
    }
}

impl AsyncWrite for WatchedSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
