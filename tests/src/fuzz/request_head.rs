//! The head of a request, as hyper and h2 hand it on, and what of it the service gets. An input is a line of marks (`a`:
//! claims are appended to, `b`: a body follows, `s`: TLS, `2`: came by HTTP/2, `0`: by HTTP/1.0, `u`: goes by HTTP/2), a
//! line `METHOD target`, and the fields.
//!
//! What must hold of a head that is passed: it names one host, which is the one that was asked for; method and target are
//! those that were asked for; no field of the client's connection is in it, and none that `Connection` names; it has one
//! framing; where the request comes from stands last in every list, and first too unless claims are trusted; it has one
//! sane id; every other field is in it once per value, unchanged.

use std::net::SocketAddr;

use handover_agent::gate::Passage;
use handover_agent::gate::control::{Reason, Upstream};
use handover_agent::gate::settings::Forwarded;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version, header};

use super::{Outcome, must};

/// A head's way through the gate.
pub type Passed = Result<(Parts, HeaderValue), (Reason, &'static str)>;

/// The code that is judged.
#[derive(Clone, Copy)]
pub struct Subject {
    /// What becomes of a head.
    pub passed: fn(&Passage<'_>, Parts) -> Passed,
}

/// As it is shipped.
pub const REAL: Subject = Subject { passed: |passage, head| passage.of(head) };

/// Fields of one connection.
const ONE_HOP: [&str; 6] = ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];
/// Fields that the gate writes itself, or takes out.
const OURS: [&str; 8] = [
    "host",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
    "expect",
    "cookie",
];

/// The property.
///
/// # Errors
/// What is broken.
pub fn check(data: &[u8], subject: &Subject) -> Outcome {
    let Some((marks, head)) = parsed(data) else { return Ok(()) };
    let instance = "00000000000000aa".parse().map_err(|error| format!("{error}"))?;
    let version = "1.4.2".parse().map_err(|error| format!("{error}"))?;
    let address = SocketAddr::from(([127, 0, 0, 1], 9001));
    let upstream = Upstream { instance, version, address, reads: 1, writes: 1, ready: true };
    let passage = Passage {
        peer: SocketAddr::from(([192, 0, 2, 7], 5555)),
        secure: marks.contains(&b's'),
        has_body: marks.contains(&b'b'),
        forwarded: if marks.contains(&b'a') { Forwarded::Append } else { Forwarded::Replace },
        upstream: &upstream,
        http2: marks.contains(&b'u'),
    };
    let Ok((passed, id)) = (subject.passed)(&passage, copy(&head)) else { return Ok(()) };
    let way = Way { asked: &head, passage: &passage, passed: &passed };
    way.is_addressed()?;
    way.is_framed()?;
    way.names_its_origin()?;
    must!(values(&passed.headers, "x-request-id") == [id.as_bytes()], "it has another id than {id:?}");
    let sane = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    must!((1..=128).contains(&id.len()) && id.as_bytes().iter().all(sane), "the id {id:?} can confuse a log");
    way.keeps_the_rest()
}

/// What hyper and h2 would hand on.
fn parsed(data: &[u8]) -> Option<(&[u8], Parts)> {
    let mut lines = data.split(|byte| *byte == b'\n');
    let marks = lines.next()?;
    let first = lines.next()?;
    let space = first.iter().position(|byte| *byte == b' ')?;
    let method = Method::from_bytes(first.get(..space)?).ok()?;
    let uri = Uri::try_from(first.get(space + 1..)?).ok()?;
    let mut head = Request::new(()).into_parts().0;
    (head.method, head.uri) = (method, uri);
    let by_http2 = marks.contains(&b'2');
    head.version = if by_http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    if marks.contains(&b'0') && !by_http2 {
        head.version = Version::HTTP_10;
    }
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(line.get(..colon)?).ok()?;
        head.headers.append(name, HeaderValue::from_bytes(line.get(colon + 1..)?.trim_ascii()).ok()?);
    }
    let one_hop = |name: &&str| {
        head.headers.contains_key(*name) && (*name != "te" || values(&head.headers, "te") != [b"trailers"])
    };
    // These two never hand on several lengths or an encoding beside a length, and h2 no field of a connection.
    let lengths = values(&head.headers, "content-length");
    let chunked = head.headers.contains_key(header::TRANSFER_ENCODING);
    let numeric = lengths.iter().all(|length| !length.is_empty() && length.iter().all(u8::is_ascii_digit));
    let possible = lengths.len() <= usize::from(!chunked) && numeric && (!chunked || head.version == Version::HTTP_11);
    (possible && !(by_http2 && ONE_HOP.iter().any(one_hop))).then_some((marks, head))
}

fn copy(head: &Parts) -> Parts {
    let mut copy = Request::new(()).into_parts().0;
    (copy.method, copy.uri) = (head.method.clone(), head.uri.clone());
    (copy.version, copy.headers) = (head.version, head.headers.clone());
    copy
}

fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a [u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
}

/// A head that was passed, beside the one that was asked.
struct Way<'a> {
    asked: &'a Parts,
    passage: &'a Passage<'a>,
    passed: &'a Parts,
}

impl Way<'_> {
    fn host(&self) -> Vec<u8> {
        let asked = self.asked.uri.authority().map(|authority| authority.as_str().as_bytes());
        let given = asked.or(self.asked.headers.get(header::HOST).map(HeaderValue::as_bytes));
        given.map_or_else(|| self.passage.upstream.address.to_string().into_bytes(), <[u8]>::to_vec)
    }

    fn is_addressed(&self) -> Outcome {
        let (asked, passed, mut host) = (self.asked, self.passed, self.host());
        if self.passage.http2 && host.is_empty() {
            host = self.passage.upstream.address.to_string().into_bytes();
        }
        must!(asked.method == passed.method && asked.method != Method::CONNECT, "the method became {}", passed.method);
        let target = |head: &Parts| head.uri.path_and_query().map(|target| target.as_str().to_owned());
        let (wanted, target) = (target(asked), target(passed));
        must!(wanted == target, "the target {wanted:?} became {target:?}");
        if self.passage.http2 {
            let authority = passed.uri.authority().map(|authority| authority.as_str().as_bytes());
            must!(authority == Some(&host), "the host {} became {authority:?}", host.escape_ascii());
            must!(!passed.headers.contains_key(header::HOST), "by HTTP/2 there is a Host beside the authority");
        } else {
            must!(passed.uri.authority().is_none(), "an absolute target is passed on: {}", passed.uri);
            let hosts = values(&passed.headers, "host");
            must!(hosts == [host.as_slice()], "the host {} became {hosts:?}", host.escape_ascii());
        }
        let name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(byte);
        must!(host.iter().all(name), "{} is no host name", host.escape_ascii());
        Ok(())
    }

    fn is_framed(&self) -> Outcome {
        let headers = &self.passed.headers;
        let encodings = values(headers, "transfer-encoding");
        let lengths = values(headers, "content-length");
        must!(encodings.len() + lengths.len() <= 1, "two framings: {encodings:?} {lengths:?}");
        must!(encodings.iter().all(|encoding| *encoding == b"chunked"), "an encoding of its own: {encodings:?}");
        must!(!self.passage.http2 || encodings.is_empty(), "chunked by HTTP/2");
        must!(
            lengths.first() == values(&self.asked.headers, "content-length").first(),
            "the length became {lengths:?}"
        );
        let connection = values(headers, "connection");
        let upgrade = values(headers, "upgrade");
        must!(matches!(connection[..], [] | [b"te"] | [b"upgrade"]), "a connection's fields: {connection:?}");
        must!(
            (connection == [b"upgrade"]) == (upgrade.len() == 1) && upgrade.len() <= 1,
            "an offer to switch: {upgrade:?}"
        );
        must!(upgrade.is_empty() || !self.passage.has_body, "an offer to switch with a body");
        let te = values(headers, "te");
        must!(matches!(te[..], [] | [b"trailers"]), "te: {te:?}");
        for gone in ["keep-alive", "proxy-connection", "expect"] {
            must!(!headers.contains_key(gone), "{gone} is passed on");
        }
        Ok(())
    }

    fn names_its_origin(&self) -> Outcome {
        let append = self.passage.forwarded == Forwarded::Append;
        let claims = |name: &str| append && self.asked.headers.contains_key(name);
        let scheme = if self.passage.secure { "https" } else { "http" };
        let last = format!("for=192.0.2.7;proto={scheme}");
        let host = String::from_utf8(self.host()).unwrap_or_default();
        let last = if host.is_empty() { last } else { format!("{last};host=\"{host}\"") };
        for (name, ours) in [("x-forwarded-for", "192.0.2.7"), ("forwarded", last.as_str())] {
            let told = values(&self.passed.headers, name);
            must!(told.len() == 1, "{name}: {told:?}");
            let told = told.concat();
            let rest = told.strip_suffix(ours.as_bytes());
            let fits = rest.is_some_and(|rest| rest.is_empty() || (claims(name) && rest.ends_with(b", ")));
            must!(fits, "{name}: {} does not end with {ours}", told.escape_ascii());
        }
        for (name, ours) in [("x-forwarded-proto", scheme), ("x-forwarded-host", host.as_str())] {
            let told = values(&self.passed.headers, name);
            must!(claims(name) || told == [ours.as_bytes()], "{name}: {told:?}");
            must!(!claims(name) || told == values(&self.asked.headers, name), "{name}, trusted, became {told:?}");
        }
        Ok(())
    }

    fn keeps_the_rest(&self) -> Outcome {
        let lists = items(&values(&self.asked.headers, "connection"));
        for name in self.asked.headers.keys().chain(self.passed.headers.keys()) {
            let name = name.as_str();
            if ONE_HOP.contains(&name) || OURS.contains(&name) {
                continue;
            }
            let named = lists.iter().any(|named| named.eq_ignore_ascii_case(name)) && name != "content-length";
            let (asked, passed) = (values(&self.asked.headers, name), values(&self.passed.headers, name));
            must!(passed == if named { Vec::new() } else { asked.clone() }, "{name}: {asked:?} became {passed:?}");
        }
        Ok(())
    }
}

/// The items of all lists, also of one that has another item which is no text.
fn items(lists: &[&[u8]]) -> Vec<String> {
    let items = lists.iter().flat_map(|list| list.split(|byte| *byte == b','));
    items.map(|item| String::from_utf8_lossy(item).trim().to_owned()).collect()
}
