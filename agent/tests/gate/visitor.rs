//! Clients of a gate.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::bench::PATIENCE;

/// A client that keeps its one connection.
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
}

/// An answer whose body has been read.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    /// The header `name`, or nothing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("connected")).await
    }

    pub(crate) async fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("nodelay");
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("http");
        tokio::spawn(connection);
        Self { sender }
    }

    /// Sends, and hands back the head with a body that is still to come.
    pub(crate) async fn begin(&mut self, method: Method, path: &str, body: &str) -> hyper::Result<Response<Incoming>> {
        let body = Full::new(Bytes::copy_from_slice(body.as_bytes()));
        let request = Request::builder().method(method).uri(path).header("host", "test").body(body).expect("a request");
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }

    pub(crate) async fn send(&mut self, method: Method, path: &str, body: &str) -> hyper::Result<Answer> {
        read(self.begin(method, path, body).await?).await
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, "").await.expect("an answer")
    }

    pub(crate) async fn post(&mut self, path: &str) -> Answer {
        self.send(Method::POST, path, "a body").await.expect("an answer")
    }

    /// Whether the connection can carry another request.
    pub(crate) async fn is_open(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }
}

/// Reads the rest of an answer.
pub(crate) async fn read(response: Response<Incoming>) -> hyper::Result<Answer> {
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

/// One GET on a connection of its own, as a task.
pub(crate) fn get(address: SocketAddr, path: &str) -> JoinHandle<Answer> {
    let path = path.to_owned();
    tokio::spawn(async move { Client::connect(address).await.get(&path).await })
}

/// Bytes as they are: writes them, and reads until the other side closes.
pub(crate) async fn raw(address: SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    stream.write_all(bytes.as_bytes()).await.expect("written");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the gate closes");
    // A reset after the answer is the close, too.
    let _ = read;
    String::from_utf8_lossy(&answer).into_owned()
}
