//! Sends one request to an upstream. Here is the rule about repeating, in one place:
//!
//! - A request of which not a byte was written may go another way: from a pooled connection that turned out to be closed to
//!   a fresh one, and from an upstream that cannot be connected to, or closes at once, to another ready one. Where there is
//!   no other it waits, bounded as a held request is: a process that died is noticed and replaced in that time.
//! - So may a request that was written by HTTP/2 and of which the upstream said that it has not processed it (REFUSED_STREAM,
//!   or a GOAWAY that leaves it out), if no more of its body has passed than is kept ([`super::replay`]).
//! - Any other request that was written, wholly or in part, is never sent again, whatever its method: the service may have
//!   executed it, and only its client knows whether a second time does harm.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::{Request, Response};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::admission::Ask;
use super::control::Reason;
use super::counts::Event;
use super::headers;
use super::patience::Patience;
use super::peers::Share;
use super::pool::{Cutter, Link, SendFailure};
use super::ticket::{Gate, Ticket};
use super::upload::{RequestBody, Upload};

/// An answer's head with what its body will need.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) link: Link,
    pub(super) ticket: Arc<Ticket>,
    pub(super) upload: Arc<Upload>,
}

/// How often a request is put on a shared connection of one upstream: each may be closed, in good order, just then.
const SHARED_TRIES: usize = 5;
/// How long hyper may take to let go of a body whose stream was refused. It does so at once.
const LET_GO: Duration = Duration::from_secs(1);

/// How a request is to go.
#[derive(Clone, Copy)]
pub(super) struct Way {
    pub(super) ask: Ask,
    /// By HTTP/2.
    pub(super) http2: bool,
    /// Whether it offers to switch to another protocol.
    pub(super) upgrade: bool,
    /// When its time is over.
    pub(super) deadline: Option<Instant>,
}

/// Closes a connection unless the request on it got its answer.
struct CutOnDrop(Option<Cutter>);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            connection.cut();
        }
    }
}

enum Attempt {
    Answered(Response<Incoming>, Link, Arc<Upload>),
    /// The upstream is out of reach, or refuses; the request is whole.
    OutOfReach(Request<RequestBody>, Reason),
    Failed(Reason),
}

/// Sends the request, to other upstreams too as long as none has processed it.
pub(super) async fn forward(
    gate: &Arc<Gate>,
    way: Way,
    share: &Arc<Share>,
    mut patience: Patience,
    ticket: Ticket,
    mut request: Request<RequestBody>,
) -> Result<Answer, Reason> {
    let mut ticket = Arc::new(ticket);
    let mut tried = Vec::new();
    loop {
        request.body_mut().hold(&ticket);
        match attempt(gate, way, &ticket, request).await {
            Attempt::Answered(response, link, upload) => {
                ticket.answered(response.status().as_u16());
                return Ok(Answer { response, link, ticket, upload });
            }
            Attempt::Failed(reason) => {
                let client_did_it = matches!(reason, Reason::UploadBroken | Reason::UploadStalled);
                ticket.record(if client_did_it { Event::ClientLeft } else { Event::NoAnswer });
                return Err(reason);
            }
            Attempt::OutOfReach(mut whole, why) => {
                ticket.record(Event::ConnectFailed);
                whole.body_mut().release();
                tried.push(ticket.key());
                ticket = match ticket.elsewhere(way.ask, &tried) {
                    Err(Reason::Connect) => {
                        // Out of every book while it waits: nothing of it is in flight anywhere.
                        let about = ticket.known();
                        drop(ticket);
                        in_time(way.deadline, gate.wait_for_reach(why, &mut patience, share)).await?;
                        tried.clear();
                        Arc::new(in_time(way.deadline, gate.enter(way.ask, share, &mut patience)).await?.about(about))
                    }
                    other => Arc::new(other?),
                };
                request = whole;
            }
        }
    }
}

/// Gives a wait up when the request's time is over.
pub(super) async fn in_time<T>(
    deadline: Option<Instant>,
    wait: impl Future<Output = Result<T, Reason>>,
) -> Result<T, Reason> {
    match deadline {
        Some(at) => tokio::time::timeout_at(at, wait).await.unwrap_or(Err(Reason::RequestTimeout)),
        None => wait.await,
    }
}

/// One upstream: first over what is open to it, then over a new connection.
async fn attempt(gate: &Gate, way: Way, ticket: &Ticket, mut request: Request<RequestBody>) -> Attempt {
    let upstream = ticket.upstream();
    if !way.http2
        && let Some(link) = gate.pool.take(ticket.key())
    {
        match send(gate, way, link, request).await {
            Ok(answer) => return answer,
            Err((whole, _)) => request = whole,
        }
    }
    let mut why = Reason::Connect;
    for _ in 0..if way.http2 { SHARED_TRIES } else { 1 } {
        match connect(gate, way, ticket).await {
            Ok(link) => match send(gate, way, link, request).await {
                Ok(answer) => return answer,
                Err((whole, reason)) => (request, why) = (whole, reason),
            },
            Err(error) => {
                tracing::debug!(instance = %upstream.instance, address = %upstream.address, %error, "cannot connect to upstream");
                return Attempt::OutOfReach(request, Reason::Connect);
            }
        }
    }
    Attempt::OutOfReach(request, why)
}

async fn connect(gate: &Gate, way: Way, ticket: &Ticket) -> std::io::Result<Link> {
    let (key, address, limits) = (ticket.key(), ticket.upstream().address, &gate.settings.limits);
    let (limit, patience) = (limits.connect_time, limits.answer_time);
    if way.http2 {
        Ok(Link::shared(key, gate.multiplex.place(key, address, limit, patience).await?))
    } else {
        Link::connect(key, address, limit, patience).await
    }
}

/// One request on one connection. The error is the request, whole, and why: nothing of it was processed.
async fn send(
    gate: &Gate,
    way: Way,
    mut link: Link,
    mut request: Request<RequestBody>,
) -> Result<Attempt, (Request<RequestBody>, Reason)> {
    let has_upload = !request.body().is_end_stream();
    let upload = request.body().upload();
    let again = way.http2.then(|| (head_of(&request), request.body_mut().replayable()));
    // Cuts the connection if this request is given up: for its time, or because its client is gone.
    let mut unanswered = CutOnDrop(Some(link.cutter()));
    let answer = tokio::select! {
        biased;
        answer = link.send(request) => answer,
        reason = time_is_over(gate, way, &upload, has_upload) => return Ok(Attempt::Failed(reason)),
    };
    unanswered.0 = None;
    Ok(match answer {
        // Switching protocols is no answer if that was not asked for.
        Ok(response) if response.status().is_informational() && !way.upgrade => Attempt::Failed(Reason::NoAnswer),
        Ok(response) if !headers::is_chunked_or_plain(response.headers()) => {
            tracing::debug!("an answer came in a transfer coding other than chunked");
            link.cutter().cut();
            Attempt::Failed(Reason::NoAnswer)
        }
        Ok(response) => Attempt::Answered(response, link, upload),
        Err(SendFailure::NotWritten(whole, error)) => {
            tracing::debug!(%error, "a connection was closed before the request was written");
            return Err((*whole, Reason::Connect));
        }
        Err(SendFailure::Refused(error)) => {
            tracing::debug!(%error, "the upstream did not process a request");
            let Some(whole) = rewound(again).await else { return Ok(Attempt::Failed(Reason::Refused)) };
            return Err((whole, Reason::Refused));
        }
        Err(SendFailure::Written(error)) => {
            let reason = upload.failed().unwrap_or(Reason::NoAnswer);
            tracing::debug!(%error, reason = reason.name(), "a request that was sent got no answer");
            Attempt::Failed(reason)
        }
    })
}

fn head_of(request: &Request<RequestBody>) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.version_mut() = request.version();
    *head.headers_mut() = request.headers().clone();
    head
}

/// The request as it was before it was sent, if enough of it was kept.
async fn rewound(again: Option<(Request<()>, oneshot::Receiver<RequestBody>)>) -> Option<Request<RequestBody>> {
    let (head, body) = again?;
    let body = tokio::time::timeout(LET_GO, body).await.ok()?.ok()?;
    Some(head.map(|()| body))
}

/// Ends when nothing of the request has been passed on for the answer time, or its own time is over.
async fn time_is_over(gate: &Gate, way: Way, upload: &Upload, has_upload: bool) -> Reason {
    let limit = gate.settings.limits.answer_time;
    let mut since = gate.now();
    loop {
        let overdue = gate.instant(since + limit);
        if let Some(deadline) = way.deadline.filter(|deadline| *deadline < overdue) {
            tokio::time::sleep_until(deadline).await;
            return Reason::RequestTimeout;
        }
        tokio::time::sleep_until(overdue).await;
        let moved = Duration::from_millis(upload.moved_ms());
        if !has_upload || moved <= since {
            return Reason::AnswerTimeout;
        }
        since = moved;
    }
}
