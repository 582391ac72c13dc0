//! Clients of server-sent events: one stream for as long as it lasts, every event of which must come, in order.

use std::time::Instant;

use bytes::{Buf, BytesMut};
use http_body_util::{BodyExt, Empty, Full};
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, HOST};
use tokio::time::timeout;

use super::Visit;
use super::book::End;
use super::http1::{Line, plain};

/// Listens until the crowd goes home.
pub(super) async fn client(mut visit: Visit) {
    while !visit.is_over() {
        visit.book.note(visit.kind, |counts| counts.sent += 1);
        match Line::connect(&visit).await {
            Ok(line) => listen(&mut visit, line).await,
            Err(why) => visit.book.lost(visit.kind, why),
        }
        visit.rest().await;
    }
}

async fn listen(visit: &mut Visit, mut line: Line) {
    let began = Instant::now();
    let request = Request::get("/events?every_ms=100")
        .header(HOST, visit.gate.to_string())
        .header(ACCEPT, "text/event-stream")
        .body(Full::default().boxed_unsync())
        .unwrap_or_else(|_| Request::new(Empty::new().boxed_unsync()));
    let response = match timeout(visit.patience, line.sender.send_request(request)).await {
        Ok(Ok(response)) if response.status().is_success() => response,
        Ok(Ok(response)) => return visit.book.lost(visit.kind, format!("refused: {}", response.status())),
        Ok(Err(error)) => {
            visit.book.lost(visit.kind, plain(&error));
            return line.book_end(visit, false);
        }
        Err(_) => return visit.book.lost(visit.kind, "no answer in time"),
    };
    line.heard(&response);
    let opened = began.elapsed();
    match read(visit, response.into_body()).await {
        // The crowd goes home: so far it was well answered.
        Ended::ByUs => visit.book.answered(visit.kind, opened),
        Ended::InOrder => {
            visit.book.answered(visit.kind, opened);
            visit.book.ended(visit.kind, End::Announced, "");
        }
        Ended::Broken(why) => {
            visit.book.lost(visit.kind, why.clone());
            visit.book.ended(visit.kind, End::Dropped, why);
        }
    }
}

enum Ended {
    ByUs,
    InOrder,
    Broken(String),
}

async fn read(visit: &mut Visit, mut body: Incoming) -> Ended {
    let (mut text, mut last) = (BytesMut::new(), 0u64);
    loop {
        let patience = visit.patience;
        let frame = tokio::select! {
            frame = timeout(patience, body.frame()) => frame,
            () = visit.over() => return Ended::ByUs,
        };
        match frame {
            Ok(Some(Ok(frame))) => text.extend_from_slice(frame.data_ref().map_or(&[], |piece| piece.as_ref())),
            Ok(Some(Err(error))) => return Ended::Broken(format!("after event {last}: {}", plain(&error))),
            Ok(None) if text.is_empty() => return Ended::InOrder,
            Ok(None) => return Ended::Broken(format!("ended in the middle of event {}", last + 1)),
            Err(_) => return Ended::Broken(format!("no event after {last} in time")),
        }
        while let Some(end) = text.windows(2).position(|bytes| bytes == b"\n\n") {
            let whole = format!("id: {0}\ndata: event {0}", last + 1);
            if &text[..end] != whole.as_bytes() {
                return Ended::Broken(format!("event {} is {:?}", last + 1, String::from_utf8_lossy(&text[..end])));
            }
            text.advance(end + 2);
            last += 1;
            visit.book.note(visit.kind, |counts| counts.pushed += 1);
        }
    }
}
