//! A WebSocket that says back what it hears, and ticks if it is asked to. When the instance closes it says so (1012, service
//! restart) and waits for the client's own word.

use std::time::Duration;

use futures_util::SinkExt;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio_stream::StreamExt;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{Closing, number};
use crate::billing::http::{Body, refused};

/// A client that does not answer our closing in this time is gone.
const CLOSE_TIME: Duration = Duration::from_secs(5);
/// Without ticks asked for, there are none.
const NEVER: Duration = Duration::from_secs(1 << 31);

/// Switches protocols; the talk goes on beside the answer.
pub(super) fn upgrade(closing: Closing, mut request: Request<Incoming>, query: &str) -> Response<Body> {
    let key = request.headers().get(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let wanted = request.headers().get(UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let Some(accept) = key.and_then(|key| key.parse().ok()).filter(|_| wanted) else {
        return refused(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket");
    };
    let tick = number(query, "tick_ms").filter(|ms| *ms > 0).map_or(NEVER, Duration::from_millis);
    closing.open.clone().spawn(async move {
        let talked = match hyper::upgrade::on(&mut request).await {
            Ok(upgraded) => {
                let io = TokioIo::new(upgraded);
                talk(WebSocketStream::from_raw_socket(io, Role::Server, None).await, closing, tick).await
            }
            Err(error) => return tracing::debug!(%error, "a client did not switch protocols"),
        };
        if let Err(error) = talked {
            tracing::debug!(%error, "a WebSocket ended early");
        }
    });
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, hyper::header::HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, hyper::header::HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

async fn talk<S>(mut socket: WebSocketStream<S>, mut closing: Closing, tick: Duration) -> Result<(), Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + tick, tick);
    let mut ticked = 0u64;
    loop {
        tokio::select! {
            heard = socket.next() => match heard {
                Some(Ok(said @ (Message::Text(_) | Message::Binary(_)))) => socket.send(said).await?,
                // Pings are answered, and a closing is closed, by the library.
                Some(Ok(_)) => {}
                Some(Err(Error::ConnectionClosed)) | None => return Ok(()),
                Some(Err(error)) => return Err(error),
            },
            _ = ticks.tick() => {
                ticked += 1;
                socket.send(Message::text(format!("tick {ticked}"))).await?;
            }
            () = closing.wait() => break,
        }
    }
    let farewell = CloseFrame { code: CloseCode::Restart, reason: "the instance stops".into() };
    socket.close(Some(farewell)).await?;
    // What the client said before it heard us is not answered; it knows from the closing that this is so.
    let rest = async { while socket.next().await.is_some_and(|heard| heard.is_ok()) {} };
    let _late = tokio::time::timeout(CLOSE_TIME, rest).await;
    Ok(())
}
