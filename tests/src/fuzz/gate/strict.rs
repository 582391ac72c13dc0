//! HTTP/1.1 requests by the letter of RFC 9112: what is not exactly that is a fault. The service's side.

/// One request, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its number at the service.
    pub number: u64,
    /// Method.
    pub method: String,
    /// Target.
    pub target: String,
    /// Fields, names in lower case.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body, without its frame.
    pub body: Vec<u8>,
}

impl Message {
    /// The values of a field.
    pub fn values(&self, name: &str) -> Vec<&[u8]> {
        self.headers.iter().filter(|(given, _)| given == name).map(|(_, value)| value.as_slice()).collect()
    }
}

/// What stands at the beginning of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A message, and how many bytes it has.
    Whole(Message, usize),
    /// The beginning of one.
    More,
}

/// Reads the first message.
///
/// # Errors
/// Why it is none.
pub fn parse(bytes: &[u8]) -> Result<Parsed, String> {
    let Some(end) = find(bytes, b"\r\n\r\n") else {
        let head_so_far = bytes.rsplitn(2, |byte| *byte == b'\n').nth(1).unwrap_or_default();
        return lines_of(head_so_far).map(|_| Parsed::More);
    };
    let head = lines_of(bytes.get(..end).unwrap_or_default())?;
    let (method, target) = request_line(head.first().copied().unwrap_or_default())?;
    let headers = head.iter().skip(1).map(|line| field(line)).collect::<Result<Vec<_>, _>>()?;
    let message = Message { number: 0, method, target, headers, body: Vec::new() };
    if message.values("host").len() != 1 {
        return Err(format!("not exactly one Host: {message:?}"));
    }
    let rest = bytes.get(end + 4..).unwrap_or_default();
    let body = match (&message.values("content-length")[..], &message.values("transfer-encoding")[..]) {
        ([], []) => Some((Vec::new(), 0)),
        ([length], []) => counted(length, rest)?,
        ([], [b"chunked"]) => chunked(rest)?,
        _ => return Err(format!("not exactly one framing: {message:?}")),
    };
    Ok(match body {
        Some((body, taken)) => Parsed::Whole(Message { body, ..message }, end + 4 + taken),
        None => Parsed::More,
    })
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Lines that end in CRLF, without a bare CR, LF or NUL anywhere.
fn lines_of(head: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut lines = Vec::new();
    for line in head.split(|byte| *byte == b'\n') {
        lines.push(line.strip_suffix(b"\r").unwrap_or(line));
    }
    let bare = lines.iter().any(|line| line.iter().any(|byte| matches!(byte, b'\r' | 0)));
    let feeds = head.iter().filter(|byte| **byte == b'\n').count();
    let ends = head.windows(2).filter(|pair| pair == b"\r\n").count();
    if bare || feeds != ends { Err(format!("a bare CR, LF or NUL in {}", head.escape_ascii())) } else { Ok(lines) }
}

fn request_line(line: &[u8]) -> Result<(String, String), String> {
    let text = String::from_utf8_lossy(line).into_owned();
    match text.split(' ').collect::<Vec<_>>()[..] {
        [method, target, "HTTP/1.1"] if is_token(method.as_bytes()) && is_target(target) => {
            Ok((method.to_owned(), target.to_owned()))
        }
        _ => Err(format!("no request line: {text:?}")),
    }
}

fn is_target(target: &str) -> bool {
    (target == "*" || target.starts_with('/')) && !target.contains(|c: char| c.is_ascii_control() || c == '#')
}

fn field(line: &[u8]) -> Result<(String, Vec<u8>), String> {
    let wrong = || format!("no field: {}", line.escape_ascii());
    let colon = line.iter().position(|byte| *byte == b':').ok_or_else(wrong)?;
    let (name, value) = (line.get(..colon).unwrap_or_default(), line.get(colon + 1..).unwrap_or_default());
    let fits = is_token(name) && !value.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f);
    if !fits {
        return Err(wrong());
    }
    Ok((String::from_utf8_lossy(name).to_ascii_lowercase(), value.trim_ascii().to_vec()))
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

type Body = Option<(Vec<u8>, usize)>;

fn counted(length: &[u8], rest: &[u8]) -> Result<Body, String> {
    let digits = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
    let length = std::str::from_utf8(length).ok().filter(|_| digits).and_then(|text| text.parse::<usize>().ok());
    let length = length.ok_or("a length that is no number")?;
    Ok(rest.get(..length).map(|body| (body.to_vec(), length)))
}

fn chunked(rest: &[u8]) -> Result<Body, String> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let left = rest.get(at..).unwrap_or_default();
        let Some(end) = find(left, b"\r\n") else {
            let fits = left.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'\r');
            return if fits { Ok(None) } else { Err(format!("no chunk: {}", left.escape_ascii())) };
        };
        let size = std::str::from_utf8(left.get(..end).unwrap_or_default()).unwrap_or_default();
        let hex = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size = usize::from_str_radix(size, 16).ok().filter(|_| hex).ok_or(format!("no chunk size: {size:?}"))?;
        at += end + 2;
        if size == 0 {
            return Ok(trailers(rest.get(at..).unwrap_or_default())?.map(|taken| (body, at + taken)));
        }
        let Some(chunk) = rest.get(at..at + size + 2) else { return Ok(None) };
        let Some(data) = chunk.strip_suffix(b"\r\n") else { return Err("a chunk of another size".to_owned()) };
        body.extend_from_slice(data);
        at += size + 2;
    }
}

fn trailers(rest: &[u8]) -> Result<Option<usize>, String> {
    if rest.starts_with(b"\r\n") {
        return Ok(Some(2));
    }
    let Some(end) = find(rest, b"\r\n\r\n") else { return Ok(None) };
    for line in lines_of(rest.get(..end).unwrap_or_default())? {
        field(line)?;
    }
    Ok(Some(end + 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_read_in_two_ways_is_a_fault() {
        for bytes in [
            &b"GET / HTTP/1.1\nHost: a\n\n\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\na\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
        ] {
            parse(bytes).expect_err(&bytes.escape_ascii().to_string());
        }
    }

    #[test]
    fn a_message_by_the_letter_is_read_and_its_beginning_is_no_fault() {
        for (bytes, body) in [
            (&b"GET /a?b HTTP/1.1\r\nhost: a\r\n\r\n"[..], &b""[..]),
            (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
            (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx: y\r\n\r\n", b"hi"),
        ] {
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end]), Ok(Parsed::More), "{end} bytes of {}", bytes.escape_ascii());
            }
            let Ok(Parsed::Whole(message, taken)) = parse(bytes) else { panic!("{}", bytes.escape_ascii()) };
            assert_eq!((message.body.as_slice(), taken), (body, bytes.len()));
        }
    }
}
