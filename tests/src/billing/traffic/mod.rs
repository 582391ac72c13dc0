//! The kinds of traffic that a gate must carry through a switch, beside plain reads and writes: streams both ways, upgraded
//! connections, slow bodies, work that outlives its request.
//!
//! | path | is |
//! |---|---|
//! | `POST /upload?pause_ms=N` | reads the body, with a pause after each piece, and answers its length and digest |
//! | `POST /refuse` | answers 413 before the body was read |
//! | `GET /download?bytes=N&ms=M` | a body of N bytes over M milliseconds; its digest is in a header |
//! | `GET /events?every_ms=N` | server-sent events, numbered, until the instance closes |
//! | `GET /ws?tick_ms=N` | a WebSocket: each text comes back, and every N ms a tick |
//! | `POST /jobs?ms=N`, `GET /jobs` | starts work that goes on after the answer; how much of it there is |
//! | `/billing.v1.Billing/…` | gRPC over HTTP/2, see [`grpc`] |
//!
//! Whatever never ends by itself ends in good order when the instance is told to stop.

mod bodies;
mod events;
pub mod grpc;
pub mod jobs;
mod websocket;

use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::billing::http::{Billing, Body, refused};

pub use bodies::{DIGEST_HEADER, Digest, hex};

/// The instance's end, for whatever goes on without a request's end.
#[derive(Debug, Clone)]
pub struct Closing {
    told: watch::Receiver<bool>,
    /// Counts connections and streams that are still open.
    pub open: TaskTracker,
}

impl Closing {
    /// Told by `told`.
    pub fn new(told: watch::Receiver<bool>) -> Self {
        Self { told, open: TaskTracker::new() }
    }

    /// Returns when the instance closes, or is gone.
    pub async fn wait(&mut self) {
        let _gone = self.told.wait_for(|closing| *closing).await;
    }
}

/// Answers a request of these kinds.
pub(super) async fn answer(billing: &Billing, path: &str, request: Request<Incoming>) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    match (request.method(), path) {
        (&Method::POST, "/upload") => bodies::upload(request.into_body(), &query).await,
        (&Method::POST, "/refuse") => refused(StatusCode::PAYLOAD_TOO_LARGE, "refused before it was read"),
        (&Method::GET, "/download") => bodies::download(&query),
        (&Method::GET, "/events") => events::stream(billing.closing.clone(), &query),
        (&Method::GET, "/ws") => websocket::upgrade(billing.closing.clone(), request, &query),
        (&Method::POST, "/jobs") => jobs::start(billing, &query).await,
        (&Method::POST, _) if path.starts_with(grpc::PREFIX) => grpc::answer(billing, request).await,
        _ => refused(StatusCode::NOT_FOUND, format!("no {} {path} here", request.method())),
    }
}

/// A number of the query string; none if it is missing or not one.
fn number(query: &str, name: &str) -> Option<u64> {
    let pair = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    pair.and_then(|value| value.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn a_number_is_found_by_its_whole_name() {
        assert_eq!(number("bytes=5&ms=7", "ms"), Some(7));
        assert_eq!(number("bytes=5&ms=7", "bytes"), Some(5));
        assert_eq!(number("xms=5", "ms"), None);
        assert_eq!(number("ms=x", "ms"), None);
    }
}
