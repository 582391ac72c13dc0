//! What the gate changes in the heads that pass it, and which requests it does not pass.

use std::net::SocketAddr;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::{request, response, uri};
use hyper::{Method, Uri, Version};

use super::control::{Reason, Upstream};
use super::settings::Forwarded;

/// On an answer that the gate made itself: the [`Reason`].
pub(super) const OWN: HeaderName = HeaderName::from_static("handover-gate");
/// On a passed answer, if the operator wants it: the version that made it.
const VERSION: HeaderName = HeaderName::from_static("handover-version");
/// On a passed answer, if the operator wants it: the instance that made it.
const INSTANCE: HeaderName = HeaderName::from_static("handover-instance");

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Fields that concern one connection only (RFC 9110 §7.6.1), beside those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Checks what hyper lets through. hyper itself refuses wrong or differing lengths and an encoding that does not end in
/// chunked; with both a length and chunked it drops the length and closes after the answer (RFC 9112 §6.3), and what goes
/// to the upstream is framed anew in any case.
pub(super) fn check(head: &request::Parts) -> Result<(), (Reason, &'static str)> {
    if head.method == Method::CONNECT {
        return Err((Reason::NotSupported, "the gate opens no tunnels (CONNECT)"));
    }
    if has_token(&head.headers, &header::UPGRADE, "websocket") {
        return Err((
            Reason::NotSupported,
            "the gate does not pass WebSocket connections yet; connect to the instance",
        ));
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    match (first, second) {
        (_, Some(_)) => return Err((Reason::BadRequest, "the request has more than one Host")),
        (None, None) if head.version == Version::HTTP_11 => {
            return Err((Reason::BadRequest, "the request has no Host"));
        }
        (Some(host), None) if !is_host(host) => return Err((Reason::BadRequest, "the request's Host is no host name")),
        _ => {}
    }
    if head.uri.path_and_query().is_none() {
        return Err((Reason::BadRequest, "the request names no path"));
    }
    Ok(())
}

fn is_host(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    bytes.is_empty() || (!bytes.contains(&b'@') && uri::Authority::try_from(bytes).is_ok())
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let lists = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// Makes a client's head fit for an upstream. `has_body`: the request body has not ended yet.
pub(super) fn to_upstream(
    head: &mut request::Parts,
    has_body: bool,
    peer: SocketAddr,
    forwarded: Forwarded,
    upstream: &Upstream,
) {
    let chunked = head.headers.contains_key(header::TRANSFER_ENCODING);
    strip_hop_by_hop(&mut head.headers);
    // The gate has met the expectation already, when it read the body.
    head.headers.remove(header::EXPECT);
    if chunked && has_body {
        // hyper would send a GET of unknown length without its body.
        head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    // RFC 9112 §3.2.2: the authority of an absolute target goes before the Host field.
    let host = head.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(host) = host.or_else(|| missing_host(&head.headers, upstream)) {
        head.headers.insert(header::HOST, host);
    }
    let mut target = uri::Parts::default();
    target.path_and_query = head.uri.path_and_query().cloned();
    head.uri = Uri::from_parts(target).unwrap_or_default();
    head.version = Version::HTTP_11;
    forward_for(&mut head.headers, peer, forwarded);
}

fn missing_host(headers: &HeaderMap, upstream: &Upstream) -> Option<HeaderValue> {
    let missing = !headers.contains_key(header::HOST);
    missing.then(|| HeaderValue::from_str(&upstream.address.to_string()).ok()).flatten()
}

fn forward_for(headers: &mut HeaderMap, peer: SocketAddr, forwarded: Forwarded) {
    if forwarded == Forwarded::Replace {
        headers.remove(FORWARDED_FOR);
        headers.remove(FORWARDED_PROTO);
    }
    let earlier = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let all: Vec<String> = earlier.map(str::to_owned).chain([peer.ip().to_canonical().to_string()]).collect();
    if let Ok(value) = HeaderValue::from_str(&all.join(", ")) {
        headers.insert(FORWARDED_FOR, value);
    }
    headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
}

/// Makes an upstream's head fit for the client.
pub(super) fn to_client(head: &mut response::Parts, tag: Option<&Upstream>, dismiss: bool) {
    strip_hop_by_hop(&mut head.headers);
    head.version = Version::HTTP_11;
    // Only the gate may say that the gate made an answer.
    head.headers.remove(OWN);
    if let Some(upstream) = tag {
        insert(&mut head.headers, VERSION, upstream.version.as_str());
        insert(&mut head.headers, INSTANCE, upstream.instance.as_str());
    }
    if dismiss {
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let lists = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<HeaderName> =
        lists.flat_map(|list| list.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
    for name in named {
        // These two frame and address the message; a client must not be able to have them taken away.
        if name != header::CONTENT_LENGTH && name != header::HOST {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests;
