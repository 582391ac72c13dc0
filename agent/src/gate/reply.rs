//! Answers that the gate makes itself: JSON for people, the header `handover-gate` for programs.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

use super::body::ResponseBody;
use super::connection::Running;
use super::control::Reason;
use super::headers;
use super::ticket::Gate;

impl Reason {
    /// The status that it is answered with.
    pub fn status(self) -> u16 {
        match self {
            Reason::HoldFull | Reason::HoldExpired | Reason::Shut | Reason::InFlightLimit => 503,
            Reason::Connect | Reason::NoAnswer => 502,
            Reason::AnswerTimeout => 504,
            Reason::NotSupported => 501,
            Reason::BadRequest | Reason::UploadBroken => 400,
            Reason::UploadStalled => 408,
        }
    }

    /// The name in the header `handover-gate`, in the report and in the answer.
    pub fn name(self) -> &'static str {
        match self {
            Reason::HoldFull => "hold-full",
            Reason::HoldExpired => "hold-expired",
            Reason::Shut => "shut",
            Reason::InFlightLimit => "in-flight-limit",
            Reason::Connect => "connect",
            Reason::NoAnswer => "no-answer",
            Reason::AnswerTimeout => "answer-timeout",
            Reason::NotSupported => "not-supported",
            Reason::BadRequest => "bad-request",
            Reason::UploadBroken => "upload-broken",
            Reason::UploadStalled => "upload-stalled",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Reason::HoldFull => "no instance takes requests now, and too many requests wait already",
            Reason::HoldExpired => "no instance took the request in the time that it may wait",
            Reason::Shut => "the gate is shut",
            Reason::InFlightLimit => "too many requests are in flight",
            Reason::Connect => "no ready instance accepts connections; the request was not sent",
            Reason::NoAnswer => {
                "the instance ended the connection without an answer; the request may have been executed"
            }
            Reason::AnswerTimeout => "the instance did not answer in time; the request may have been executed",
            Reason::NotSupported => "the gate does not support this kind of request",
            Reason::BadRequest => "the request breaks the rules of HTTP",
            Reason::UploadBroken => "the request body broke off",
            Reason::UploadStalled => "the request body stood still for too long",
        }
    }
}

/// Answers, and counts the answer. `detail` is said instead of the reason's own sentence.
pub(super) fn own(gate: &Gate, reason: Reason, detail: Option<&str>, running: Running) -> Response<ResponseBody> {
    gate.core().own_answer(reason);
    let message = detail.unwrap_or_else(|| reason.sentence());
    let json = serde_json::json!({ "error": reason.name(), "message": message }).to_string();
    let mut response = Response::new(ResponseBody::Own(Full::new(Bytes::from(json)), running));
    *response.status_mut() = StatusCode::from_u16(reason.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let fields = response.headers_mut();
    fields.insert(headers::OWN, HeaderValue::from_static(reason.name()));
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if reason.status() == 503 {
        // States change within a second or two in a hand-over; a longer wait would be a guess.
        fields.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    if matches!(reason, Reason::BadRequest | Reason::UploadBroken | Reason::UploadStalled) || gate.dismisses_clients() {
        fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
