//! Where a gate is spoken to. Each gate process has a socket of its own, `gate.sock.1a2b3c4d`, and `gate.sock` is a link to
//! that of the gate which accepts clients: so the link moves in one step, and older gates that still finish requests can be
//! heard.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::BufReader;
use tokio::net::{UnixListener, UnixStream};

use super::control::FromGate;
use super::text_lines::LineReader;

/// A gate says its first word within milliseconds; one that does not is stuck, and still in the way.
const FIRST_WORD: Duration = Duration::from_secs(1);

/// The control socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Another gate answers on it.
    #[error(
        "the control socket {} belongs to a gate that runs; stop that one, replace it with `--replace`, or set another `control` path", .0.display()
    )]
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

/// Who answers on a control path.
pub(super) enum Found {
    /// Nobody.
    Nobody,
    /// A gate that accepts clients.
    Running(UnixStream),
    /// One that accepts no more.
    Leaving,
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EndpointError {
    let path = path.to_owned();
    move |source| EndpointError::Io { operation, path, source }
}

/// Looks who answers. The connection is as it was made: nothing was read from it.
pub(super) async fn look(public: &Path) -> Result<Found, EndpointError> {
    match fs::symlink_metadata(public) {
        Ok(found) if !found.file_type().is_socket() && !found.file_type().is_symlink() => {
            return Err(EndpointError::NotASocket(public.to_owned()));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nobody),
        Err(error) => return Err(failed("look at", public)(error)),
    }
    let connect = || UnixStream::connect(public);
    let stream = match connect().await {
        Ok(stream) => stream,
        Err(error) if is_dead(&error) => return Ok(Found::Nobody),
        Err(error) => return Err(failed("probe", public)(error)),
    };
    let mut lines = LineReader::new(BufReader::new(stream));
    match tokio::time::timeout(FIRST_WORD, lines.next::<FromGate>()).await {
        Ok(Ok(Some(Ok(FromGate::Report(report))))) if report.leaving => Ok(Found::Leaving),
        Ok(Ok(None) | Err(_)) => Ok(Found::Nobody),
        _ => connect().await.map(Found::Running).map_err(failed("probe", public)),
    }
}

/// Whether nobody can be behind a socket any more. Anything else that keeps from connecting says nothing about that.
pub(super) fn is_dead(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
}

/// The own sockets of other gates that live. Files that killed ones left behind are removed.
pub(super) async fn others(public: &Path, me: &Path) -> Vec<PathBuf> {
    let Some((directory, name)) = directory(public).zip(public.file_name()) else { return Vec::new() };
    let prefix = format!("{}.", name.to_string_lossy());
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut living = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        let is_socket = entry.file_type().is_ok_and(|kind| kind.is_socket());
        if path == me || !is_socket || !entry.file_name().to_string_lossy().starts_with(&prefix) {
            continue;
        }
        match UnixStream::connect(&path).await {
            Ok(_) => living.push(path),
            Err(error) if is_dead(&error) => drop(fs::remove_file(&path)),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "another gate cannot be asked yet; it is taken to live");
                living.push(path);
            }
        }
    }
    living
}

fn directory(path: &Path) -> Option<&Path> {
    path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

/// A gate's own socket, and the link to it.
pub(super) struct ControlSocket {
    pub(super) listener: UnixListener,
    pub(super) own: PathBuf,
    public: PathBuf,
}

impl ControlSocket {
    /// Makes the own socket, for this user only. The link stays as it is until [`Self::publish`].
    pub(super) fn bind(public: &Path, start_id: &str) -> Result<Self, EndpointError> {
        let own = beside(public, &start_id[..start_id.len().min(8)]);
        let listener = UnixListener::bind(&own).map_err(failed("bind", &own))?;
        fs::set_permissions(&own, fs::Permissions::from_mode(0o600)).map_err(failed("restrict", &own))?;
        Ok(Self { listener, own, public: public.to_owned() })
    }

    /// Lets the control path lead here, in one step.
    pub(super) fn publish(&self) -> Result<(), EndpointError> {
        if self.is_published() {
            return Ok(());
        }
        let aside = beside(&self.own, "link");
        let target = self.own.file_name().map_or(self.own.as_path(), Path::new);
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("clear", &aside)(error)),
            _ => {}
        }
        symlink(target, &aside).map_err(failed("link", &aside))?;
        fs::rename(&aside, &self.public).map_err(failed("put in place", &self.public))
    }

    fn is_published(&self) -> bool {
        fs::read_link(&self.public).is_ok_and(|target| target.file_name() == self.own.file_name())
    }
}

impl Drop for ControlSocket {
    /// Left behind, the files would only be replaced by the next gate.
    fn drop(&mut self) {
        if self.is_published() {
            drop(fs::remove_file(&self.public));
        }
        drop(fs::remove_file(&self.own));
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[tokio::test]
    async fn a_gate_that_cannot_be_asked_now_is_taken_to_live_and_one_that_is_dead_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        let _busy = crowded(&at("gate.sock.busy")).await;
        drop(UnixListener::bind(at("gate.sock.dead")).expect("bound"));
        assert_eq!(others(&at("gate.sock"), &at("gate.sock.me")).await, [at("gate.sock.busy")]);
        assert!(!at("gate.sock.dead").exists());
    }

    /// A listener whose queue is full, and those who wait in it.
    pub(in crate::gate) async fn crowded(path: &Path) -> (UnixListener, Vec<UnixStream>) {
        let socket = tokio::net::UnixSocket::new_stream().expect("a socket");
        socket.bind(path).expect("bound");
        let listener = socket.listen(1).expect("listens");
        let mut waiting = Vec::new();
        let error = loop {
            match UnixStream::connect(path).await {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        assert!(!is_dead(&error), "{error}");
        (listener, waiting)
    }
}
