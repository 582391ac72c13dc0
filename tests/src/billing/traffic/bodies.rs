//! Long bodies both ways, each with a digest, so that a cut or altered one cannot pass for whole.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Response, StatusCode};
use serde_json::json;
use sha2::Digest as _;

use super::number;
use crate::billing::http::{Body, refused, whole};
use crate::billing::pieces::Pieces;

/// Names the SHA-256 of a download, hexadecimal.
pub const DIGEST_HEADER: &str = "billing-digest";
/// The largest download.
const MAX_BYTES: u64 = 64 << 20;
/// The longest pause of a slow reader.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// The SHA-256 of a body that comes in pieces, and its length.
#[derive(Debug, Clone, Default)]
pub struct Digest {
    sum: sha2::Sha256,
    bytes: u64,
}

impl Digest {
    /// Takes one piece.
    pub fn take(&mut self, piece: &[u8]) {
        self.sum.update(piece);
        self.bytes += piece.len() as u64;
    }

    /// Length in bytes, and digest in hexadecimal.
    pub fn end(self) -> (u64, String) {
        (self.bytes, hex(&self.sum.finalize()))
    }
}

/// Bytes as people read them.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A slow reader of a body.
pub(super) async fn upload(mut body: Incoming, query: &str) -> Response<Body> {
    let pause = number(query, "pause_ms").map(Duration::from_millis).unwrap_or_default().min(MAX_PAUSE);
    let mut digest = Digest::default();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => digest.take(frame.data_ref().map_or(&[], |piece| piece.as_ref())),
            Err(error) => return refused(StatusCode::BAD_REQUEST, format!("the body broke off: {error}")),
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
    let (bytes, sha256) = digest.end();
    whole(StatusCode::OK, &json!({ "bytes": bytes, "sha256": sha256 }))
}

/// A body of so many bytes over so many milliseconds.
pub(super) fn download(query: &str) -> Response<Body> {
    let Some(bytes) = number(query, "bytes").filter(|bytes| *bytes <= MAX_BYTES) else {
        return refused(StatusCode::BAD_REQUEST, format!("give ?bytes=N, at most {MAX_BYTES}"));
    };
    let over = Duration::from_millis(number(query, "ms").unwrap_or(0));
    let pieces = Pieces::of(pattern(bytes), over);
    let mut digest = Digest::default();
    pieces.content().for_each(|piece: &Bytes| digest.take(piece));
    let mut response = Response::new(pieces.boxed_unsync());
    if let Ok(value) = digest.end().1.parse() {
        response.headers_mut().insert(DIGEST_HEADER, value);
    }
    response
}

/// Bytes of which no stretch repeats soon, so that a piece that is missing, doubled or moved changes the digest.
fn pattern(bytes: u64) -> Bytes {
    (0..bytes).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect::<Vec<u8>>().into()
}
