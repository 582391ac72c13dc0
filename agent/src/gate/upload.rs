//! Request bodies on their way through the gate.
//!
//! A body carries its request's ticket, so that the request is in flight until it has been passed on; and it tells how far it
//! has come, so that one that stands still, on whichever side, can be ended.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use super::connection::Running;
use super::control::Reason;
use super::headers;
use super::pool::Cutter;
use super::replay::{Again, Replay};
use super::ticket::{Gate, Ticket};

/// How much of a body that nobody wants is still read, and for how long, before its connection is closed: closing with
/// unread bytes makes the kernel send a reset, and the client loses the answer that it was sent. By HTTP/2 what comes after
/// the reset of its stream is a fault, and a connection is closed after too many of them.
const LINGER_BYTES: u64 = 256 << 10;
const LINGER_TIME: Duration = Duration::from_secs(5);

/// The part of an upload that the forwarder watches.
#[derive(Debug, Default)]
pub(super) struct Upload {
    moved_ms: AtomicU64,
    /// When the answer last moved; 0 before its head.
    answered_ms: AtomicU64,
    /// The answer is one to a gRPC call and goes on: either side may be silent as long as it likes.
    may_rest: AtomicBool,
    failed: AtomicU8,
    ended: AtomicBool,
}

impl Upload {
    /// When a byte last moved, in milliseconds of the gate's clock.
    pub(super) fn moved_ms(&self) -> u64 {
        self.moved_ms.load(Ordering::Relaxed)
    }

    /// Whether there is nothing more to pass on.
    pub(super) fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// The answer moved.
    pub(super) fn answered(&self, now: Duration) {
        self.answered_ms.store(in_ms(now), Ordering::Relaxed);
    }

    /// Whether the client may say nothing for any time.
    pub(super) fn may_rest(&self, may: bool) {
        self.may_rest.store(may, Ordering::Relaxed);
    }

    /// How much longer a client may say nothing that has said nothing for `limit`: it may be listening.
    fn patience(&self, limit: Duration, now: Duration) -> Duration {
        if self.may_rest.load(Ordering::Relaxed) {
            return limit;
        }
        match self.answered_ms.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            moved_ms => (Duration::from_millis(moved_ms) + limit).saturating_sub(now),
        }
    }

    /// Set when the upload itself is the reason why a request failed.
    pub(super) fn failed(&self) -> Option<Reason> {
        match self.failed.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(Reason::UploadBroken),
            _ => Some(Reason::UploadStalled),
        }
    }
}

fn in_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error("the client broke off its request body")]
    Broken(#[source] hyper::Error),
    #[error("the client sent nothing of its request body for {}", crate::duration::render(*.0))]
    Stalled(Duration),
}

/// A request body on its way to an upstream.
pub(super) struct RequestBody {
    inner: Option<Incoming>,
    gate: Arc<Gate>,
    ticket: Option<Arc<Ticket>>,
    running: Option<Running>,
    upload: Arc<Upload>,
    stall: Option<Pin<Box<Sleep>>>,
    /// What may have to be sent once more, by HTTP/2.
    replay: Option<Box<Replay>>,
    /// What is being sent once more, before the rest.
    again: Again,
    /// Whether what nobody wants is read on. Not from a client of HTTP/1.1 that waits for `100 Continue`, which has sent
    /// nothing, and reading would ask it to.
    lingers: bool,
}

impl RequestBody {
    pub(super) fn new(inner: Incoming, gate: Arc<Gate>, running: Running, lingers: bool) -> Self {
        let done = inner.is_end_stream();
        let upload = Upload { ended: AtomicBool::new(done), ..Upload::default() };
        Self {
            inner: (!done).then_some(inner),
            gate,
            ticket: None,
            running: (!done).then_some(running),
            upload: Arc::new(upload),
            stall: None,
            replay: None,
            again: Again::default(),
            lingers,
        }
    }

    /// Keeps what is passed on from here, and hands the body back when hyper lets go of it, for sending it again.
    pub(super) fn replayable(&mut self) -> oneshot::Receiver<RequestBody> {
        let (replay, back) = Replay::new();
        self.replay = Some(Box::new(replay));
        back
    }

    /// The body as it was before anything of it was passed on.
    fn rewound(&mut self, again: Again) -> Self {
        let more = !again.is_empty() || self.inner.is_some();
        Self {
            inner: self.inner.take(),
            gate: Arc::clone(&self.gate),
            ticket: self.ticket.take(),
            running: self.running.take(),
            upload: Arc::new(Upload { ended: AtomicBool::new(!more), ..Upload::default() }),
            stall: None,
            replay: None,
            again,
            lingers: self.lingers,
        }
    }

    /// Keeps the request in flight until this body has ended.
    pub(super) fn hold(&mut self, ticket: &Arc<Ticket>) {
        self.ticket = self.inner.is_some().then(|| Arc::clone(ticket));
    }

    /// Lets go of a ticket that did not lead anywhere.
    pub(super) fn release(&mut self) {
        self.ticket = None;
    }

    pub(super) fn upload(&self) -> Arc<Upload> {
        Arc::clone(&self.upload)
    }

    fn moved(&mut self) {
        self.stall = None;
        self.upload.moved_ms.store(in_ms(self.gate.now()), Ordering::Relaxed);
    }

    fn end(&mut self) {
        self.upload.ended.store(true, Ordering::Relaxed);
        self.inner = None;
        self.ticket = None;
        self.running = None;
    }

    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let limit = self.gate.settings.limits.stall_time;
        let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        while stall.as_mut().poll(cx).is_ready() {
            let more = self.upload.patience(limit, self.gate.now());
            if more.is_zero() {
                return self.stalls(limit);
            }
            stall.as_mut().reset(Instant::now() + more);
        }
        Poll::Pending
    }

    fn stalls(&mut self, limit: Duration) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        self.upload.failed.store(2, Ordering::Relaxed);
        self.replay = None;
        self.end();
        Poll::Ready(Some(Err(UploadError::Stalled(limit))))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let this = self.get_mut();
        if let Some(bytes) = this.again.next() {
            this.moved();
            if let Some(replay) = &mut this.replay {
                replay.keep(&bytes);
            }
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        let Some(inner) = this.inner.as_mut() else { return Poll::Ready(None) };
        match Pin::new(&mut *inner).poll_frame(cx) {
            Poll::Pending => this.poll_stall(cx),
            Poll::Ready(Some(Ok(frame))) => {
                let ended = inner.is_end_stream();
                if let Some(replay) = &mut this.replay {
                    replay.keep_frame(&frame);
                }
                if let (Some(running), Some(data)) = (&this.running, frame.data_ref()) {
                    running.delivered(data.len());
                }
                if let (Some(ticket), Some(data)) = (&this.ticket, frame.data_ref()) {
                    ticket.passed.received(data.len());
                }
                this.moved();
                if ended {
                    this.end();
                }
                Poll::Ready(Some(Ok(headers::fit_to_pass(frame))))
            }
            Poll::Ready(Some(Err(error))) => {
                this.upload.failed.store(1, Ordering::Relaxed);
                this.replay = None;
                this.end();
                Poll::Ready(Some(Err(UploadError::Broken(error))))
            }
            Poll::Ready(None) => {
                this.moved();
                this.end();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_none() && self.again.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if !self.again.is_empty() {
            // Its head has the length, if there is one.
            return SizeHint::default();
        }
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.upload.ended.store(true, Ordering::Relaxed);
        if let Some((again, back)) = self.replay.take().and_then(|replay| replay.hand_back()) {
            // If nobody wants it any more it is dropped as one without a way back.
            drop(back.send(self.rewound(again)));
            return;
        }
        let Some(body) = self.inner.take() else { return };
        let running = self.running.take();
        // Outside a runtime the process is ending, and so are its connections.
        if let (true, Ok(runtime)) = (self.lingers, tokio::runtime::Handle::try_current()) {
            runtime.spawn(linger(body, running));
        }
    }
}

async fn linger(mut body: Incoming, running: Option<Running>) {
    let mut left = LINGER_BYTES;
    let deadline = Instant::now() + LINGER_TIME;
    while let Ok(Some(Ok(frame))) = tokio::time::timeout_at(deadline, body.frame()).await {
        let read = frame.data_ref().map_or(0, Bytes::len);
        if let Some(running) = &running {
            running.delivered(read);
        }
        left = left.saturating_sub(read as u64);
        if left == 0 {
            break;
        }
    }
    drop(running);
}

/// Cuts the connection of an upload that goes on after its answer, once nothing has moved for the stall time: its client may
/// be gone, or the service may have stopped reading, and the request must not be in flight for ever. (And hyper 1.12 does not
/// say that a chunked body ended once its answer is complete, until the next request.)
pub(super) async fn watch_upload(gate: Arc<Gate>, upload: Arc<Upload>, connection: Cutter) {
    loop {
        let before = upload.moved_ms();
        tokio::time::sleep(gate.settings.limits.stall_time).await;
        if upload.ended() {
            return;
        }
        if upload.moved_ms() == before {
            connection.cut();
            return;
        }
    }
}
