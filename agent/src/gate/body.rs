//! Answers on their way through the gate.
//!
//! An answer's body carries its request's ticket, so that the request is in flight until the body has ended; back-pressure is
//! hyper's own, since a body is polled only when the other side takes bytes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::connection::Running;
use super::counts::Event;
use super::pool::Link;
use super::ticket::{Gate, Ticket};
use super::upload::{self, Upload};

/// An answer on its way to the client.
pub(super) enum ResponseBody {
    /// Made by the gate.
    Own(Full<Bytes>, #[allow(dead_code, reason = "held for its drop")] Running),
    /// Made by an upstream.
    Passed(PassedBody),
}

/// The body of an upstream's answer.
pub(super) struct PassedBody {
    inner: Incoming,
    gate: Arc<Gate>,
    /// Gone once the body has ended.
    open: Option<Exchange>,
}

/// What one request and its answer hold until both are over.
pub(super) struct Exchange {
    link: Link,
    ticket: Arc<Ticket>,
    upload: Arc<Upload>,
    _running: Running,
}

impl Exchange {
    pub(super) fn of(link: Link, ticket: Arc<Ticket>, upload: Arc<Upload>, running: Running) -> Self {
        Self { link, ticket, upload, _running: running }
    }
}

impl PassedBody {
    pub(super) fn new(inner: Incoming, gate: Arc<Gate>, exchange: Exchange) -> Self {
        let mut body = Self { inner, gate, open: Some(exchange) };
        if body.inner.is_end_stream() {
            body.end();
        }
        body
    }

    /// The body ended well: the connection may be used again.
    fn end(&mut self) {
        if let Some(exchange) = self.open.take() {
            if !exchange.upload.ended() {
                let gate = Arc::clone(&self.gate);
                tokio::spawn(upload::watch_upload(gate, Arc::clone(&exchange.upload), exchange.link.cutter()));
            }
            self.gate.pool.put(exchange.link);
        }
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(_))) if self.inner.is_end_stream() => self.end(),
            Poll::Ready(None) => self.end(),
            Poll::Ready(Some(Err(error))) => {
                if let Some(exchange) = self.open.take() {
                    // A connection also breaks when the client breaks off its upload: that is not the service's fault.
                    let client_did_it = exchange.upload.failed().is_some();
                    tracing::debug!(%error, client_did_it, "an answer broke off");
                    exchange.ticket.record(if client_did_it { Event::ClientCut } else { Event::Lost });
                }
            }
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }
}

impl Drop for PassedBody {
    fn drop(&mut self) {
        if self.inner.is_end_stream() {
            self.end();
        } else if let Some(exchange) = self.open.take() {
            exchange.link.cutter().abort();
            exchange.ticket.record(Event::ClientCut);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            ResponseBody::Own(full, _) => Pin::new(full).poll_frame(cx).map_err(|never| match never {}),
            ResponseBody::Passed(passed) => passed.poll_inner(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ResponseBody::Own(full, _) => full.is_end_stream(),
            ResponseBody::Passed(passed) => passed.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Own(full, _) => full.size_hint(),
            ResponseBody::Passed(passed) => passed.inner.size_hint(),
        }
    }
}
