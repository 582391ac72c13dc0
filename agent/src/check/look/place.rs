//! Directories, keys and ports.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::unistd::{AccessFlags, access};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};

use crate::check::facts::{Bound, Directory, DirectoryState};
use crate::config::Config;
use crate::driver::DriverSettings;

/// Those that the agent writes to; a driver of the agent's own only reads builds.
pub(super) fn directories(config: &Config) -> Vec<Directory> {
    let links = matches!(config.driver, DriverSettings::Systemd(_));
    let builds = links.then(|| ("driver.builds", config.driver.builds()));
    let own = [("state_dir", config.state_dir.as_path()), ("runtime_dir", config.runtime_dir.as_path())];
    let directory = |(field, path): (&'static str, &Path)| {
        let (there, state) = state(path);
        Directory {
            field,
            path: path.to_owned(),
            state,
            volatile: statfs(there).is_ok_and(|fs| fs.filesystem_type() == TMPFS_MAGIC),
        }
    };
    own.into_iter().chain(builds).map(directory).collect()
}

/// The nearest directory that is there, and how the wanted one is.
fn state(path: &Path) -> (&Path, DirectoryState) {
    let writable = |dir: &Path| access(dir, AccessFlags::W_OK | AccessFlags::X_OK).is_ok();
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => (path, DirectoryState::NoDirectory),
        Ok(_) if writable(path) => (path, DirectoryState::Writable),
        Ok(_) => (path, DirectoryState::Locked),
        Err(_) => {
            let above = path.ancestors().skip(1).find(|above| above.is_dir()).unwrap_or(Path::new("/"));
            (above, if writable(above) { DirectoryState::CanBeMade } else { DirectoryState::Missing })
        }
    }
}

/// Private keys that the config names.
pub(super) fn keys(config: &Config) -> Vec<(PathBuf, u32)> {
    let all = [config.tls.as_ref().map(|tls| &tls.key), config.store.tls.as_ref().map(|tls| &tls.key)];
    let gate = config.gate.as_ref().and_then(|gate| gate.tls.as_ref()).map(|tls| &tls.key);
    let mode = |path: &PathBuf| Some((path.clone(), fs::metadata(path).ok()?.permissions().mode() & 0o777));
    all.into_iter().flatten().chain(gate).filter_map(mode).collect()
}

/// Whether somebody listens on a Unix socket.
pub(super) fn answers(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// Binds without listening, so that no client can connect meanwhile.
pub(super) fn try_bind(address: SocketAddr) -> Bound {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let tried = socket(family, SocketType::STREAM, None).and_then(|socket| {
        // As every listener of ours has it: connections of before that still fade away are nobody's.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &address)
    });
    match tried {
        Ok(()) => Bound::Free,
        Err(Errno::ADDRINUSE) => Bound::InUse,
        Err(Errno::ADDRNOTAVAIL) => Bound::NotHere,
        Err(Errno::ACCESS | Errno::PERM) => Bound::Denied,
        Err(errno) => Bound::Failed(io::Error::from(errno).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_is_free_taken_or_not_of_this_host() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("its address");
        assert_eq!(try_bind(address), Bound::InUse);
        drop(listener);
        assert_eq!(try_bind(address), Bound::Free);
        // Of a range that is for documents only.
        assert_eq!(try_bind("192.0.2.1:1".parse().expect("an address")), Bound::NotHere);
    }

    #[test]
    fn a_directory_is_there_can_be_made_or_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(state(dir.path()).1, DirectoryState::Writable);
        assert_eq!(state(&dir.path().join("a/b")), (dir.path(), DirectoryState::CanBeMade));
        fs::write(dir.path().join("file"), "").expect("written");
        assert_eq!(state(&dir.path().join("file")).1, DirectoryState::NoDirectory);
    }
}
