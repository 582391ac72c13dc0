//! The gate's end of the control socket.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::BufReader;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::control::{FromGate, GateReport, Refusal, ToGate};
use super::report;
use super::text_lines::{self, LineReader};
use super::ticket::Gate;

/// The control socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Another gate answers on it.
    #[error("the control socket {} belongs to a gate that runs; stop that one, or set another `control` path", .0.display())]
    InUse(PathBuf),
    /// Something that is no socket is in the way.
    #[error("{} is no socket, so it is not replaced; move it away, or set another `control` path", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot {operation} the control socket {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Makes the socket, for this user only. A socket file that nobody answers on is left from a killed gate: it is replaced.
pub(super) async fn bind(path: &Path) -> Result<UnixListener, EndpointError> {
    let failed = |operation| move |source| EndpointError::Io { operation, path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(EndpointError::NotASocket(path.to_owned())),
        Ok(_) => match UnixStream::connect(path).await {
            Ok(_) => return Err(EndpointError::InUse(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(failed("remove the stale file of"))?;
            }
            Err(source) => return Err(failed("probe")(source)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(failed("look at")(source)),
    }
    let listener = UnixListener::bind(path).map_err(failed("bind"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed("restrict"))?;
    Ok(listener)
}

/// Talks to every agent that connects. There is one as a rule; while it is replaced there may be two, and sequence numbers
/// keep the older from undoing the newer.
pub(super) async fn serve(listener: Arc<UnixListener>, gate: Arc<Gate>, reports: watch::Sender<GateReport>) {
    let mut agents = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    agents.spawn(talk(stream, Arc::clone(&gate), reports.subscribe()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an agent");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(ended) = agents.join_next(), if !agents.is_empty() => match ended {
                Ok(Ok(())) => tracing::info!("agent disconnected; the routes stay as they are"),
                Ok(Err(error)) => tracing::warn!(%error, "agent connection broke; the routes stay as they are"),
                Err(error) => tracing::error!(%error, "the task of an agent connection ended"),
            },
        }
    }
}

async fn talk(mut stream: UnixStream, gate: Arc<Gate>, mut reports: watch::Receiver<GateReport>) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut lines = LineReader::new(BufReader::new(read));
    reports.mark_unchanged();
    text_lines::write(&mut write, &FromGate::Report(report::now(&gate))).await?;
    loop {
        tokio::select! {
            line = lines.next::<ToGate>() => {
                let Some(line) = line? else { return Ok(()) };
                if let Err(refusal) = obey(&gate, line) {
                    tracing::warn!(%refusal, "refused a line from the agent");
                    text_lines::write(&mut write, &FromGate::Refused(refusal)).await?;
                }
            }
            changed = reports.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let report = reports.borrow_and_update().clone();
                text_lines::write(&mut write, &FromGate::Report(report)).await?;
            }
        }
    }
}

fn obey(gate: &Gate, line: Result<ToGate, serde_json::Error>) -> Result<(), Refusal> {
    match line {
        Ok(ToGate::State(state)) => gate.apply(state),
        Err(error) => Err(Refusal::Unreadable { reason: error.to_string() }),
    }
}
