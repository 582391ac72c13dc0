//! Answers on their way through the gate.
//!
//! An answer's body carries its request's ticket, so that the request is in flight until the body has ended; back-pressure is
//! hyper's own, since a body is polled only when the other side takes bytes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::connection::Running;
use super::counts::Event;
use super::pool::Link;
use super::ticket::{Gate, Ticket};
use super::upload::{self, Upload};
use super::{grpc, headers};

/// An answer on its way to the client.
pub(super) enum ResponseBody {
    /// Made by the gate.
    Own(Full<Bytes>, #[allow(dead_code, reason = "held for its drop")] Running),
    /// Made by an upstream.
    Passed(PassedBody),
}

/// Why an answer ends before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("the upstream broke off its answer")]
    Lost(#[source] hyper::Error),
    #[error("the request took longer than one may")]
    TimeIsOver,
}

/// The body of an upstream's answer.
pub(super) struct PassedBody {
    inner: Incoming,
    gate: Arc<Gate>,
    /// Gone once the body has ended.
    open: Option<Exchange>,
    manner: Manner,
    time: Option<Pin<Box<Sleep>>>,
    /// By HTTP/2: the client has not taken the last frame yet.
    offered: bool,
    /// The last word has been said: trailers of the gate's own.
    cut: bool,
}

/// How an answer goes to its client.
#[derive(Clone, Copy, Default)]
pub(super) struct Manner {
    /// By HTTP/2.
    pub(super) http2: bool,
    /// It is of gRPC: if it must be cut, then with trailers that say why.
    pub(super) grpc: bool,
    /// When its time is over.
    pub(super) deadline: Option<Instant>,
}

/// What one request and its answer hold until both are over.
pub(super) struct Exchange {
    link: Link,
    ticket: Arc<Ticket>,
    upload: Arc<Upload>,
    running: Running,
}

impl Exchange {
    pub(super) fn of(link: Link, ticket: Arc<Ticket>, upload: Arc<Upload>, running: Running) -> Self {
        Self { link, ticket, upload, running }
    }
}

impl PassedBody {
    pub(super) fn new(inner: Incoming, gate: Arc<Gate>, exchange: Exchange, manner: Manner) -> Self {
        let time = manner.deadline.map(|at| Box::pin(tokio::time::sleep_until(at)));
        let mut body = Self { inner, gate, open: Some(exchange), manner, time, offered: false, cut: false };
        if body.inner.is_end_stream() {
            body.end();
        }
        body
    }

    /// The body ended well: the connection may be used again.
    fn end(&mut self) {
        if let Some(exchange) = self.open.take() {
            exchange.running.is_whole();
            if !exchange.upload.ended() {
                let gate = Arc::clone(&self.gate);
                tokio::spawn(upload::watch_upload(gate, Arc::clone(&exchange.upload), exchange.link.cutter()));
            }
            self.gate.pool.put(exchange.link);
        }
    }

    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        if self.cut {
            return Poll::Ready(None);
        }
        self.taken();
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if self.inner.is_end_stream() {
                    self.end();
                } else {
                    self.offer();
                }
                Poll::Ready(Some(Ok(without_connection_fields(frame))))
            }
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => self.break_off(AnswerError::Lost(error)),
            Poll::Pending => match self.time.as_mut().map(|time| time.as_mut().poll(cx)) {
                Some(Poll::Ready(())) => self.break_off(AnswerError::TimeIsOver),
                Some(Poll::Pending) | None => Poll::Pending,
            },
        }
    }

    /// Ends before the end.
    fn break_off(&mut self, error: AnswerError) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        if let Some(exchange) = self.open.take() {
            // A connection also breaks when the client breaks off its upload: that is not the service's fault.
            let client_did_it = exchange.upload.failed().is_some();
            tracing::debug!(%error, client_did_it, "an answer broke off");
            exchange.link.cutter().cut();
            exchange.ticket.record(if client_did_it { Event::ClientCut } else { Event::Lost });
            exchange.running.is_whole();
        }
        self.cut = true;
        if !(self.manner.http2 && self.manner.grpc) {
            return Poll::Ready(Some(Err(error)));
        }
        let status = match &error {
            AnswerError::Lost(_) => grpc::UNAVAILABLE,
            AnswerError::TimeIsOver => grpc::DEADLINE_EXCEEDED,
        };
        let mut trailers = HeaderMap::new();
        grpc::tell(&mut trailers, status, &error.to_string());
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    /// By HTTP/2 a client that does not read leaves the socket free, so each frame's way is followed.
    fn offer(&mut self) {
        if let (true, Some(exchange)) = (self.manner.http2, &self.open) {
            self.offered = true;
            exchange.running.offered();
        }
    }

    fn taken(&mut self) {
        if let (true, Some(exchange)) = (std::mem::take(&mut self.offered), &self.open) {
            exchange.running.taken();
        }
    }
}

/// Trailers may no more speak of one connection than heads.
fn without_connection_fields(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            headers::strip_hop_by_hop(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}

impl Drop for PassedBody {
    fn drop(&mut self) {
        self.taken();
        if self.inner.is_end_stream() {
            self.end();
        } else if let Some(exchange) = self.open.take() {
            exchange.link.cutter().cut();
            exchange.ticket.record(Event::ClientCut);
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = AnswerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        match self.get_mut() {
            ResponseBody::Own(full, _) => Pin::new(full).poll_frame(cx).map_err(|never| match never {}),
            ResponseBody::Passed(passed) => passed.poll_inner(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ResponseBody::Own(full, _) => full.is_end_stream(),
            ResponseBody::Passed(passed) => passed.cut || passed.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Own(full, _) => full.size_hint(),
            ResponseBody::Passed(passed) => passed.inner.size_hint(),
        }
    }
}
