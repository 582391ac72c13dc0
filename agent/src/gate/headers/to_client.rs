//! An upstream's head, made fit for the client.

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::response;
use hyper::{StatusCode, Version};

use super::{OWN, REQUEST_ID, strip_hop_by_hop};
use crate::gate::control::Upstream;

/// On a passed answer, if the operator wants it: the version that made it.
const VERSION: HeaderName = HeaderName::from_static("handover-version");
/// On a passed answer, if the operator wants it: the instance that made it.
const INSTANCE: HeaderName = HeaderName::from_static("handover-instance");

/// Makes an upstream's head fit for the client. `dismiss`: tell a client of HTTP/1.1 to leave.
pub(in crate::gate) fn to_client(head: &mut response::Parts, tag: Option<&Upstream>, id: HeaderValue, dismiss: bool) {
    let headers = &mut head.headers;
    let switched = head.status == StatusCode::SWITCHING_PROTOCOLS;
    let protocol = if switched { headers.remove(header::UPGRADE) } else { None };
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // RFC 9112 §6.3: the chunks count. hyper's client reads those, and its server would believe the length.
        headers.remove(header::CONTENT_LENGTH);
    }
    strip_hop_by_hop(headers);
    head.version = Version::HTTP_11;
    // Only the gate may say that the gate made an answer.
    headers.remove(OWN);
    headers.insert(REQUEST_ID, id);
    if let Some(upstream) = tag {
        insert(headers, VERSION, upstream.version.as_str());
        insert(headers, INSTANCE, upstream.instance.as_str());
    }
    if switched {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.extend(protocol.map(|protocol| (header::UPGRADE, protocol)));
    } else if dismiss {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}
