//! What a client asks over HTTP, and whether an answer is whole and right.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::{Method, Request};
use serde_json::Value;
use tokio_stream::StreamExt;

use super::book::Kind;
use crate::billing::traffic::{DIGEST_HEADER, Digest};

/// A request's body.
pub(super) type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// Pieces of an upload.
const PIECES: usize = 24;
/// Between two pieces.
const APART: Duration = Duration::from_millis(25);

/// One question.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    Balance(String),
    Charge { key: String },
    Slow,
    Upload { piece: usize, chunked: bool },
    Download { bytes: u64 },
}

impl Ask {
    /// The next question of a client of this kind.
    pub(super) fn next(kind: Kind) -> Self {
        let dice = rand::random_range(0..10);
        match kind {
            Kind::Upload => Self::Upload { piece: rand::random_range(200..3000), chunked: dice < 5 },
            Kind::Download => Self::Download { bytes: rand::random_range(1..200_000) },
            _ if dice < 2 => Self::Charge { key: format!("crowd-{:032x}", rand::random::<u128>()) },
            _ if dice < 3 => Self::Slow,
            _ => Self::Balance(format!("acct-{}", rand::random_range(0..1000))),
        }
    }

    /// As a request; one that cannot be built is a mistake of ours, and says so in its path.
    pub(super) fn request(&self, authority: &str, http2: bool) -> Request<Body> {
        let (method, path) = match self {
            Self::Balance(account) => (Method::GET, format!("/balance/{account}")),
            Self::Charge { .. } => (Method::POST, "/charges".to_owned()),
            Self::Slow => (Method::GET, "/slow?ms=200".to_owned()),
            Self::Upload { .. } => (Method::POST, "/upload".to_owned()),
            Self::Download { bytes } => (Method::GET, format!("/download?bytes={bytes}&ms=600")),
        };
        let uri = if http2 { format!("http://{authority}{path}") } else { path };
        let mut request = Request::new(self.body());
        (*request.method_mut(), *request.uri_mut()) = (method, uri.parse().unwrap_or_default());
        let headers = request.headers_mut();
        if let (false, Ok(host)) = (http2, authority.parse()) {
            headers.insert(hyper::header::HOST, host);
        }
        if let Self::Charge { key } = self
            && let Ok(key) = key.parse()
        {
            headers.insert("idempotency-key", key);
        }
        if let Self::Upload { piece, chunked: false } = self {
            headers.insert(hyper::header::CONTENT_LENGTH, (piece * PIECES).into());
        }
        request
    }

    fn body(&self) -> Body {
        match self {
            Self::Balance(_) | Self::Slow | Self::Download { .. } => Full::default().boxed_unsync(),
            Self::Charge { .. } => Full::from(r#"{"account":"crowd","cents":1}"#).boxed_unsync(),
            Self::Upload { piece, .. } => {
                let pieces = (0..PIECES).map(pieces_of(*piece)).map(|piece| Ok(Frame::data(piece)));
                StreamBody::new(tokio_stream::iter(pieces).throttle(APART)).boxed_unsync()
            }
        }
    }

    /// Whether the answer is whole and right.
    pub(super) fn check(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Result<(), String> {
        if !status.is_success() {
            return Err(format!("{status}: {}", String::from_utf8_lossy(body).trim()));
        }
        let field = |name: &str| serde_json::from_slice(body).ok().map(|answer: Value| answer[name].clone());
        let right = match self {
            Self::Balance(account) => field("account") == Some(account.as_str().into()),
            Self::Charge { key } => field("key") == Some(key.as_str().into()),
            Self::Slow => !body.is_empty(),
            Self::Upload { piece, .. } => {
                let mut digest = Digest::default();
                (0..PIECES).map(pieces_of(*piece)).for_each(|piece| digest.take(&piece));
                let (bytes, sha256) = digest.end();
                field("bytes") == Some(bytes.into()) && field("sha256") == Some(sha256.into())
            }
            Self::Download { bytes } => {
                let mut digest = Digest::default();
                digest.take(body);
                let (length, sha256) = digest.end();
                let named = headers.get(DIGEST_HEADER).and_then(|value| value.to_str().ok());
                length == *bytes && named == Some(sha256.as_str())
            }
        };
        if right { Ok(()) } else { Err(format!("a wrong answer of {} bytes", body.len())) }
    }
}

/// Each piece differs from the one before, so that a missing or doubled one changes the digest.
fn pieces_of(bytes: usize) -> impl Fn(usize) -> Bytes {
    move |number| Bytes::from(vec![u8::try_from(number).unwrap_or(0); bytes])
}
