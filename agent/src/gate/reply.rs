//! Answers that the gate makes itself: JSON for people, the header `handover-gate` for programs.

use std::collections::BTreeSet;

use bytes::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

use super::body::{OwnBody, ResponseBody};
use super::class::Class;
use super::connection::Running;
use super::control::Reason;
use super::ticket::Gate;
use super::{grpc, headers};

impl Reason {
    /// The status that it is answered with.
    pub fn status(self) -> u16 {
        match self {
            Reason::HoldFull
            | Reason::HoldExpired
            | Reason::Shut
            | Reason::InFlightLimit
            | Reason::PeerLimit
            | Reason::Refused => 503,
            Reason::Connect | Reason::NoAnswer => 502,
            Reason::AnswerTimeout | Reason::RequestTimeout => 504,
            Reason::NotSupported => 501,
            Reason::BadRequest | Reason::UploadBroken => 400,
            Reason::UploadStalled => 408,
            Reason::Other => 500,
        }
    }

    /// The name in the header `handover-gate`, in the report and in the answer.
    pub fn name(self) -> &'static str {
        match self {
            Reason::HoldFull => "hold-full",
            Reason::HoldExpired => "hold-expired",
            Reason::Shut => "shut",
            Reason::InFlightLimit => "in-flight-limit",
            Reason::PeerLimit => "peer-limit",
            Reason::Connect => "connect",
            Reason::NoAnswer => "no-answer",
            Reason::Refused => "refused",
            Reason::AnswerTimeout => "answer-timeout",
            Reason::RequestTimeout => "request-timeout",
            Reason::NotSupported => "not-supported",
            Reason::BadRequest => "bad-request",
            Reason::UploadBroken => "upload-broken",
            Reason::UploadStalled => "upload-stalled",
            Reason::Other => "other",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Reason::HoldFull => "no instance takes requests now, and too many requests wait already",
            Reason::HoldExpired => "no instance took the request in the time that it may wait",
            Reason::Shut => "the gate is shut",
            Reason::InFlightLimit => "too many requests are in flight",
            Reason::PeerLimit => "your address has too many requests in flight, or waiting",
            Reason::Connect => "no ready instance accepts connections; the request was not sent",
            Reason::NoAnswer => {
                "the instance ended the connection without an answer; the request may have been executed"
            }
            Reason::AnswerTimeout => "the instance did not answer in time; the request may have been executed",
            Reason::Refused => "the instance refused the request; it was not executed",
            Reason::RequestTimeout => "the request took longer than one may; it may have been executed",
            Reason::NotSupported => "the gate does not support this kind of request",
            Reason::BadRequest => "the request breaks the rules of HTTP",
            Reason::UploadBroken => "the request body broke off",
            Reason::UploadStalled => "the request body stood still for too long",
            Reason::Other => "something that this version has no name for",
        }
    }
}

/// What an answer depends on, beside its reason.
pub(super) struct Asked {
    /// By HTTP/2.
    pub(super) http2: bool,
    /// By a gRPC client.
    pub(super) grpc: bool,
    /// By HEAD, whose answers have no body.
    pub(super) head: bool,
    /// The request's id.
    pub(super) id: HeaderValue,
}

/// Answers, and counts the answer. `detail` is said instead of the reason's own sentence.
pub(super) fn own(
    gate: &Gate,
    reason: Reason,
    detail: Option<&str>,
    running: Running,
    asked: &Asked,
) -> Response<ResponseBody> {
    gate.core().own_answer(reason);
    let message = detail.unwrap_or_else(|| reason.sentence());
    let mut response = if asked.grpc { grpc(reason, message, running) } else { json(reason, message, running, asked) };
    let fields = response.headers_mut();
    fields.insert(headers::OWN, HeaderValue::from_static(reason.name()));
    fields.insert(headers::REQUEST_ID, asked.id.clone());
    // What follows on the connection may be no request: the rest of a body, or what was meant for a tunnel.
    let spoiled =
        matches!(reason, Reason::BadRequest | Reason::NotSupported | Reason::UploadBroken | Reason::UploadStalled);
    if !asked.http2 && (spoiled || gate.dismisses_clients()) {
        fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Tells a balancer whether to send requests of all these classes here. This is no request to the service, and counts as none.
pub(super) fn ready(gate: &Gate, classes: &[Class], running: Running, asked: &Asked) -> Response<ResponseBody> {
    let now = gate.now();
    let core = gate.core();
    let reasons: BTreeSet<&str> = classes.iter().filter_map(|class| core.unready(*class, now)).collect();
    drop(core);
    let json = serde_json::json!({ "ready": reasons.is_empty(), "reasons": reasons }).to_string();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = whole(json, status, running, asked);
    if !asked.http2 && gate.dismisses_clients() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn whole(json: String, status: StatusCode, running: Running, asked: &Asked) -> Response<ResponseBody> {
    let length = json.len();
    // hyper leaves the body of an answer to HEAD out by HTTP/1.1 only.
    let body = if asked.http2 && asked.head { Bytes::new() } else { Bytes::from(json) };
    let mut response = Response::new(ResponseBody::Own(OwnBody::new(body, running, asked.http2)));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    fields.insert(header::CONTENT_LENGTH, length.into());
    response
}

fn json(reason: Reason, message: &str, running: Running, asked: &Asked) -> Response<ResponseBody> {
    let json = serde_json::json!({ "error": reason.name(), "message": message }).to_string();
    let status = StatusCode::from_u16(reason.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = whole(json, status, running, asked);
    let fields = response.headers_mut();
    if reason.status() == 503 {
        // States change within a second or two in a hand-over; a longer wait would be a guess.
        fields.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// To a gRPC client a status other than 200 is a fault of the network; its own status is in the fields.
fn grpc(reason: Reason, message: &str, running: Running) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Own(OwnBody::new(Bytes::new(), running, true)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    grpc::tell(response.headers_mut(), grpc::status_of(reason), message);
    response
}
