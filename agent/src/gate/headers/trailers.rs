//! Trailers on their way through the gate.

use bytes::Bytes;
use hyper::body::Frame;
use hyper::header::{self, HeaderMap, HeaderName};

use super::forwarded::{FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO};
use super::{OWN, REQUEST_ID, strip_hop_by_hop};

/// What frames and addresses a message, and what only the gate says: neither may be said once more after the head.
const SAID_IN_HEADS: [HeaderName; 8] = [
    header::CONTENT_LENGTH,
    header::HOST,
    header::FORWARDED,
    FORWARDED_FOR,
    FORWARDED_HOST,
    FORWARDED_PROTO,
    REQUEST_ID,
    OWN,
];

/// A piece of a body as it may be passed on, in either direction.
pub(in crate::gate) fn fit_to_pass(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            strip(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}

fn strip(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    for name in &SAID_IN_HEADS {
        trailers.remove(name);
    }
}
