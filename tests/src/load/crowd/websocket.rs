//! WebSocket clients: one message after the other comes back, on one connection for as long as it lasts.

use std::time::Instant;

use futures_util::SinkExt;
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::Visit;
use super::book::End;
use super::wire::Wire;

/// Talks until the crowd goes home.
pub(super) async fn client(mut visit: Visit) {
    while !visit.is_over() {
        match timeout(visit.patience, connect(&visit)).await.unwrap_or_else(|_| Err("no upgrade in time".to_owned())) {
            Ok(socket) => talk(&mut visit, socket).await,
            Err(why) => {
                visit.book.note(visit.kind, |counts| counts.sent += 1);
                visit.book.lost(visit.kind, why);
            }
        }
        visit.rest().await;
    }
}

async fn connect(visit: &Visit) -> Result<WebSocketStream<Wire>, String> {
    let (wire, _) = Wire::connect(visit.gate, false).await.map_err(|error| format!("connecting: {error}"))?;
    visit.book.note(visit.kind, |counts| counts.opened += 1);
    let made = client_async(format!("ws://{}/ws?tick_ms=500", visit.gate), wire).await;
    made.map(|(socket, _)| socket).map_err(|error| format!("upgrading: {error}"))
}

/// A message without its echo yet.
struct Waits {
    text: String,
    since: Instant,
}

async fn talk(visit: &mut Visit, mut socket: WebSocketStream<Wire>) {
    let mut waits: Option<Waits> = None;
    let mut pause = visit.pause();
    for number in 1u64.. {
        // A rest while nothing is asked, else the patience; whichever it is, whatever comes is read.
        let limit = if waits.is_some() { visit.patience } else { pause };
        let heard = tokio::select! {
            heard = timeout(limit, socket.next()) => heard,
            () = visit.over(), if waits.is_none() => {
                let _bye = socket.close(None).await;
                return;
            }
        };
        match (heard, waits.take()) {
            (Ok(Some(Ok(Message::Text(text)))), Some(asked)) if text.as_str() == asked.text => {
                visit.book.answered(visit.kind, asked.since.elapsed());
                pause = visit.pause();
            }
            (Ok(Some(Ok(Message::Text(text)))), asked) if text.starts_with("tick ") => {
                visit.book.note(visit.kind, |counts| counts.pushed += 1);
                waits = asked;
            }
            (Ok(Some(Ok(Message::Close(frame)))), asked) => return closed(visit, socket, asked, frame.is_some()).await,
            (Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))), asked) => waits = asked,
            (Ok(Some(Ok(other))), _) => return visit.book.lost(visit.kind, format!("unasked-for: {other}")),
            (Ok(Some(Err(error))), asked) => return dropped(visit, asked, &error),
            (Ok(None), asked) => return dropped(visit, asked, &Error::ConnectionClosed),
            (Err(_), Some(_)) => return visit.book.lost(visit.kind, "no echo in time"),
            (Err(_), None) => {
                let text = format!("{number} {:016x}", rand::random::<u64>());
                visit.book.note(visit.kind, |counts| counts.sent += 1);
                waits = Some(Waits { text: text.clone(), since: Instant::now() });
                // Whether it failed because of a closing frame, the next reading says.
                let _sent = socket.send(Message::text(text)).await;
            }
        }
    }
}

/// The other side said that it closes: the closing is answered, and nothing more comes.
async fn closed(visit: &Visit, mut socket: WebSocketStream<Wire>, asked: Option<Waits>, with_reason: bool) {
    visit.book.note(visit.kind, |counts| counts.returned += u64::from(asked.is_some()));
    visit.book.ended(visit.kind, End::Announced, with_reason);
    let rest = async { while socket.next().await.is_some_and(|heard| heard.is_ok()) {} };
    let _late = timeout(visit.patience, rest).await;
}

fn dropped(visit: &Visit, asked: Option<Waits>, error: &Error) {
    if asked.is_some() {
        visit.book.lost(visit.kind, format!("no echo: {error}"));
    }
    visit.book.ended(visit.kind, End::Dropped, error);
}
