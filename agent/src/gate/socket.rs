//! A client's socket, with or without TLS, which tells its line about every byte.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use super::connection::Watched;
use super::wire::Wire;

/// What an HTTP/2 client sends first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Room for the first read of a connection: an ordinary request's head.
const FIRST_READ_BYTES: usize = 1024;

/// What the bytes travel through.
pub(super) enum Stream {
    /// TCP.
    Plain(Wire),
    /// TLS over TCP.
    Tls(Box<TlsStream<Wire>>),
}

/// A client's socket.
pub(super) struct Socket {
    stream: Stream,
    /// Bytes that were read to see what the client speaks.
    ahead: Bytes,
    watched: Arc<Watched>,
}

impl Socket {
    pub(super) fn new(stream: Stream, watched: Arc<Watched>) -> Self {
        Self { stream, ahead: Bytes::new(), watched }
    }

    /// Whether the client begins as one does that speaks HTTP/2. Nothing is lost of what is read for that.
    pub(super) async fn speaks_http2(&mut self) -> io::Result<bool> {
        let mut seen = BytesMut::with_capacity(FIRST_READ_BYTES);
        loop {
            let ended = self.read_buf(&mut seen).await? == 0;
            let common = seen.len().min(PREFACE.len());
            let like = seen.get(..common) == PREFACE.get(..common);
            if ended || !like || common == PREFACE.len() {
                self.ahead = seen.freeze();
                return Ok(like && common == PREFACE.len());
            }
        }
    }

    /// The connection itself.
    pub(super) fn wire(&self) -> &Wire {
        match &self.stream {
            Stream::Plain(wire) => wire,
            Stream::Tls(stream) => stream.get_ref().0,
        }
    }

    fn wrote(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.watched.wrote(polled.is_ready());
        polled
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            let count = self.ahead.len().min(buf.remaining());
            buf.put_slice(self.ahead.get(..count).unwrap_or_default());
            self.ahead.advance(count);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        let count = buf.filled().len() - before;
        if count > 0 {
            self.watched.bytes_read(count)?;
        }
        polled
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        };
        self.wrote(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => {
                let polled = Pin::new(stream).poll_flush(cx);
                // TLS takes bytes that the socket does not take yet; only here it shows that the client does not read.
                self.watched.wrote(polled.is_ready());
                polled
            }
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        };
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }
}
