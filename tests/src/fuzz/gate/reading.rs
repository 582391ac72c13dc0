//! What a client's bytes say, found by a reader that shares no code with the gate. It is as tolerant as the gate says that
//! it is (`docs/gate.md`), and marks every request of which the gate may think otherwise.

use http::Uri;

/// One request, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Target, as a service is to see it.
    pub target: String,
    /// Fields, names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// What `Connection` names, in lower case.
    pub named: Vec<String>,
    /// The body, without its frame.
    pub body: Vec<u8>,
    /// Nobody can have a reason to refuse it.
    pub is_sure: bool,
    /// Its client says that it is the last one.
    pub closes: bool,
}

/// So many fields are beyond doubt; hyper takes a hundred.
const SURE_FIELDS: usize = 60;

/// All requests up to the first that cannot be read.
pub fn requests(mut bytes: &[u8]) -> Vec<Request> {
    let mut all = Vec::new();
    while let Some((request, rest)) = one(bytes) {
        let last = request.closes && request.is_sure;
        all.push(request);
        if last {
            break;
        }
        bytes = rest;
    }
    all
}

/// A line up to its LF, and whether it ended in CRLF.
fn line(bytes: &[u8]) -> Option<(&[u8], bool, &[u8])> {
    let at = bytes.iter().position(|byte| *byte == b'\n')?;
    let (line, rest) = (bytes.get(..at)?, bytes.get(at + 1..)?);
    Some(line.strip_suffix(b"\r").map_or((line, false, rest), |line| (line, true, rest)))
}

fn one(mut bytes: &[u8]) -> Option<(Request, &[u8])> {
    let mut is_sure = true;
    // RFC 9112 §2.2: empty lines before a request are passed over.
    while let Some((b"", _, rest)) = line(bytes) {
        (bytes, is_sure) = (rest, false);
    }
    let (first, proper, mut rest) = line(bytes)?;
    is_sure &= proper;
    let mut words = first.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let old = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return None,
    };
    if words.next().is_some() {
        return None;
    }
    let mut headers = Vec::new();
    loop {
        let (one, proper, left) = line(rest)?;
        (rest, is_sure) = (left, is_sure && proper);
        if one.is_empty() {
            break;
        }
        // A bare CR is nobody's white space, and hyper refuses it (RFC 9112 §2.2).
        is_sure &= !one.contains(&b'\r');
        let colon = one.iter().position(|byte| *byte == b':')?;
        let (name, value) = (one.get(..colon)?, trimmed(one.get(colon + 1..)?));
        headers.push((String::from_utf8(name.to_ascii_lowercase()).ok()?, value.to_vec()));
    }
    let method = String::from_utf8(method.to_vec()).ok()?;
    let plain = matches!(method.as_str(), "GET" | "POST" | "PUT" | "HEAD" | "DELETE");
    let target = sent(std::str::from_utf8(target).ok()?)?;
    is_sure &= plain && target.1 && !old && headers.len() < SURE_FIELDS && headers.iter().all(is_plain);
    let hosts = values(&headers, "host");
    is_sure &= hosts.len() == 1 && hosts.iter().all(|host| is_sure_host(host));
    let (body, sure_body, rest) = body(&headers, old, rest)?;
    let named = list(&values(&headers, "connection"));
    // hyper leaves a list alone that is no text throughout.
    let is_text = |value: &&[u8]| value.iter().all(|b| (b' '..=b'~').contains(b) || *b == b'\t');
    let readable: Vec<&[u8]> = values(&headers, "connection").into_iter().filter(is_text).collect();
    let closes = old || list(&readable).iter().any(|name| name == "close");
    is_sure &= sure_body && values(&headers, "upgrade").is_empty() && values(&headers, "expect").is_empty();
    Some((Request { method, target: target.0, headers, named, body, is_sure, closes }, rest))
}

/// Without the blanks around it; anything else that is no letter stays, and is a doubt.
fn trimmed(value: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let begin = value.iter().position(|byte| !blank(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !blank(byte)).map_or(begin, |at| at + 1);
    value.get(begin..end).unwrap_or_default()
}

/// The target as a service sees it, and whether it is in the usual form.
fn sent(target: &str) -> Option<(String, bool)> {
    let usual =
        target.starts_with('/') && target.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._?=&%".contains(&b));
    if usual {
        return Some((target.to_owned(), true));
    }
    let uri: Uri = target.parse().ok()?;
    Some((uri.path_and_query()?.to_string(), false))
}

fn is_plain((name, value): &(String, Vec<u8>)) -> bool {
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && value.iter().all(|byte| (b' '..=b'~').contains(byte))
}

fn is_sure_host(host: &[u8]) -> bool {
    !host.is_empty() && host.iter().all(u8::is_ascii_lowercase)
}

fn values<'a>(headers: &'a [(String, Vec<u8>)], name: &str) -> Vec<&'a [u8]> {
    headers.iter().filter(|(given, _)| given == name).map(|(_, value)| value.as_slice()).collect()
}

fn list(lists: &[&[u8]]) -> Vec<String> {
    let items = lists.iter().flat_map(|value| value.split(|byte| *byte == b','));
    items.map(|item| String::from_utf8_lossy(item.trim_ascii()).to_ascii_lowercase()).collect()
}

/// The body, whether its frame is beyond doubt, and what follows. None: there is no whole body.
fn body<'a>(headers: &[(String, Vec<u8>)], old: bool, rest: &'a [u8]) -> Option<(Vec<u8>, bool, &'a [u8])> {
    let (lengths, encodings) = (values(headers, "content-length"), values(headers, "transfer-encoding"));
    match (&lengths[..], &encodings[..]) {
        ([], []) => Some((Vec::new(), true, rest)),
        ([first, others @ ..], []) => {
            // Equal as numbers: hyper hands the first on alone.
            let number = |text: &[u8]| {
                let digits = text.iter().all(u8::is_ascii_digit);
                digits.then(|| text.iter().copied().skip_while(|digit| *digit == b'0').collect::<Vec<u8>>())
            };
            let digits = number(first).is_some() && others.iter().all(|other| number(other) == number(first));
            let length: usize = std::str::from_utf8(first).ok().filter(|_| digits)?.parse().ok()?;
            Some((rest.get(..length)?.to_vec(), others.is_empty(), rest.get(length..)?))
        }
        // With both, the chunks count.
        (_, [encoding]) if encoding.eq_ignore_ascii_case(b"chunked") && !old => {
            let (body, sure, rest) = chunks(rest)?;
            Some((body, sure && lengths.is_empty(), rest))
        }
        _ => None,
    }
}

fn chunks(mut rest: &[u8]) -> Option<(Vec<u8>, bool, &[u8])> {
    let (mut body, mut sure) = (Vec::new(), true);
    loop {
        let (size, true, left) = line(rest)? else { return None };
        let digits = size.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        sure &= digits == size.len() && digits <= 8;
        let blank = size.get(digits..)?.trim_ascii_start();
        if !(blank.is_empty() || blank.starts_with(b";")) {
            return None;
        }
        let size = usize::from_str_radix(std::str::from_utf8(size.get(..digits)?).ok()?, 16).ok()?;
        if size == 0 {
            rest = left;
            break;
        }
        body.extend_from_slice(left.get(..size)?);
        rest = left.get(size..)?.strip_prefix(b"\r\n")?;
    }
    loop {
        // Here a bare LF ends nothing for hyper; a service never sees it, since the gate frames anew.
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        rest = rest.get(end + 2..)?;
        if end == 0 {
            return Some((body, sure, rest));
        }
        sure = false;
    }
}
