//! A client's socket that notes what the other side did: whether it said GOAWAY, and how it ended.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::book::End;

/// Length of an HTTP/2 frame's head.
const HEAD: usize = 9;
/// The type of a GOAWAY frame.
const GOAWAY: u8 = 7;

/// What was seen of one connection.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The other side announced that it will end: GOAWAY, or what the client itself noted.
    pub(super) announced: AtomicBool,
    /// The other side ended its half in good order.
    pub(super) ended: AtomicBool,
    /// Reading or writing failed.
    pub(super) failed: Mutex<Option<String>>,
}

impl Seen {
    /// The client was told in some other way.
    pub(super) fn announce(&self) {
        self.announced.store(true, Ordering::Release);
    }

    /// Whether the other side has announced its end.
    pub(super) fn is_announced(&self) -> bool {
        self.announced.load(Ordering::Acquire)
    }

    /// Why reading or writing failed.
    pub(super) fn failure(&self) -> Option<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How a connection ended on which so much was under way.
    pub(super) fn end(&self, nothing_under_way: bool) -> End {
        match (self.is_announced(), self.failure()) {
            (true, None) => End::Announced,
            // It was announced and nothing was under way: how the socket goes does not matter to anybody.
            (true, Some(_)) if nothing_under_way => End::Announced,
            (false, None) if nothing_under_way => End::Idle,
            _ => End::Dropped,
        }
    }

    fn fail(&self, error: &io::Error) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get_or_insert_with(|| error.to_string());
    }
}

/// The socket.
pub(super) struct Wire {
    stream: TcpStream,
    seen: Arc<Seen>,
    frames: Option<Frames>,
}

impl Wire {
    /// Connects; frames are looked at if the client speaks HTTP/2.
    pub(super) async fn connect(to: SocketAddr, http2: bool) -> io::Result<(Self, Arc<Seen>)> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let seen = Arc::new(Seen::default());
        Ok((Self { stream, seen: Arc::clone(&seen), frames: http2.then(Frames::default) }, seen))
    }
}

/// Follows the frames of HTTP/2 through whatever pieces they come in.
#[derive(Debug, Default)]
struct Frames {
    head: Vec<u8>,
    skip: usize,
}

impl Frames {
    /// Whether these bytes hold the head of a GOAWAY.
    fn hold_goaway(&mut self, mut bytes: &[u8]) -> bool {
        let mut found = false;
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            (self.skip, bytes) = (self.skip - skipped, &bytes[skipped..]);
            let taken = (HEAD - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if let [a, b, c, kind, ..] = self.head[..]
                && self.head.len() == HEAD
            {
                self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                found |= kind == GOAWAY;
                self.head.clear();
            }
        }
        found
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        match &polled {
            Poll::Ready(Ok(())) if buf.filled().len() > before => {
                let seen = Arc::clone(&self.seen);
                if self.frames.as_mut().is_some_and(|frames| frames.hold_goaway(&buf.filled()[before..])) {
                    seen.announce();
                }
            }
            Poll::Ready(Ok(())) if buf.remaining() > 0 => self.seen.ended.store(true, Ordering::Release),
            Poll::Ready(Err(error)) => self.seen.fail(error),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        polled
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if let Poll::Ready(Err(error)) = &polled {
            self.seen.fail(error);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, content: &[u8]) -> Vec<u8> {
        let mut frame = vec![0, 0, u8::try_from(content.len()).expect("short"), kind, 0, 0, 0, 0, 0];
        frame.extend_from_slice(content);
        frame
    }

    #[test]
    fn a_goaway_is_seen_in_whatever_pieces_it_comes_and_nothing_else_is_taken_for_one() {
        let other = [frame(4, &[]), frame(0, &[7; 40]), frame(1, &[0, 0, 0, 7, 0, 0])].concat();
        let all = [other.clone(), frame(GOAWAY, &[0; 8]), frame(0, &[1])].concat();
        for size in [1, 2, 5, 9, 13, 100] {
            let found = |bytes: &[u8]| {
                let mut frames = Frames::default();
                bytes.chunks(size).filter(|piece| frames.hold_goaway(piece)).count()
            };
            assert_eq!((found(&other), found(&all)), (0, 1), "in pieces of {size}");
        }
    }

    #[test]
    fn an_end_is_announced_idle_or_dropped() {
        let seen = Seen::default();
        assert_eq!((seen.end(true), seen.end(false)), (End::Idle, End::Dropped));
        seen.announce();
        assert_eq!((seen.end(true), seen.end(false)), (End::Announced, End::Announced));
        seen.fail(&io::Error::other("reset"));
        assert_eq!((seen.end(true), seen.end(false)), (End::Announced, End::Dropped));
        let reset = Seen::default();
        reset.fail(&io::Error::other("reset"));
        assert_eq!(reset.end(true), End::Dropped);
    }
}
