//! Sends one request to an upstream. Here is the rule about repeating, in one place:
//!
//! - A request of which not a byte was written may go another way: from a pooled connection that turned out to be closed to
//!   a fresh one, and from an upstream that cannot be connected to, or closes at once, to another ready one.
//! - A request that was written, wholly or in part, is never sent again, whatever its method: the service may have executed
//!   it, and only its client knows whether a second time does harm.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::{Request, Response, StatusCode};
use tokio::task::AbortHandle;

use super::class::Class;
use super::control::Reason;
use super::counts::Event;
use super::pool::{Link, SendFailure};
use super::ticket::{Gate, Ticket};
use super::upload::{RequestBody, Upload};

/// An answer's head with what its body will need.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) link: Link,
    pub(super) ticket: Arc<Ticket>,
    pub(super) upload: Arc<Upload>,
}

/// Closes a connection unless the request on it got its answer.
struct CutOnDrop(Option<AbortHandle>);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            connection.abort();
        }
    }
}

enum Attempt {
    Answered(Response<Incoming>, Link, Arc<Upload>),
    /// The upstream is out of reach; the request is whole.
    OutOfReach(Request<RequestBody>),
    Failed(Reason),
}

/// Sends the request, to other upstreams too as long as none has received a byte of it.
pub(super) async fn forward(
    gate: &Arc<Gate>,
    class: Class,
    ticket: Ticket,
    mut request: Request<RequestBody>,
) -> Result<Answer, Reason> {
    let mut ticket = Arc::new(ticket);
    let mut tried = Vec::new();
    loop {
        request.body_mut().hold(&ticket);
        match attempt(gate, &ticket, request).await {
            Attempt::Answered(response, link, upload) => {
                ticket.answered(response.status().as_u16());
                return Ok(Answer { response, link, ticket, upload });
            }
            Attempt::Failed(reason) => {
                let client_did_it = matches!(reason, Reason::UploadBroken | Reason::UploadStalled);
                ticket.record(if client_did_it { Event::ClientLeft } else { Event::NoAnswer });
                return Err(reason);
            }
            Attempt::OutOfReach(mut whole) => {
                ticket.record(Event::ConnectFailed);
                whole.body_mut().release();
                tried.push(ticket.key());
                ticket = Arc::new(ticket.elsewhere(class, &tried)?);
                request = whole;
            }
        }
    }
}

async fn attempt(gate: &Gate, ticket: &Ticket, mut request: Request<RequestBody>) -> Attempt {
    let upstream = ticket.upstream();
    if let Some(link) = gate.pool.take(ticket.key()) {
        match send(gate, link, request).await {
            Ok(answer) => return answer,
            Err(whole) => request = whole,
        }
    }
    match Link::connect(ticket.key(), upstream.address, gate.settings.limits.connect_time).await {
        Ok(link) => send(gate, link, request).await.unwrap_or_else(Attempt::OutOfReach),
        Err(error) => {
            tracing::debug!(instance = %upstream.instance, address = %upstream.address, %error, "cannot connect to upstream");
            Attempt::OutOfReach(request)
        }
    }
}

/// One request on one connection. The error is the request, whole: nothing of it was written.
async fn send(gate: &Gate, mut link: Link, request: Request<RequestBody>) -> Result<Attempt, Request<RequestBody>> {
    let has_upload = !request.body().is_end_stream();
    let upload = request.body().upload();
    // Cuts the connection if this request is given up: for its time, or because its client is gone.
    let mut unanswered = CutOnDrop(Some(link.cutter()));
    let answer = tokio::select! {
        biased;
        answer = link.send(request) => answer,
        () = answer_is_overdue(gate, &upload, has_upload) => return Ok(Attempt::Failed(Reason::AnswerTimeout)),
    };
    unanswered.0 = None;
    Ok(match answer {
        // No upgrade was asked for, so switching protocols is no answer.
        Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => Attempt::Failed(Reason::NoAnswer),
        Ok(response) => Attempt::Answered(response, link, upload),
        Err(SendFailure::NotWritten(whole, error)) => {
            tracing::debug!(%error, "pooled connection was closed before the request was written");
            return Err(*whole);
        }
        Err(SendFailure::Written(error)) => {
            let reason = upload.failed().unwrap_or(Reason::NoAnswer);
            tracing::debug!(%error, reason = reason.name(), "a request that was sent got no answer");
            Attempt::Failed(reason)
        }
    })
}

/// Ends when nothing of the request has been passed on for the answer time.
async fn answer_is_overdue(gate: &Gate, upload: &Upload, has_upload: bool) {
    let limit = gate.settings.limits.answer_time;
    let mut since = gate.now();
    loop {
        let wait = (since + limit).saturating_sub(gate.now());
        tokio::time::sleep(wait).await;
        let moved = Duration::from_millis(upload.moved_ms());
        if !has_upload || moved <= since {
            return;
        }
        since = moved;
    }
}
