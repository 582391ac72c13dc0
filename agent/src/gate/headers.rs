//! What the gate changes in the heads that pass it, and which requests it does not pass.

mod forwarded;
mod passage;
mod to_client;
mod to_upstream;
mod trailers;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::{request, uri};
use hyper::{Method, Version};

use super::control::Reason;

pub use passage::Passage;

pub(super) use forwarded::{Origin, RequestIds};
pub(super) use to_client::to_client;
pub(super) use to_upstream::{Hop, to_upstream};
pub(super) use trailers::fit_to_pass;

/// On an answer that the gate made itself: the [`Reason`].
pub(super) const OWN: HeaderName = HeaderName::from_static("handover-gate");
/// The request's id, to the service and back to the client.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Whether a field (in lower case) concerns one connection only (RFC 9110 §7.6.1); so do those that `Connection` names.
fn is_hop_by_hop(name: &[u8]) -> bool {
    matches!(name, b"connection" | b"keep-alive" | b"proxy-connection" | b"te" | b"transfer-encoding" | b"upgrade")
}

/// Checks what hyper and h2 let through. hyper itself refuses wrong or differing lengths and an encoding that does not end
/// in chunked; with both a length and chunked it drops the length and closes after the answer (RFC 9112 §6.3), and what goes
/// to the upstream is framed anew in any case. h2 refuses fields of one connection, and bodies that belie their length.
pub(super) fn check(head: &request::Parts) -> Result<(), (Reason, &'static str)> {
    if head.method == Method::CONNECT {
        return Err((Reason::NotSupported, "the gate opens no tunnels (CONNECT)"));
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
    // RFC 9110 §4.2.4: who passes it on as the host has other programs see another one.
    if head.uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err((Reason::BadRequest, "the request's authority is no host name"));
    }
    if head.version == Version::HTTP_2 {
        check_authority(head.uri.authority(), first)?;
        // The crate `http` takes this one sign that no name has (RFC 9110 §5.6.2); hyper's HTTP/1.1 does not.
        if head.headers.keys().any(|name| name.as_str().contains('"')) {
            return Err((Reason::BadRequest, "a field's name is none"));
        }
    }
    if !is_chunked_or_plain(&head.headers) {
        return Err((Reason::NotSupported, "the gate takes no transfer coding but chunked"));
    }
    if !has_one_length(&head.headers) {
        return Err((Reason::BadRequest, "the request's Content-Length is not one number"));
    }
    if head.uri.path_and_query().is_none_or(|path| head.version == Version::HTTP_2 && !is_whole(path)) {
        return Err((Reason::BadRequest, "the request names no path"));
    }
    Ok(())
}

/// RFC 9113 §8.3.1: HTTP/2 may not leave the path out, as an absolute target may. (One that is left out reads as "/".)
fn is_whole(path: &uri::PathAndQuery) -> bool {
    match path.as_str() {
        "/" => *path == uri::PathAndQuery::from_static("/"),
        "*" => true,
        other => other.starts_with('/'),
    }
}

/// None, or one that is a number: h2 lets several equal ones through, and an empty one (RFC 9110 §8.6).
fn has_one_length(headers: &HeaderMap) -> bool {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => true,
        (Some(length), None) => !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit),
        (Some(_), Some(_)) => false,
    }
}

/// RFC 9113 §8.3.1: a Host that differs from `:authority` makes a request malformed; one of them there must be.
fn check_authority(
    authority: Option<&uri::Authority>,
    host: Option<&HeaderValue>,
) -> Result<(), (Reason, &'static str)> {
    match (authority, host) {
        (None, None) => Err((Reason::BadRequest, "the request names no host")),
        (Some(authority), Some(host)) if !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => {
            Err((Reason::BadRequest, "the request's Host and :authority differ"))
        }
        _ => Ok(()),
    }
}

fn is_host(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    bytes.is_empty() || is_plain_host(bytes) || (!bytes.contains(&b'@') && uri::Authority::try_from(bytes).is_ok())
}

/// A name or an IPv4 address, with or without a port: nearly every host, seen without a copy of it.
fn is_plain_host(bytes: &[u8]) -> bool {
    let (name, port) = match bytes.iter().position(|byte| *byte == b':') {
        Some(colon) => (&bytes[..colon], &bytes[colon + 1..]),
        None => (bytes, &b"80"[..]),
    };
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-.".contains(byte);
    !name.is_empty() && name.iter().all(fits) && !port.is_empty() && port.iter().all(u8::is_ascii_digit)
}

/// hyper takes any list that ends in `chunked`, and the other side would be told of that one alone (RFC 9112 §6.1).
pub(super) fn is_chunked_or_plain(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers.get_all(name).iter().flat_map(items).any(|item| item.eq_ignore_ascii_case(token.as_bytes()))
}

/// What a list names. By bytes: one that is no text must not hide the others.
fn items(list: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    list.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// The protocol to which a request offers to switch, if the gate passes the offer on. It may be ignored (RFC 9110 §7.8), and
/// is where it makes no sense: with a body, which would have to be read before the switch; and for h2c, which would put
/// requests past the gate's eyes (clients who know that the gate speaks HTTP/2 need not ask).
pub(super) fn upgrade_offer(version: Version, headers: &HeaderMap, has_body: bool) -> Option<HeaderValue> {
    let mut offers = headers.get_all(header::UPGRADE).iter();
    let offer = offers.next()?;
    let passed = offers.next().is_none()
        && version == Version::HTTP_11
        && !has_body
        && has_token(headers, &header::CONNECTION, "upgrade")
        && !has_token(headers, &header::UPGRADE, "h2c");
    passed.then(|| offer.clone())
}

/// Whether an offer or an agreement to switch is for a WebSocket.
pub(super) fn is_websocket(protocol: &HeaderValue) -> bool {
    protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
}

/// Takes out what concerns one connection only.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let lists = headers.get_all(header::CONNECTION).iter();
    // `keep-alive`, which most say, ends here anyway: it need not be made a name.
    let named = lists.flat_map(items).filter(|name| !is_hop_by_hop(name));
    let named: Vec<HeaderName> = named.filter_map(|name| HeaderName::from_bytes(name).ok()).collect();
    for name in named {
        // These frame, address and name the message, and say through whom it came; a client must not be able to have them
        // taken away.
        if ![header::CONTENT_LENGTH, header::HOST, REQUEST_ID].contains(&name)
            && !forwarded::is_said_by_balancers(&name)
        {
            headers.remove(name);
        }
    }
    // Few messages have more than one of them, so that looking through the names costs less than looking each one up.
    while let Some(name) = headers.keys().find(|name| is_hop_by_hop(name.as_str().as_bytes())).cloned() {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests;
