//! A TCP connection, shared by what speaks on it and what watches over it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::BufMut;
use rustix::net::{Shutdown, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// How much of what its client still sends is read when a connection is closed, and for how long: closing with unread bytes
/// makes the kernel send a reset, and the client may lose the last answer.
const LINGER_BYTES: usize = 256 << 10;
const LINGER_TIME: Duration = Duration::from_secs(5);
const LINGER_BUFFER_BYTES: usize = 8 << 10;

/// Up to so many bytes in several parts are put together before they are written.
const SMALL_BYTES: usize = 1024;

/// One of the holders of a connection, which is closed when the last one lets go.
#[derive(Debug, Clone)]
pub(super) struct Wire(Arc<TcpStream>);

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self(Arc::new(stream))
    }

    /// Ends when the connection is broken: its client has reset it, or the kernel has given it up. That the client has ended
    /// its side is no break.
    pub(super) async fn broken(&self) {
        // That the connection cannot be watched any more is its end, too.
        let _either = self.0.ready(Interest::ERROR).await;
    }

    /// Lets the end of this connection be a reset, which no client can take for the end of an answer.
    pub(super) fn breaks(&self) {
        // One that refuses is broken already.
        drop(self.0.set_zero_linger());
    }

    /// Whether the client has ended its side, read or not, as far as the runtime has heard; asks nobody.
    pub(super) fn has_ended(&self) -> bool {
        let known = pin!(self.0.ready(Interest::READABLE)).poll(&mut Context::from_waker(Waker::noop()));
        matches!(known, Poll::Ready(Ok(ready)) if ready.is_read_closed())
    }
}

impl Wire {
    /// Ends our side, and reads on until the client has ended its own, or enough has been read.
    pub(super) async fn linger(self) {
        if shutdown(&*self.0, Shutdown::Write).is_err() {
            // There is no connection any more.
            return;
        }
        let reading = async {
            let (mut buffer, mut left) = (vec![0; LINGER_BUFFER_BYTES], LINGER_BYTES);
            while left > 0 && self.0.readable().await.is_ok() {
                match self.0.try_read(&mut buffer) {
                    Ok(0) => return,
                    Ok(count) => left = left.saturating_sub(count),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        };
        // What came in that time is enough.
        let _either = tokio::time::timeout(LINGER_TIME, reading).await;
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            let (room, mut read) = (buf.remaining(), false);
            let tried = self.0.try_io(Interest::READABLE, || {
                let count = self.0.try_read_buf(buf)?;
                read = true;
                // As tokio's own streams: less than there was room for was all there is, and to ask again for nothing would
                // cost a system call per request.
                if 0 < count && count < room { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            match tried {
                _ if read => return Poll::Ready(Ok(())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }
}

impl Wire {
    fn poll_written(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match write(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_written(cx, |stream| stream.try_write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(shutdown(&*self.0, Shutdown::Write).map_err(io::Error::from))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // Plain `send` takes the kernel a shorter way than `writev`, and most messages are one part, or a few small ones.
        if let [only] = parts {
            return self.poll_write(cx, only);
        }
        let whole: usize = parts.iter().map(|part| part.len()).sum();
        if whole <= SMALL_BYTES {
            let mut small = [0; SMALL_BYTES];
            let mut room = small.as_mut_slice();
            for part in parts {
                room.put_slice(part);
            }
            return self.poll_write(cx, &small[..whole]);
        }
        self.poll_written(cx, |stream| stream.try_write_vectored(parts))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
