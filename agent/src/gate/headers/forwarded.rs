//! What the service is told about the client: `X-Forwarded-*`, `Forwarded` (RFC 7239), and the request's id.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::REQUEST_ID;
use crate::gate::settings::Forwarded;

pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub(super) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The longest request id that is kept: twice what the usual makers of ids need.
const ID_LIMIT_BYTES: usize = 128;

/// Where the requests of one connection come from. The fields are made once per connection, since they hardly ever change
/// from one of its requests to the next.
#[derive(Debug)]
pub(in crate::gate) struct Origin {
    address: HeaderValue,
    scheme: &'static str,
    /// `for=…;proto=…`.
    node: String,
    /// The last host, with the `Forwarded` that belongs to it.
    last: Mutex<Option<(HeaderValue, HeaderValue)>>,
}

impl Origin {
    pub(in crate::gate) fn new(peer: SocketAddr, secure: bool) -> Self {
        let (ip, scheme) = (peer.ip().to_canonical(), if secure { "https" } else { "http" });
        let node = match ip {
            IpAddr::V4(ip) => format!("for={ip};proto={scheme}"),
            IpAddr::V6(ip) => format!("for=\"[{ip}]\";proto={scheme}"),
        };
        // An address in text is always fit for a field.
        let address = HeaderValue::from_str(&ip.to_string()).unwrap_or(HeaderValue::from_static("unknown"));
        Self { address, scheme, node, last: Mutex::default() }
    }

    /// Says in `headers` where the request comes from.
    pub(super) fn tell(&self, headers: &mut HeaderMap, mode: Forwarded) {
        let host = headers.get(header::HOST).cloned();
        let ours = self.forwarded(host.as_ref());
        let proto = HeaderValue::from_static(self.scheme);
        match mode {
            Forwarded::Replace => {
                headers.insert(FORWARDED_FOR, self.address.clone());
                headers.insert(FORWARDED_PROTO, proto);
                match host {
                    Some(host) => headers.insert(FORWARDED_HOST, host),
                    None => headers.remove(FORWARDED_HOST),
                };
                headers.insert(header::FORWARDED, ours);
            }
            Forwarded::Append => {
                add(headers, FORWARDED_FOR, &self.address);
                add(headers, header::FORWARDED, &ours);
                headers.entry(FORWARDED_PROTO).or_insert(proto);
                if let Some(host) = host {
                    headers.entry(FORWARDED_HOST).or_insert(host);
                }
            }
        }
    }

    fn forwarded(&self, host: Option<&HeaderValue>) -> HeaderValue {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let empty = HeaderValue::from_static("");
        let host = host.unwrap_or(&empty);
        if let Some((_, made)) = last.as_ref().filter(|(of, _)| of == host) {
            return made.clone();
        }
        // A host has no quote in it: it was checked.
        let text = match host.to_str() {
            Ok(host) if !host.is_empty() => format!("{};host=\"{host}\"", self.node),
            _ => self.node.clone(),
        };
        let made = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
        *last = Some((host.clone(), made.clone()));
        made
    }
}

/// Puts `value` after what earlier proxies wrote.
/// Whether a balancer in front says with it where a request comes from.
pub(super) fn is_said_by_balancers(name: &HeaderName) -> bool {
    *name == header::FORWARDED || name.as_str().starts_with("x-forwarded-")
}

fn add(headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue) {
    let earlier = headers.get_all(&name).iter().filter_map(|value| value.to_str().ok());
    let all: Vec<&str> = earlier.chain(value.to_str().ok()).collect();
    if let Ok(joined) = HeaderValue::from_str(&all.join(", ")) {
        headers.insert(name, joined);
    }
}

/// Makes request ids: the process's random number and a count, so that no two are the same.
#[derive(Debug)]
pub(in crate::gate) struct RequestIds {
    prefix: String,
    next: AtomicU64,
}

impl RequestIds {
    pub(in crate::gate) fn new(start_id: &str) -> Self {
        Self { prefix: format!("{start_id}-"), next: AtomicU64::new(1) }
    }

    /// The id of a request: its own, if what is in front of the gate is trusted and it is sane, else a new one.
    pub(in crate::gate) fn of(&self, headers: &mut HeaderMap, mode: Forwarded) -> HeaderValue {
        let given = headers.get(REQUEST_ID).filter(|_| mode == Forwarded::Append);
        if let Some(given) = given.filter(|given| is_sane(given.as_bytes())) {
            let given = given.clone();
            // Of several the first counts.
            headers.insert(REQUEST_ID, given.clone());
            return given;
        }
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let made = self.numbered(count);
        headers.insert(REQUEST_ID, made.clone());
        made
    }

    /// By hand, since `format!` would be a twentieth of what a request costs here.
    fn numbered(&self, count: u64) -> HeaderValue {
        let mut id = Vec::with_capacity(self.prefix.len() + 16);
        id.extend_from_slice(self.prefix.as_bytes());
        id.extend(hex(count));
        HeaderValue::from_maybe_shared(Bytes::from(id)).unwrap_or(HeaderValue::from_static("unknown"))
    }
}

/// The digits of `number` in base 16, as few as will do.
fn hex(number: u64) -> impl Iterator<Item = u8> {
    let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
    (0..digits).rev().map(move |at| b"0123456789abcdef"[(number >> (4 * at) & 0xf) as usize])
}

/// Short, and without anything that could confuse a log.
fn is_sane(id: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    (1..=ID_LIMIT_BYTES).contains(&id.len()) && id.iter().all(fits)
}
