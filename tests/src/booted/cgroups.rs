//! The cgroups of booted hosts: where a host's PID 1 is found, and all that could be left of a site.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::leftovers;

const ROOT: &str = "/sys/fs/cgroup";

/// Those of one site.
#[derive(Debug, Clone)]
pub(super) struct Cgroups {
    name: String,
}

impl Cgroups {
    /// The name says whose they are, so that those of a dead process can be told.
    pub(super) fn new(number: u32) -> Self {
        Self { name: format!("{}{number}", leftovers::prefix()) }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The PID 1 of a host, by its number here; none while it does not run. Only a systemd that has come up is in there.
    pub(super) fn leader(&self, number: u8) -> Option<Pid> {
        let init = format!("{}/{number}/payload/init.scope/cgroup.procs", self.name);
        let found = trees().into_iter().find_map(|tree| std::fs::read_to_string(tree.join(&init)).ok())?;
        found.lines().next()?.parse().ok().map(Pid::from_raw)
    }

    pub(super) fn remove(&self) {
        for tree in trees() {
            remove(&tree.join(&self.name));
        }
    }
}

/// cgroup v2 alone, or beside the hierarchies of v1: then systemd has one of those as well.
fn trees() -> Vec<PathBuf> {
    let mixed = ["unified", "systemd"].map(|tree| Path::new(ROOT).join(tree));
    if mixed[0].is_dir() { mixed.to_vec() } else { vec![ROOT.into()] }
}

/// Removes those of test programs that are no more.
pub(super) fn clean_leftovers() {
    for tree in trees() {
        for path in leftovers::in_directory(&tree) {
            remove(&path);
        }
    }
}

/// Ends what is still in it, and removes it with everything below.
fn remove(dir: &Path) {
    for _ in 0..250 {
        if !dir.exists() {
            return;
        }
        sweep(dir);
        if dir.exists() {
            // The last process is on its way out of it.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    eprintln!("booted hosts: {} cannot be removed", dir.display());
}

fn sweep(dir: &Path) {
    let procs = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    // 0 would be a process of another PID namespace than ours, and to `kill` our own group.
    for pid in procs.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1) {
        let _ended_already = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            sweep(&entry.path());
        }
    }
    let _still_busy = std::fs::remove_dir(dir);
}
