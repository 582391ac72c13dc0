//! Whether a connection on which something was asked still says anything.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Nothing heard for so long while a head was waited for: new requests go over another connection. To make one shows at once
/// whether the host is there; what was asked here is still waited for. A service whose every answer takes longer costs a few
/// connections more.
const SILENCE: Duration = Duration::from_secs(5);

/// Since when a connection is silent.
#[derive(Debug)]
pub(super) struct Quiet {
    began: Instant,
    /// Requests whose answers' heads have not come.
    waiting: AtomicUsize,
    /// When the last byte was heard, or the first of those was sent after that; in milliseconds since `began`.
    since_ms: AtomicU64,
}

/// A request that waits for the head of its answer.
#[derive(Debug)]
pub(super) struct Waiting<'a>(&'a Quiet);

impl Quiet {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), waiting: AtomicUsize::new(0), since_ms: AtomicU64::new(0) })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn begin_anew(&self) {
        self.since_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Something is asked on it.
    pub(super) fn ask(&self) -> Waiting<'_> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            self.begin_anew();
        }
        Waiting(self)
    }

    /// Whether it has said nothing for too long.
    pub(super) fn is_silent(&self) -> bool {
        let silent_ms = self.now_ms().saturating_sub(self.since_ms.load(Ordering::Relaxed));
        self.waiting.load(Ordering::Relaxed) > 0 && Duration::from_millis(silent_ms) >= SILENCE
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that notes when something is heard on it.
pub(super) struct Heard<S> {
    pub(super) stream: S,
    pub(super) quiet: Arc<Quiet>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Heard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.quiet.begin_anew();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Heard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
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
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
