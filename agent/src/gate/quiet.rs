//! Whether a connection on which something was asked still says anything.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Nothing heard for so long since something was asked: new requests go over another connection. To make one shows at once
/// whether the host is there; what was asked here is still waited for. A service whose every answer takes longer costs a few
/// connections more.
const SILENCE: Duration = Duration::from_secs(5);

/// Since when a connection is silent.
#[derive(Debug)]
pub(super) struct Quiet {
    began: Instant,
    /// In milliseconds since then, when something was asked first after the last byte was heard; 0: nothing was.
    asked_ms: AtomicU64,
}

impl Quiet {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), asked_ms: AtomicU64::new(0) })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Something is asked on it.
    pub(super) fn asked(&self) {
        // Another was first.
        let _earlier = self.asked_ms.compare_exchange(0, self.now_ms(), Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Whether it has said nothing for too long.
    pub(super) fn is_silent(&self) -> bool {
        let asked_ms = self.asked_ms.load(Ordering::Relaxed);
        asked_ms > 0 && Duration::from_millis(self.now_ms().saturating_sub(asked_ms)) >= SILENCE
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
            self.quiet.asked_ms.store(0, Ordering::Relaxed);
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
