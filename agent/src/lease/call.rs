//! The call to the service: one POST of the record, one acknowledgement.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::record::{Ack, LeaseRecord};

/// An acknowledgement is a few hundred bytes.
const MAX_ACK_BYTES: usize = 64 << 10;

/// A call that brought no acknowledgement.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("no answer from http://{app}{path} within {limit:?}")]
    Late { app: SocketAddr, path: String, limit: Duration },
    #[error("cannot reach the service at {app}: {source}")]
    Connect { app: SocketAddr, source: std::io::Error },
    #[error("the call to http://{app}{path} broke off: {source}")]
    Broken { app: SocketAddr, path: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("http://{app}{path} answered with status {status}; it must answer 200 with an acknowledgement")]
    Status { app: SocketAddr, path: String, status: u16 },
    #[error("the acknowledgement of http://{app}{path} cannot be read: {source}")]
    Garbled { app: SocketAddr, path: String, source: serde_json::Error },
}

/// Posts `record` to the service and reads its answer, all within `limit`.
pub(crate) async fn post(app: SocketAddr, path: &str, record: &LeaseRecord, limit: Duration) -> Result<Ack, CallError> {
    let late = || CallError::Late { app, path: path.to_owned(), limit };
    tokio::time::timeout(limit, exchange(app, path, record)).await.unwrap_or_else(|_| Err(late()))
}

async fn exchange(app: SocketAddr, path: &str, record: &LeaseRecord) -> Result<Ack, CallError> {
    let broken =
        |source: Box<dyn std::error::Error + Send + Sync>| CallError::Broken { app, path: path.to_owned(), source };
    let garbled = |source| CallError::Garbled { app, path: path.to_owned(), source };
    let stream = TcpStream::connect(app).await.map_err(|source| CallError::Connect { app, source })?;
    stream.set_nodelay(true).map_err(|source| CallError::Connect { app, source })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(e.into()))?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(HOST, app.to_string())
        .header(CONTENT_TYPE, "application/json")
        .header(CONNECTION, "close")
        .body(Full::new(Bytes::from(serde_json::to_vec(record).map_err(garbled)?)))
        .map_err(|e| broken(e.into()))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| broken(e.into()))?;
        let status = response.status();
        if !status.is_success() {
            return Err(CallError::Status { app, path: path.to_owned(), status: status.as_u16() });
        }
        let body = Limited::new(response.into_body(), MAX_ACK_BYTES).collect().await.map_err(broken)?;
        serde_json::from_slice(&body.to_bytes()).map_err(garbled)
    };
    // The connection is driven here and not in a task of its own, so that giving up the call closes it.
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(broken(error.into())),
        },
    }
}
