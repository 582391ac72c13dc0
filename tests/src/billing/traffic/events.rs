//! Server-sent events, numbered, until the instance closes. Then the body ends as bodies do, which a reader can tell from a
//! broken connection.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::{Closing, number};
use crate::billing::http::{Body, refused};

/// The answer.
pub(super) fn stream(mut closing: Closing, query: &str) -> Response<Body> {
    let Some(every) = number(query, "every_ms").filter(|ms| *ms > 0).map(Duration::from_millis) else {
        return refused(StatusCode::BAD_REQUEST, "give ?every_ms=N, above 0");
    };
    let (events, received) = mpsc::channel::<Bytes>(1);
    closing.open.clone().spawn(async move {
        let mut pace = tokio::time::interval(every);
        for id in 1u64.. {
            tokio::select! {
                () = closing.wait() => return,
                _ = pace.tick() => {}
            }
            // Nobody reads any more.
            if events.send(Bytes::from(format!("id: {id}\ndata: event {id}\n\n"))).await.is_err() {
                return;
            }
        }
    });
    let frames = ReceiverStream::new(received).map(|event| Ok(Frame::data(event)));
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
