//! Clients on HTTP/2: one connection each, with many streams at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use http_body_util::BodyExt;
use hyper::body::Body;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::Visit;
use super::ask::{Ask, Body as AskBody};
use super::fate::is_returned;
use super::http1::plain;
use super::wire::{Seen, Wire};

/// One connection; cloned for every stream.
pub(super) struct Line<B> {
    pub(super) sender: SendRequest<B>,
    seen: Arc<Seen>,
    under_way: Arc<AtomicUsize>,
}

impl<B> Clone for Line<B> {
    fn clone(&self) -> Self {
        let (sender, seen) = (self.sender.clone(), Arc::clone(&self.seen));
        Self { sender, seen, under_way: Arc::clone(&self.under_way) }
    }
}

/// Something under way on a connection, for as long as it lives.
pub(super) struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl<B> Line<B>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    /// Connects; the connection's end is booked when it comes, unless the crowd made it by going home.
    pub(super) async fn connect(visit: &Visit) -> Result<Self, String> {
        let (wire, seen) = Wire::connect(visit.gate, true).await.map_err(|error| format!("connecting: {error}"))?;
        visit.book.note(visit.kind, |counts| counts.opened += 1);
        let made = handshake::<_, _, B>(TokioExecutor::new(), TokioIo::new(wire)).await;
        let (sender, connection) = made.map_err(|error| plain(&error))?;
        let line = Self { sender, seen: Arc::clone(&seen), under_way: Arc::default() };
        let (visit, under_way) = (visit.clone(), Arc::clone(&line.under_way));
        tokio::spawn(async move {
            let ended = connection.await;
            let theirs = seen.is_announced() || seen.ended.load(Ordering::Acquire) || ended.is_err();
            if theirs {
                let why = ended.err().map_or_else(|| "end of stream under way".to_owned(), |error| plain(&error));
                visit.book.ended(visit.kind, seen.end(under_way.load(Ordering::Acquire) == 0), why);
            }
        });
        Ok(line)
    }

    /// Nothing new is to be sent on it.
    pub(super) fn is_left(&self) -> bool {
        self.sender.is_closed() || self.seen.is_announced()
    }

    pub(super) fn begin(&self) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        UnderWay(Arc::clone(&self.under_way))
    }
}

type Shared = Arc<Mutex<Option<Line<AskBody>>>>;

/// So many streams on one connection, until the crowd goes home.
pub(super) async fn client(visit: Visit, streams: usize) {
    let line = Shared::default();
    let streams = (0..streams).map(|_| tokio::spawn(stream(visit.clone(), Arc::clone(&line))));
    for stream in streams.collect::<Vec<_>>() {
        // A panic in it has been said by the panic itself; its requests are then missing among the answered ones.
        let _ = stream.await;
    }
}

async fn stream(mut visit: Visit, shared: Shared) {
    visit.rest().await;
    while !visit.is_over() {
        visit.book.note(visit.kind, |counts| counts.sent += 1);
        let asked = Ask::next(visit.kind);
        let began = Instant::now();
        match timeout(visit.patience, ask(&visit, &shared, &asked)).await {
            Ok(Became::Answered) => visit.book.answered(visit.kind, began.elapsed()),
            // It is another request then, as it would be for a client that says it again.
            Ok(Became::Returned) => visit.book.note(visit.kind, |counts| counts.returned += 1),
            Ok(Became::Lost(why)) => visit.book.lost(visit.kind, format!("{asked:?}: {why}")),
            Err(_) => visit.book.lost(visit.kind, format!("{asked:?}: no whole answer in time")),
        }
        visit.rest().await;
    }
}

enum Became {
    Answered,
    Returned,
    Lost(String),
}

async fn ask(visit: &Visit, shared: &Shared, asked: &Ask) -> Became {
    loop {
        let mut line = match current(visit, shared).await {
            Ok(line) => line,
            Err(why) => return Became::Lost(why),
        };
        if line.sender.ready().await.is_err() {
            continue;
        }
        let _under_way = line.begin();
        let request = asked.request(&visit.gate.to_string(), true);
        let response = match line.sender.try_send_request(request).await {
            Ok(response) => response,
            // Nothing was sent: it goes on another connection.
            Err(mut error) => match error.take_message() {
                Some(_) => continue,
                None if is_returned(error.error()) => return Became::Returned,
                None => return Became::Lost(plain(error.error())),
            },
        };
        let (head, body) = response.into_parts();
        return match body.collect().await {
            Ok(body) => match asked.check(head.status, &head.headers, &body.to_bytes()) {
                Ok(()) => Became::Answered,
                Err(why) => Became::Lost(why),
            },
            Err(error) => Became::Lost(format!("in the answer's body: {}", plain(&error))),
        };
    }
}

/// The connection that all streams share, or a new one if that is left.
async fn current(visit: &Visit, shared: &Shared) -> Result<Line<AskBody>, String> {
    let mut line = shared.lock().await;
    match line.as_ref().filter(|line| !line.is_left()) {
        Some(line) => Ok(line.clone()),
        None => Ok(line.insert(Line::connect(visit).await?).clone()),
    }
}
