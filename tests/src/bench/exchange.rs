//! HTTP exchanges over a connection that we hold in hand.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A connection, driven by a task of the runtime that it was opened on.
pub(super) struct Connection {
    to: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
}

/// A whole answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Connection {
    pub(super) async fn open(to: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(to).await.with_context(|| format!("cannot connect to {to}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // How it ends shows in the exchange that it breaks.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { to, sender })
    }

    pub(super) async fn exchange(&mut self, method: Method, path: &str, body: Vec<u8>) -> Result<Answer> {
        let request = Request::builder().method(method).uri(path).header(hyper::header::HOST, self.to.to_string());
        let request = request.body(Full::new(Bytes::from(body)))?;
        self.sender.ready().await?;
        let (head, body) = self.sender.send_request(request).await?.into_parts();
        Ok(Answer { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() })
    }
}

/// One exchange over a connection of its own.
pub(super) async fn once(to: SocketAddr, method: Method, path: &str, body: Vec<u8>) -> Result<Answer> {
    Connection::open(to).await?.exchange(method, path, body).await
}
