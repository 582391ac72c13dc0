//! How the gate speaks to gRPC clients: by `grpc-status`, whether it answers itself or has to cut a stream. Pure.

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::control::Reason;

/// gRPC's "CANCELLED".
const CANCELLED: u8 = 1;
/// gRPC's "DEADLINE_EXCEEDED".
pub(super) const DEADLINE_EXCEEDED: u8 = 4;
/// gRPC's "UNIMPLEMENTED".
const UNIMPLEMENTED: u8 = 12;
/// gRPC's "INTERNAL", which is what malformed requests get.
const INTERNAL: u8 = 13;
/// gRPC's "UNAVAILABLE": a client may try again elsewhere.
pub(super) const UNAVAILABLE: u8 = 14;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Whether a head is of gRPC; gRPC-Web, which is another protocol, is not.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    kind.strip_prefix(b"application/grpc").is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The status that says the same as the reason.
pub(super) fn status_of(reason: Reason) -> u8 {
    match reason {
        Reason::HoldFull
        | Reason::HoldExpired
        | Reason::Shut
        | Reason::InFlightLimit
        | Reason::PeerLimit
        | Reason::Connect
        | Reason::Refused
        | Reason::NoAnswer => UNAVAILABLE,
        Reason::AnswerTimeout | Reason::RequestTimeout => DEADLINE_EXCEEDED,
        Reason::NotSupported => UNIMPLEMENTED,
        Reason::BadRequest | Reason::Other => INTERNAL,
        Reason::UploadBroken | Reason::UploadStalled => CANCELLED,
    }
}

/// Writes status and message, as trailers or as the head of an answer without a body.
pub(super) fn tell(fields: &mut HeaderMap, status: u8, message: &str) {
    fields.insert(STATUS, HeaderValue::from(u16::from(status)));
    // Percent-encoded where gRPC wants it; the gate's own sentences are ASCII.
    let encoded: String =
        message.chars().map(|c| if c.is_ascii() && !c.is_ascii_control() && c != '%' { c } else { '?' }).collect();
    if let Ok(value) = HeaderValue::from_str(&encoded) {
        fields.insert(MESSAGE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_from_grpc_web() {
        let is = |kind: &'static str| {
            is_grpc(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]))
        };
        assert!(is("application/grpc") && is("application/grpc+proto") && is("application/grpc;x=y"));
        assert!(!is("application/grpc-web") && !is("application/json") && !is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn status_and_message_are_fields_that_every_client_can_read() {
        let mut fields = HeaderMap::new();
        tell(&mut fields, UNAVAILABLE, "100 % off\n");
        assert_eq!(fields.get("grpc-status").map(HeaderValue::as_bytes), Some(&b"14"[..]));
        assert_eq!(fields.get("grpc-message").map(HeaderValue::as_bytes), Some(&b"100 ? off?"[..]));
    }
}
