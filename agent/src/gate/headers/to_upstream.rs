//! A client's head, made fit for an upstream.

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::{request, uri};
use hyper::{Uri, Version};

use super::{Origin, has_token, strip_hop_by_hop};
use crate::gate::control::Upstream;
use crate::gate::settings::Forwarded;

/// What a head on its way to an upstream depends on, beside itself.
pub(in crate::gate) struct Hop<'a> {
    /// The request body has not ended yet.
    pub(in crate::gate) has_body: bool,
    /// Where the request comes from.
    pub(in crate::gate) origin: &'a Origin,
    /// What becomes of the client's own claims.
    pub(in crate::gate) forwarded: Forwarded,
    /// Where it goes.
    pub(in crate::gate) upstream: &'a Upstream,
    /// The protocol that it offers to switch to.
    pub(in crate::gate) upgrade: Option<&'a HeaderValue>,
    /// Whether it goes by HTTP/2.
    pub(in crate::gate) http2: bool,
}

/// Makes a client's head fit for an upstream.
pub(in crate::gate) fn to_upstream(head: &mut request::Parts, hop: &Hop<'_>) {
    let headers = &mut head.headers;
    let chunked = headers.contains_key(header::TRANSFER_ENCODING)
        || (head.version == Version::HTTP_2 && !headers.contains_key(header::CONTENT_LENGTH));
    let trailers = headers.contains_key(header::TE) && has_token(headers, &header::TE, "trailers");
    strip_hop_by_hop(headers);
    // The gate has met the expectation already, when it read the body.
    headers.remove(header::EXPECT);
    if head.version == Version::HTTP_2 {
        join_cookies(headers);
    }
    // RFC 9112 §3.2.2: the authority of an absolute target goes before the Host field; HTTP/2 has it there.
    let host = head.uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    if let Some(host) = host.or_else(|| missing_host(headers, hop.upstream)) {
        headers.insert(header::HOST, host);
    }
    hop.origin.tell(headers, hop.forwarded);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let mut target = uri::Parts::default();
    // A path that HTTP/2 left out reads as "/", and would be written as nothing at all.
    let root = |path: &uri::PathAndQuery| (path.as_str() == "/").then(|| uri::PathAndQuery::from_static("/"));
    target.path_and_query = head.uri.path_and_query().map(|path| root(path).unwrap_or_else(|| path.clone()));
    if hop.http2 {
        head.version = Version::HTTP_2;
        target.scheme = Some(uri::Scheme::HTTP);
        // An empty Host names nobody, and without an authority there would be no target.
        let host = headers.remove(header::HOST).filter(|host| !host.is_empty()).or_else(|| address(hop.upstream));
        target.authority = host.and_then(|host| uri::Authority::try_from(host.as_bytes()).ok());
    } else {
        head.version = Version::HTTP_11;
        for_one_connection(headers, hop, chunked, trailers);
    }
    head.uri = Uri::from_parts(target).unwrap_or_default();
}

/// The fields of our own HTTP/1.1 connection.
fn for_one_connection(headers: &mut HeaderMap, hop: &Hop<'_>, chunked: bool, trailers: bool) {
    if chunked && hop.has_body {
        // hyper would send a GET of unknown length without its body.
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Some(protocol) = hop.upgrade {
        headers.insert(header::UPGRADE, protocol.clone());
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    } else if trailers {
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
}

/// RFC 9113 §8.2.3: HTTP/2 may send cookies in pieces; in HTTP/1.1 they are one field.
fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(header::COOKIE).iter();
    if let (Some(_), Some(_)) = (cookies.next(), cookies.next()) {
        let all: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
            headers.insert(header::COOKIE, joined);
        }
    }
}

fn missing_host(headers: &HeaderMap, upstream: &Upstream) -> Option<HeaderValue> {
    let missing = !headers.contains_key(header::HOST);
    missing.then(|| address(upstream)).flatten()
}

fn address(upstream: &Upstream) -> Option<HeaderValue> {
    HeaderValue::from_str(&upstream.address.to_string()).ok()
}
