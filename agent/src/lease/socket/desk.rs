//! The answers of `lease.sock`: the record now, as soon as it is newer, or as a stream; and acknowledgements.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use handover_proto::ids::InstanceId;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Body, Frame};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::WatchStream;

use super::peer::{Callers, Peer};
use super::question::{Question, parse};
use crate::lease::acks::{Acks, fits};
use crate::lease::clock::{ClockIdentity, boot_now};
use crate::lease::record::{Ack, Told};
use crate::lease::status::Board;

/// An acknowledgement is a few hundred bytes.
const MAX_ACK_BYTES: usize = 64 << 10;
/// A service on the same host sends its acknowledgement in one piece.
const ACK_TIME: Duration = Duration::from_secs(5);

/// An answer's body: whole, or a stream of lines.
pub(super) type Lines = UnsyncBoxBody<Bytes, Infallible>;

/// What answers are made from.
#[derive(Debug, Clone)]
pub(in crate::lease) struct Desk {
    pub(in crate::lease) board: watch::Receiver<Board>,
    pub(in crate::lease) clock: ClockIdentity,
    pub(in crate::lease) callers: Callers,
    /// None: the agent calls its services, so that acknowledgements come as answers.
    pub(in crate::lease) acks: Option<Acks>,
}

/// No answer but this.
struct Refusal(StatusCode, String);

impl Desk {
    /// Answers one request of `peer`.
    pub(super) async fn answer<B>(&self, peer: Peer, request: Request<B>) -> Response<Lines>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let answered = match (request.method(), request.uri().path()) {
            (&Method::GET, "/v1/lease") => self.read(peer, &query).await,
            (&Method::POST, "/v1/ack") => self.acknowledge(peer, &query, request.into_body()).await,
            _ => Err(Refusal(
                StatusCode::NOT_FOUND,
                "ask GET /v1/lease?instance=ID, or acknowledge with POST /v1/ack?instance=ID".to_owned(),
            )),
        };
        answered.unwrap_or_else(|Refusal(status, text)| {
            respond(status, "text/plain", whole(format!("{text}\n").into_bytes()))
        })
    }

    async fn read(&self, peer: Peer, query: &str) -> Result<Response<Lines>, Refusal> {
        let (instance, question) = parse(query).map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))?;
        self.admit(peer, &instance)?;
        match question {
            Question::Now => {}
            Question::Newer { than, wait } => self.wait_for_newer(&instance, than, wait).await,
            Question::Stream => return Ok(respond(StatusCode::OK, "application/x-ndjson", self.stream(instance))),
        }
        let json = self.record(&instance)?;
        Ok(respond(StatusCode::OK, "application/json", whole(json)))
    }

    fn admit(&self, peer: Peer, instance: &InstanceId) -> Result<(), Refusal> {
        let slot = self.board.borrow().get(instance).map(|(slot, _)| slot.clone());
        self.callers.check(peer, slot.as_ref()).map_err(|refused| {
            tracing::warn!(%peer, %instance, "refused somebody on lease.sock");
            Refusal(StatusCode::FORBIDDEN, refused.to_string())
        })?;
        match slot {
            Some(_) => Ok(()),
            None => Err(Refusal(StatusCode::NOT_FOUND, "this agent has no such instance running".to_owned())),
        }
    }

    /// Returns with a newer record, with the instance's end, with the keeper's, or after the wait.
    async fn wait_for_newer(&self, instance: &InstanceId, than: u64, wait: Duration) {
        let mut board = self.board.clone();
        let newer = |board: &Board| match board.get(instance) {
            Some((_, published)) => published.told != Told::Unknown && published.seq > than,
            None => true,
        };
        // Whichever it was, the answer is made from what stands then.
        drop(tokio::time::timeout(wait, board.wait_for(newer)).await);
    }

    fn record(&self, instance: &InstanceId) -> Result<Vec<u8>, Refusal> {
        let internal = |text: String| Refusal(StatusCode::INTERNAL_SERVER_ERROR, text);
        let board = self.board.borrow();
        let Some((_, published)) = board.get(instance) else {
            return Err(Refusal(StatusCode::NOT_FOUND, "this agent has no such instance running".to_owned()));
        };
        if published.told == Told::Unknown {
            // Silence: what was told before stands until its deadline.
            return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, published.reason.clone()));
        }
        let now = boot_now().map_err(|error| internal(error.to_string()))?;
        serde_json::to_vec(&published.record(instance, &self.clock, now)).map_err(|error| internal(error.to_string()))
    }

    /// One line for every change. Read from a watch, so that a reader who comes late gets the newest record and none of
    /// those that it has missed: nothing is kept for slow readers but what the kernel's buffer holds.
    fn stream(&self, instance: InstanceId) -> Lines {
        let desk = self.clone();
        let mut last = None;
        let boards = WatchStream::new(self.board.clone());
        let lines = boards.map_while(move |board| {
            let (_, published) = board.get(&instance)?;
            if last.as_ref() == Some(published) {
                return Some(None);
            }
            last = Some(published.clone());
            // Made from what stands now, which may be newer still; while the agent does not know, it says nothing.
            Some(desk.record(&instance).ok())
        });
        let frames = lines.filter_map(|line| line).map(|mut line| {
            line.push(b'\n');
            Ok(Frame::data(Bytes::from(line)))
        });
        StreamBody::new(frames).boxed_unsync()
    }

    async fn acknowledge<B>(&self, peer: Peer, query: &str, body: B) -> Result<Response<Lines>, Refusal>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Some(acks) = &self.acks else {
            let text = "this agent calls its service and takes the answer: it wants no POST /v1/ack; with [lease] \
                        service = \"pull\" in its config it makes no calls and takes acknowledgements here";
            return Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, text.to_owned()));
        };
        let bad = |text: String| Refusal(StatusCode::BAD_REQUEST, text);
        let (instance, _) = parse(query).map_err(|error| bad(error.to_string()))?;
        self.admit(peer, &instance)?;
        let read = tokio::time::timeout(ACK_TIME, Limited::new(body, MAX_ACK_BYTES).collect()).await;
        let body = read.map_err(|_| bad(format!("the acknowledgement was not whole within {ACK_TIME:?}")))?;
        let body = body.map_err(|error| bad(format!("the acknowledgement could not be read: {error}")))?.to_bytes();
        let ack: Ack =
            serde_json::from_slice(&body).map_err(|error| bad(format!("this is no acknowledgement: {error}")))?;
        let told = self.board.borrow().get(&instance).map(|(_, published)| published.clone());
        let gone = || Refusal(StatusCode::NOT_FOUND, "this agent has no such instance running".to_owned());
        fits(&told.ok_or_else(gone)?, &ack).map_err(|unfit| Refusal(StatusCode::CONFLICT, unfit.to_string()))?;
        acks.put(instance, ack);
        Ok(respond(StatusCode::NO_CONTENT, "text/plain", whole(Vec::new())))
    }
}

fn whole(body: Vec<u8>) -> Lines {
    Full::new(Bytes::from(body)).boxed_unsync()
}

fn respond(status: StatusCode, kind: &'static str, body: Lines) -> Response<Lines> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests;
