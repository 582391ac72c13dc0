//! `GET /v1/lease?instance=ID` on the Unix socket `lease.sock`: the record of an instance, as of the question.

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use handover_proto::ids::InstanceId;
use http_body_util::Full;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, server::conn::http1};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

use super::clock::{ClockIdentity, boot_now};
use super::status::Board;

/// Owner and group: who may ask is a matter of the file's mode, which the kernel enforces.
const MODE: u32 = 0o660;

/// The socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another keeper answers there.
    #[error("{0} is in use: another agent of this service runs on this host; stop it first")]
    InUse(PathBuf),
    /// The file system refused.
    #[error("cannot listen on {path}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Opens the socket; one that an earlier process left behind is replaced.
pub(super) fn bind(path: &Path) -> Result<std::os::unix::net::UnixListener, SocketError> {
    let io = |source| SocketError::Io { path: path.to_owned(), source };
    if StdUnixStream::connect(path).is_ok() {
        return Err(SocketError::InUse(path.to_owned()));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(path).map_err(io)?;
    fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(io)?;
    listener.set_nonblocking(true).map_err(io)?;
    Ok(listener)
}

/// Answers until it is dropped.
pub(super) async fn serve(listener: UnixListener, board: watch::Receiver<Board>, clock: ClockIdentity) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(converse(stream, board.clone(), clock.clone()))),
            Err(error) => {
                tracing::warn!(error = %error, "cannot accept on lease.sock");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, board: watch::Receiver<Board>, clock: ClockIdentity) {
    let service = service_fn(|request| {
        let answer = answer(&request, &board.borrow(), &clock);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(error = %error, "a reader of lease.sock went away");
    }
}

fn answer<B>(request: &Request<B>, board: &Board, clock: &ClockIdentity) -> Response<Full<Bytes>> {
    if request.method() != Method::GET || request.uri().path() != "/v1/lease" {
        return refuse(StatusCode::NOT_FOUND, "ask GET /v1/lease?instance=ID");
    }
    let query = request.uri().query().unwrap_or_default();
    let asked = query.split('&').find_map(|pair| pair.strip_prefix("instance="));
    let Some(Ok(instance)) = asked.map(str::parse::<InstanceId>) else {
        return refuse(StatusCode::BAD_REQUEST, "name the instance: GET /v1/lease?instance=ID, 16 hexadecimal digits");
    };
    let Some((_, published)) = board.get(&instance) else {
        return refuse(StatusCode::NOT_FOUND, "this agent has no such instance running");
    };
    let Ok(now) = boot_now() else {
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, "the agent cannot read its clock");
    };
    match serde_json::to_vec(&published.record(&instance, clock, now)) {
        Ok(json) => respond(StatusCode::OK, "application/json", json),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn refuse(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    respond(status, "text/plain", format!("{text}\n").into_bytes())
}

fn respond(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
