//! The Unix socket `lease.sock`, where a service asks for its record and, in pull mode, acknowledges it.
//!
//! The road: [`peer`] (who may) → [`question`] (what is asked) → [`desk`] (the answer).

pub(super) mod desk;
pub mod peer;
pub mod question;

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use desk::Desk;
use peer::Peer;

/// Its name in the runtime directory.
pub const NAME: &str = "lease.sock";
/// Owner and group, for a start; who may ask is then decided by the peer's credentials.
const MODE: u32 = 0o660;
/// Where the config names users of slots: the kernel lets everybody connect, and the credentials decide alone.
const MODE_FOR_OTHERS: u32 = 0o666;
/// Connections at once: a service needs one or two, a host has few slots, and each costs a few kilobytes.
pub const MAX_CONNECTIONS: usize = 64;
/// And so many of peers whom nothing is answered: they are told so, and take nobody's place.
const MAX_STRANGERS: usize = 4;
/// The least that hyper takes; a record is below 1 KiB.
const MAX_BUFFER_BYTES: usize = 8 << 10;

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
pub(super) fn bind(path: &Path, for_others: bool) -> Result<std::os::unix::net::UnixListener, SocketError> {
    let io = |source| SocketError::Io { path: path.to_owned(), source };
    if StdUnixStream::connect(path).is_ok() {
        return Err(SocketError::InUse(path.to_owned()));
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(path).map_err(io)?;
    fs::set_permissions(path, Permissions::from_mode(if for_others { MODE_FOR_OTHERS } else { MODE })).map_err(io)?;
    listener.set_nonblocking(true).map_err(io)?;
    Ok(listener)
}

/// Answers until it is dropped.
pub(super) async fn serve(listener: UnixListener, desk: Desk) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let for_strangers = Arc::new(Semaphore::new(MAX_STRANGERS));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Some(peer) = peer_of(&stream) else { continue };
                let (places, limit) = match desk.callers.check(peer, None) {
                    Ok(()) => (&room, MAX_CONNECTIONS),
                    Err(_) => (&for_strangers, MAX_STRANGERS),
                };
                match Arc::clone(places).try_acquire_owned() {
                    Ok(permit) => {
                        let desk = desk.clone();
                        drop(tokio::spawn(async move {
                            converse(stream, peer, desk).await;
                            drop(permit);
                        }));
                    }
                    Err(_) => turn_away(&stream, limit),
                }
            }
            Err(error) => {
                tracing::warn!(error = %error, "cannot accept on lease.sock");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Says why there is no answer, without waiting for the question.
fn turn_away(stream: &UnixStream, limit: usize) {
    let text = format!("{limit} connections are open to lease.sock, and no more are taken; close some\n");
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
        text.len()
    );
    tracing::warn!(limit, "turned somebody away from lease.sock: too many connections");
    // A fresh socket's buffer has room for it; a peer that is gone already does not miss it.
    drop(stream.try_write(answer.as_bytes()));
}

fn peer_of(stream: &UnixStream) -> Option<Peer> {
    match stream.peer_cred() {
        Ok(cred) => Some(Peer { uid: cred.uid(), gid: cred.gid(), pid: cred.pid() }),
        Err(error) => {
            tracing::warn!(error = %error, "cannot tell who asks on lease.sock");
            None
        }
    }
}

async fn converse(stream: UnixStream, peer: Peer, desk: Desk) {
    let service = service_fn(|request| {
        let desk = &desk;
        async move { Ok::<_, Infallible>(desk.answer(peer, request).await) }
    });
    let mut http = http1::Builder::new();
    // A slow reader of a stream holds this much of it, and the kernel's buffer: after that, only the newest counts.
    http.timer(TokioTimer::new()).max_buf_size(MAX_BUFFER_BYTES);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(error = %error, "a reader of lease.sock went away");
    }
}
