//! The cgroup of a unit: the one thing that no descendant leaves by itself, however it was started. An instance is dead
//! when its cgroup is empty (`SAFETY.md` §1.10, I5). Asked and killed directly in the kernel: neither waits for D-Bus.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::driver::kernel;

/// A unit's cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cgroup {
    dir: PathBuf,
    /// Where the kernel says how much memory it may have: in itself, or in the hierarchy of v1 that has the controller.
    memory_limits: [PathBuf; 2],
}

impl Cgroup {
    /// By the path that systemd gives (`ControlGroup`), which begins with a slash.
    pub(super) fn of(path: &str) -> Self {
        let path = path.trim_start_matches('/');
        let v1 = Path::new(ROOT).join("memory").join(path);
        Self::at(tree().join(path), v1)
    }

    /// The same at these places.
    pub(super) fn at(dir: PathBuf, v1: PathBuf) -> Self {
        let memory_limits = [dir.join("memory.max"), v1.join("memory.limit_in_bytes")];
        Self { dir, memory_limits }
    }

    /// Whether the kernel lets it have no more memory than so many bytes. It keeps whole pages, and so perhaps fewer.
    pub(super) fn is_kept_within(&self, bytes: u64) -> bool {
        let kept = |file: &PathBuf| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
        self.memory_limits.iter().filter_map(kept).any(|kept| kept <= bytes)
    }

    /// No process is in it, nor in one below. One that is no more is empty: a cgroup with processes cannot be removed.
    pub(super) fn is_empty(&self) -> io::Result<bool> {
        Ok(self.processes()?.is_empty())
    }

    /// Every process in it and below.
    pub(super) fn processes(&self) -> io::Result<Vec<i32>> {
        let mut found = Vec::new();
        collect(&self.dir, &mut found)?;
        Ok(found)
    }

    /// SIGKILL to every process in it and below, also to frozen ones. True if there was one.
    pub(super) fn kill(&self) -> io::Result<bool> {
        // In one step where the kernel can (5.14 and v2): nothing is forked past it.
        if fs::write(self.dir.join("cgroup.kill"), "1").is_ok() {
            return Ok(!self.is_empty()?);
        }
        let processes = self.processes()?;
        for pid in &processes {
            // Its handle means this process; by now it may have ended, and the number be a stranger's: looked at again.
            let Ok(handle) = kernel::open(*pid) else { continue };
            if self.processes()?.contains(pid) {
                kernel::send(&handle, Signal::KILL)?;
            }
        }
        Ok(!processes.is_empty())
    }
}

fn collect(dir: &Path, found: &mut Vec<i32>) -> io::Result<()> {
    let procs = match fs::read_to_string(dir.join("cgroup.procs")) {
        Ok(procs) => procs,
        // Removed, before we opened it or since.
        Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ENODEV) => return Ok(()),
        Err(error) => return Err(error),
    };
    found.extend(procs.lines().filter_map(|line| line.parse::<i32>().ok()));
    let below = match fs::read_dir(dir) {
        Ok(below) => below,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in below.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found)?;
        }
    }
    Ok(())
}

/// Where cgroups are mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// What reading a file of a cgroup says that is removed meanwhile.
const ENODEV: i32 = 19;

/// Where systemd keeps its cgroups: v2 alone, or beside the hierarchies of v1, there in a v2 of its own or a named v1.
fn tree() -> PathBuf {
    let root = Path::new(ROOT);
    let places = [root.to_owned(), root.join("unified"), root.join("systemd")];
    places.into_iter().find(|place| place.join("cgroup.procs").exists()).unwrap_or_else(|| root.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_found_at_any_depth_and_a_cgroup_that_is_gone_is_empty() {
        let dir = tempfile::tempdir().expect("a directory");
        let below = dir.path().join("below/deeper");
        fs::create_dir_all(&below).expect("made");
        for (at, text) in [(dir.path(), ""), (&dir.path().join("below"), ""), (&below, "")] {
            fs::write(at.join("cgroup.procs"), text).expect("written");
        }
        let cgroup = Cgroup::at(dir.path().to_owned(), PathBuf::new());
        assert!(cgroup.is_empty().expect("read"));
        fs::write(below.join("cgroup.procs"), "12\n7\n").expect("written");
        assert_eq!(cgroup.processes().expect("read"), [12, 7]);
        assert!(Cgroup::at(dir.path().join("none"), PathBuf::new()).is_empty().expect("read"));
    }

    #[test]
    fn whether_the_kernel_keeps_a_limit_is_read_where_the_controller_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let (v2, v1) = (dir.path().join("v2"), dir.path().join("v1"));
        let cgroup = Cgroup::at(v2.clone(), v1.clone());
        for place in [&v2, &v1] {
            fs::create_dir(place).expect("made");
        }
        assert!(!cgroup.is_kept_within(8192), "no controller");
        fs::write(v2.join("memory.max"), "max\n").expect("written");
        fs::write(v1.join("memory.limit_in_bytes"), "9223372036854771712\n").expect("written");
        assert!(!cgroup.is_kept_within(8192), "no limit");
        fs::write(v2.join("memory.max"), "8192\n").expect("written");
        assert!(cgroup.is_kept_within(8192) && cgroup.is_kept_within(8193) && !cgroup.is_kept_within(8191));
        fs::remove_file(v2.join("memory.max")).expect("removed");
        fs::write(v1.join("memory.limit_in_bytes"), "8192\n").expect("written");
        assert!(cgroup.is_kept_within(8192));
    }
}
