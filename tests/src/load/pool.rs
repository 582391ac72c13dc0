//! Keep-alive connections to one gate.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::load::outcome::Outcome;

type Sender = SendRequest<Full<Bytes>>;

/// A request that got no whole answer.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) outcome: Outcome,
    pub(super) detail: String,
}

impl Broken {
    fn reset(error: &hyper::Error) -> Self {
        // hyper's own text names the kind only; the cause says what the socket said.
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Self { outcome: Outcome::Reset, detail: format!("{error}{cause}") }
    }

    fn connecting(error: &std::io::Error) -> Self {
        let refused = error.kind() == std::io::ErrorKind::ConnectionRefused;
        let outcome = if refused { Outcome::Refused } else { Outcome::Reset };
        Self { outcome, detail: format!("connecting: {error}") }
    }
}

/// A whole answer; the body was read to its end.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Kept connections that turned out to be closed on the way.
    pub(super) stale: u64,
}

/// Connections to one gate: idle ones are used last in, first out.
pub(super) struct Pool {
    gate: SocketAddr,
    idle: Mutex<Vec<Sender>>,
    permits: Semaphore,
}

impl Pool {
    pub(super) fn new(gate: SocketAddr, max_connections: usize) -> Self {
        Self { gate, idle: Mutex::new(Vec::new()), permits: Semaphore::new(max_connections) }
    }

    pub(super) fn gate(&self) -> SocketAddr {
        self.gate
    }

    fn take(&self) -> Option<Sender> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn give_back(&self, sender: Sender) {
        if !sender.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        }
    }

    /// Sends once and reads the whole answer.
    ///
    /// A kept connection may have been closed by the gate while it was idle. As long as hyper hands the request back
    /// untouched, not one byte of it was sent, and it goes on another connection; that is no second try. From the first
    /// byte on there is none.
    pub(super) async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Answer, Broken> {
        let closed = |_| Broken { outcome: Outcome::Reset, detail: "the load is ending".to_owned() };
        let _permit = self.permits.acquire().await.map_err(closed)?;
        let mut stale = 0;
        while let Some(mut kept) = self.take() {
            if kept.ready().await.is_err() {
                stale += 1;
                continue;
            }
            match kept.try_send_request(request).await {
                Ok(response) => return self.finish(kept, response, stale).await,
                Err(mut error) => match error.take_message() {
                    Some(unsent) => {
                        stale += 1;
                        request = unsent;
                    }
                    None => return Err(Broken::reset(error.error())),
                },
            }
        }
        let mut fresh = self.connect().await?;
        let response = fresh.send_request(request).await.map_err(|error| Broken::reset(&error))?;
        self.finish(fresh, response, stale).await
    }

    async fn connect(&self) -> Result<Sender, Broken> {
        let stream = TcpStream::connect(self.gate).await.map_err(|error| Broken::connecting(&error))?;
        stream.set_nodelay(true).map_err(|error| Broken::connecting(&error))?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| Broken::reset(&error))?;
        // Its error reaches the request that was on it; without one nobody is concerned.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    async fn finish(
        &self,
        sender: Sender,
        response: hyper::Response<hyper::body::Incoming>,
        stale: u64,
    ) -> Result<Answer, Broken> {
        let (head, body) = response.into_parts();
        body.collect().await.map_err(|error| Broken::reset(&error))?;
        self.give_back(sender);
        Ok(Answer { status: head.status, headers: head.headers, stale })
    }
}
