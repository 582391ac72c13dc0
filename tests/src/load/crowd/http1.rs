//! Clients on HTTP/1.1: one request after the other, on one connection for as long as it lasts.

use std::sync::Arc;
use std::time::Instant;

use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::CONNECTION;
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Visit;
use super::ask::{Ask, Body};
use super::wire::{Seen, Wire};

/// One connection.
pub(super) struct Line {
    pub(super) sender: SendRequest<Body>,
    driven: JoinHandle<()>,
    pub(super) seen: Arc<Seen>,
}

impl Line {
    pub(super) async fn connect(visit: &Visit) -> Result<Self, String> {
        let (wire, seen) = Wire::connect(visit.gate, false).await.map_err(|error| format!("connecting: {error}"))?;
        visit.book.note(visit.kind, |counts| counts.opened += 1);
        let (sender, connection) = handshake(TokioIo::new(wire)).await.map_err(|error| error.to_string())?;
        // Its error reaches the request that was on it; what the socket did is in `seen`.
        let driven = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, driven, seen })
    }

    /// Notes what an answer's head says of the connection.
    pub(super) fn heard(&self, response: &Response<Incoming>) {
        let says = response.headers().get_all(CONNECTION).iter();
        if says.filter_map(|value| value.to_str().ok()).any(|value| value.to_ascii_lowercase().contains("close")) {
            self.seen.announce();
        }
    }

    /// Books the end, which the other side has made.
    pub(super) fn book_end(&self, visit: &Visit, nothing_under_way: bool) {
        let detail = self.seen.failure().unwrap_or_else(|| "end of stream in the middle of something".to_owned());
        visit.book.ended(visit.kind, self.seen.end(nothing_under_way), detail);
    }

    /// Rests until the next request is due; false if the connection ended meanwhile, which is booked then.
    pub(super) async fn rest(&mut self, visit: &mut Visit) -> bool {
        tokio::select! {
            _ = &mut self.driven => {
                self.book_end(visit, true);
                false
            }
            () = visit.rest() => true,
        }
    }
}

/// What became of one request.
enum Became {
    /// Answered; the connection can go on.
    Kept,
    /// Answered, and the connection ends as it was said.
    Left,
    /// The connection had ended before a byte was sent: the request goes on another.
    Unsent,
    /// Lost, and the connection with it.
    Lost(String),
}

/// Asks until the crowd goes home.
pub(super) async fn client(mut visit: Visit) {
    // So that not all begin at once.
    visit.rest().await;
    let mut line: Option<Line> = None;
    while !visit.is_over() {
        visit.book.note(visit.kind, |counts| counts.sent += 1);
        line = ask(&visit, line.take()).await;
        match &mut line {
            Some(kept) => {
                if !kept.rest(&mut visit).await {
                    line = None;
                }
            }
            None => visit.rest().await,
        }
    }
}

/// Sends one request, on this connection or another; gives the connection back if it can go on.
async fn ask(visit: &Visit, mut line: Option<Line>) -> Option<Line> {
    let (asked, began) = (Ask::next(visit.kind), Instant::now());
    loop {
        let mut current = match line.take() {
            Some(line) => line,
            None => match Line::connect(visit).await {
                Ok(line) => line,
                Err(why) => {
                    visit.book.lost(visit.kind, why);
                    return None;
                }
            },
        };
        let became = timeout(visit.patience, exchange(visit, &mut current, &asked)).await;
        match became.unwrap_or_else(|_| Became::Lost(format!("{asked:?}: no whole answer in time"))) {
            Became::Unsent => current.book_end(visit, true),
            Became::Kept => {
                visit.book.answered(visit.kind, began.elapsed());
                return Some(current);
            }
            Became::Left => {
                visit.book.answered(visit.kind, began.elapsed());
                current.book_end(visit, true);
                return None;
            }
            Became::Lost(why) => {
                visit.book.lost(visit.kind, why);
                if current.sender.is_closed() {
                    current.book_end(visit, false);
                }
                return None;
            }
        }
    }
}

async fn exchange(visit: &Visit, line: &mut Line, asked: &Ask) -> Became {
    if line.sender.ready().await.is_err() {
        return Became::Unsent;
    }
    let request = asked.request(&visit.gate.to_string(), false);
    let response = match line.sender.try_send_request(request).await {
        Ok(response) => response,
        Err(mut error) => {
            return match error.take_message() {
                Some(_) => Became::Unsent,
                None => Became::Lost(format!("{asked:?}: {}", plain(error.error()))),
            };
        }
    };
    line.heard(&response);
    let (head, body) = response.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Became::Lost(format!("{asked:?}: in the answer's body: {}", plain(&error))),
    };
    match asked.check(head.status, &head.headers, &body) {
        Ok(()) if line.seen.is_announced() => Became::Left,
        Ok(()) => Became::Kept,
        Err(why) => Became::Lost(format!("{asked:?}: {why}")),
    }
}

/// hyper's own text names the kind only; the cause says what the socket said.
pub(super) fn plain(error: &hyper::Error) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}
