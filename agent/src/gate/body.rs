//! Answers on their way through the gate.
//!
//! An answer's body carries its request's ticket, so that the request is in flight until the body has ended; back-pressure is
//! hyper's own, since a body is polled only when the other side takes bytes.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::connection::Running;
use super::counts::Event;
use super::pool::Link;
use super::ticket::{Gate, Ticket};
use super::upgraded::AtDrain;
use super::upload::{self, Upload};
use super::{grpc, headers, tunnel};

/// How long a client of HTTP/2 may take to hear that its answer ends before its end.
const LAST_WORD: Duration = Duration::from_secs(1);

/// An answer on its way to the client.
pub(super) enum ResponseBody {
    /// Made by the gate.
    Own(OwnBody),
    /// Made by an upstream.
    Passed(PassedBody),
}

/// The body of an answer that the gate made.
pub(super) struct OwnBody {
    full: Full<Bytes>,
    delivery: Delivery,
}

impl OwnBody {
    pub(super) fn new(bytes: Bytes, running: Running, http2: bool) -> Self {
        running.is_whole();
        Self { full: Full::new(bytes), delivery: Delivery { running: Some(running), http2, offered: false } }
    }
}

/// Follows whether the client takes what is ready for it. By HTTP/1.1 the socket tells; by HTTP/2 a client that gives no
/// window leaves the socket free, and hyper keeps one frame until it may be sent: it has been, when the next one is asked for
/// or the body is dropped.
struct Delivery {
    running: Option<Running>,
    http2: bool,
    offered: bool,
}

impl Delivery {
    fn offer(&mut self, count: usize) {
        if let (true, Some(running)) = (self.http2, &self.running) {
            self.offered = true;
            running.offered(count);
        }
    }

    fn taken(&mut self) {
        if let (true, Some(running)) = (std::mem::take(&mut self.offered), &self.running) {
            running.taken();
        }
    }

    /// Nothing more is to come.
    fn end(&mut self) {
        if let Some(running) = &self.running {
            running.is_whole();
        }
        if !self.http2 {
            self.running = None;
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.taken();
    }
}

/// Why an answer ends before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    #[error("the upstream broke off its answer")]
    Lost(#[source] hyper::Error),
    #[error("the request took longer than one may")]
    TimeIsOver,
    #[error("the instance is being replaced; call again")]
    Drained,
    #[error("the connection has become too old; call again on another")]
    TooOld,
}

/// The body of an upstream's answer.
pub(super) struct PassedBody {
    inner: Incoming,
    gate: Arc<Gate>,
    open: Open,
    manner: Manner,
    /// What may end it before its end.
    cutter: Option<Pin<Box<dyn Future<Output = AnswerError> + Send + Sync>>>,
    delivery: Delivery,
    /// What goes the other way, if it still does.
    upload: Option<Arc<Upload>>,
    /// The last word has been said: trailers of the gate's own.
    cut: bool,
}

/// What is held until the body has ended, and gone then.
enum Open {
    Own(Option<Exchange>),
    /// Also by a task that lets go of it when the answer must end. By HTTP/2 nobody asks for the next piece of an answer whose
    /// client takes nothing, and its connection serves others.
    Overseen {
        exchange: Arc<Mutex<Option<Exchange>>>,
        _task: AbortOnDropHandle<()>,
    },
}

impl Open {
    fn overseen(exchange: Exchange, end: impl Future<Output = AnswerError> + Send + 'static) -> Self {
        let both = Arc::new(Mutex::new(Some(exchange)));
        let ours = Arc::clone(&both);
        let task = tokio::spawn(async move {
            let error = end.await;
            // A client that takes what it is told hears it from the body itself.
            tokio::time::sleep(LAST_WORD).await;
            if let Some(exchange) = take(&ours) {
                tracing::debug!(%error, "an answer is given up: its client takes nothing of it");
                exchange.link.cutter().cut();
                exchange.ticket.record(Event::ClientCut);
            }
        });
        Self::Overseen { exchange: both, _task: AbortOnDropHandle::new(task) }
    }

    fn sent(&self, count: usize) {
        match self {
            Self::Own(Some(exchange)) => exchange.ticket.passed.sent(count),
            Self::Own(None) => {}
            Self::Overseen { exchange, .. } => {
                if let Some(exchange) = &*exchange.lock().unwrap_or_else(PoisonError::into_inner) {
                    exchange.ticket.passed.sent(count);
                }
            }
        }
    }

    fn take(&mut self) -> Option<Exchange> {
        match self {
            Self::Own(exchange) => exchange.take(),
            Self::Overseen { exchange, .. } => take(exchange),
        }
    }
}

fn take(exchange: &Mutex<Option<Exchange>>) -> Option<Exchange> {
    exchange.lock().unwrap_or_else(PoisonError::into_inner).take()
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
    /// When it has to end because its connection is too old; of gRPC only.
    pub(super) ends_at: Option<Instant>,
}

/// What one request and its answer hold until both are over.
pub(super) struct Exchange {
    link: Link,
    ticket: Arc<Ticket>,
    upload: Arc<Upload>,
}

impl Exchange {
    pub(super) fn of(link: Link, ticket: Arc<Ticket>, upload: Arc<Upload>) -> Self {
        Self { link, ticket, upload }
    }
}

impl PassedBody {
    pub(super) fn new(inner: Incoming, gate: Arc<Gate>, exchange: Exchange, running: Running, manner: Manner) -> Self {
        let delivery = Delivery { running: Some(running), http2: manner.http2, offered: false };
        let grpc = manner.http2 && manner.grpc;
        let upload = (!exchange.upload.ended()).then(|| Arc::clone(&exchange.upload));
        if let (Some(upload), true) = (&upload, grpc) {
            upload.may_rest(true);
        }
        // Nearly no answer needs one.
        let cutter = (grpc || manner.deadline.is_some()).then(|| {
            let stream = grpc.then(|| (Arc::clone(&gate), Arc::clone(&exchange.ticket)));
            Box::pin(cut_off(stream, manner)) as Pin<Box<dyn Future<Output = AnswerError> + Send + Sync>>
        });
        let policy = grpc && gate.settings.upgraded.grpc != AtDrain::Finish;
        let open = if manner.http2 && (policy || manner.deadline.is_some() || manner.ends_at.is_some()) {
            let stream = policy.then(|| (Arc::clone(&gate), Arc::clone(&exchange.ticket)));
            Open::overseen(exchange, cut_off(stream, manner))
        } else {
            Open::Own(Some(exchange))
        };
        let mut body = Self { inner, gate, open, manner, cutter, delivery, upload, cut: false };
        body.moved();
        if body.inner.is_end_stream() {
            body.end();
        }
        body
    }

    /// A client that listens need not speak.
    fn moved(&self) {
        if let Some(upload) = &self.upload {
            upload.answered(self.gate.now());
        }
    }

    /// Nothing more is to come.
    fn falls_silent(&mut self) {
        if let Some(upload) = self.upload.take() {
            upload.may_rest(false);
        }
    }

    /// The body ended well: the connection may be used again.
    fn end(&mut self) {
        self.falls_silent();
        self.delivery.end();
        self.cutter = None;
        if let Some(exchange) = self.open.take() {
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
        self.delivery.taken();
        // Before the answer itself, which may always have more ready than its client takes.
        if let Some(Poll::Ready(error)) = self.cutter.as_mut().map(|cutter| cutter.as_mut().poll(cx)) {
            return self.break_off(error);
        }
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.moved();
                let count = frame.data_ref().map_or(0, Bytes::len);
                self.delivery.offer(count);
                self.open.sent(count);
                if self.inner.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(headers::fit_to_pass(frame))))
            }
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => self.break_off(AnswerError::Lost(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Ends before the end.
    fn break_off(&mut self, error: AnswerError) -> Poll<Option<Result<Frame<Bytes>, AnswerError>>> {
        if let Some(exchange) = self.open.take() {
            // A connection also breaks when the client breaks off its upload: that is not the service's fault.
            let client_did_it = exchange.upload.failed().is_some();
            tracing::debug!(%error, client_did_it, "an answer broke off");
            exchange.link.cutter().cut();
            // Nor is the age of its connection.
            let blameless = client_did_it || matches!(error, AnswerError::TooOld);
            exchange.ticket.record(if blameless { Event::ClientCut } else { Event::Lost });
        }
        self.cutter = None;
        self.falls_silent();
        self.delivery.end();
        self.cut = true;
        if !(self.manner.http2 && self.manner.grpc) {
            return Poll::Ready(Some(Err(error)));
        }
        let status = match &error {
            AnswerError::Lost(_) | AnswerError::Drained | AnswerError::TooOld => grpc::UNAVAILABLE,
            AnswerError::TimeIsOver => grpc::DEADLINE_EXCEEDED,
        };
        let mut trailers = HeaderMap::new();
        grpc::tell(&mut trailers, status, &error.to_string());
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

/// Ends when an answer must: its time is over, or, for one to a gRPC call, the drain of its upstream or its connection's age
/// says so.
async fn cut_off(stream: Option<(Arc<Gate>, Arc<Ticket>)>, manner: Manner) -> AnswerError {
    let drained = async {
        match stream {
            Some((gate, ticket)) => tunnel::grpc_is_drained(&gate, &ticket).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = drained => AnswerError::Drained,
        () = moment(manner.deadline) => AnswerError::TimeIsOver,
        () = moment(manner.ends_at) => AnswerError::TooOld,
    }
}

async fn moment(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Drop for PassedBody {
    fn drop(&mut self) {
        self.falls_silent();
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
            ResponseBody::Own(own) => {
                own.delivery.taken();
                let polled = Pin::new(&mut own.full).poll_frame(cx).map_err(|never| match never {});
                // Its size is no matter: it is a sentence.
                own.delivery.offer(0);
                polled
            }
            ResponseBody::Passed(passed) => passed.poll_inner(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ResponseBody::Own(own) => own.full.is_end_stream(),
            ResponseBody::Passed(passed) => passed.cut || passed.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Own(own) => own.full.size_hint(),
            ResponseBody::Passed(passed) => passed.inner.size_hint(),
        }
    }
}
