//! One staging at a time works in a directory.

use std::fs::File;
use std::io;
use std::path::Path;

use handover_proto::ids::Version;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::prune::ASIDE;
use super::stage::{StageError, disk};

/// Until dropped, no other staging works in this directory.
pub(super) fn alone(builds: &Path, version: &Version) -> Result<Flock<File>, StageError> {
    let path = builds.join(format!("{ASIDE}stage.lock"));
    let file = File::create(&path).map_err(disk("open", &path))?;
    let refused = |(_, errno)| refused(errno, builds, version, &path);
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(refused)
}

/// Only one of the kernel's reasons passes by itself.
fn refused(errno: Errno, builds: &Path, version: &Version, lock: &Path) -> StageError {
    match errno {
        Errno::EWOULDBLOCK => StageError::Busy { version: version.clone(), builds: builds.to_owned() },
        other => disk("lock", lock)(io::Error::from(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_cannot_lock_is_not_another_staging() {
        let dir = tempfile::tempdir().expect("a directory");
        let version = "1.5.0".parse().expect("a version");
        let lock = dir.path().join("lock");
        let held = alone(dir.path(), &version).expect("nobody else");
        let busy = alone(dir.path(), &version).expect_err("somebody else");
        assert!(matches!(busy, StageError::Busy { .. }), "{busy}");
        assert!(busy.to_string().contains("shares this directory"), "{busy}");
        drop(held);
        let error = refused(Errno::ENOLCK, dir.path(), &version, &lock);
        assert!(matches!(error, StageError::Disk { operation: "lock", .. }), "{error}");
    }
}
