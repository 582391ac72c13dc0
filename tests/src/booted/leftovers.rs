//! What test programs that were killed have left: their names say whose they are.

use std::path::{Path, PathBuf};

use super::cgroups;

const PREFIX: &str = "handover-booted-";

/// What the names of this process's things begin with.
pub(super) fn prefix() -> String {
    format!("{PREFIX}{}-", std::process::id())
}

/// Removes what nobody uses any more.
pub(super) fn remove() {
    cgroups::clean_leftovers();
    for path in in_directory(&std::env::temp_dir()) {
        if let Err(error) = std::fs::remove_dir_all(&path) {
            eprintln!("booted hosts: {} cannot be removed: {error}", path.display());
        }
    }
}

/// The leftovers in a directory.
pub(super) fn in_directory(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_str().is_some_and(is_left)).map(|entry| entry.path()).collect()
}

fn is_left(name: &str) -> bool {
    let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
    owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_process_of_ours_had_is_a_leftover() {
        // Greater than any number that the kernel gives out.
        assert!(is_left("handover-booted-4194305-0"));
        assert!(!is_left(&format!("{}0", prefix())), "it is our own");
        assert!(!is_left("handover-booted-x") && !is_left("somebody-elses"));
    }
}
