//! Taking away versions that nobody needs any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::SystemTime;

use handover_artifact::{MANIFEST, Manifest};
use handover_proto::ids::{Service, Version};

use crate::durable::{self, DurableError};
use crate::state::State;

/// The beginning of a name that no version has: something on its way here, or out.
pub(super) const ASIDE: &str = ".handover-";

/// The versions to take away: all but those in use and the `keep` newest of the others.
pub fn doomed(staged: &BTreeMap<Version, SystemTime>, used: &BTreeSet<Version>, keep: usize) -> Vec<Version> {
    let mut idle: Vec<_> = staged.iter().filter(|(version, _)| !used.contains(version)).collect();
    idle.sort_by_key(|(version, when)| (std::cmp::Reverse(**when), (*version).clone()));
    idle.into_iter().skip(keep).map(|(version, _)| version.clone()).collect()
}

/// The service's versions in `builds` that have a manifest, and when they came. A directory that was put there by other
/// means, or that is another service's, is not ours to take away.
pub(super) fn staged(builds: &Path, service: &Service) -> io::Result<BTreeMap<Version, SystemTime>> {
    let mut staged = BTreeMap::new();
    for entry in fs::read_dir(builds)? {
        let entry = entry?;
        let version = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let came = came(&entry.path().join(MANIFEST), service);
        if let (Some(version), Some(when), true) = (version, came, entry.file_type()?.is_dir()) {
            staged.insert(version, when);
        }
    }
    Ok(staged)
}

/// When this manifest came, if it can be read and is of this service.
fn came(manifest: &Path, service: &Service) -> Option<SystemTime> {
    let parsed = Manifest::parse(&fs::read(manifest).ok()?).ok()?;
    let when = fs::metadata(manifest).and_then(|about| about.modified()).ok()?;
    (parsed.service == *service).then_some(when)
}

/// The versions that a link in `builds` points at, or a process works in.
pub(super) fn in_use(builds: &Path) -> io::Result<BTreeSet<Version>> {
    let mut used = BTreeSet::new();
    let at = fs::canonicalize(builds)?;
    let version_of = |path: &Path| {
        let first = path.strip_prefix(&at).ok()?.components().next()?;
        first.as_os_str().to_str()?.parse().ok()
    };
    for entry in fs::read_dir(builds)? {
        let entry = entry?;
        if entry.file_type()?.is_symlink() {
            // One that leads nowhere keeps nothing.
            used.extend(fs::canonicalize(entry.path()).ok().and_then(|to| version_of(&to)));
        }
    }
    for process in fs::read_dir("/proc")? {
        let process = process?.path();
        // Those that have ended, or that we may not look at, are left out; what we started ourselves is in the state file.
        let places = ["cwd", "exe"].map(|name| fs::read_link(process.join(name)).ok());
        used.extend(places.into_iter().flatten().filter_map(|place| version_of(&place)));
    }
    Ok(used)
}

/// The versions that this agent runs, is to run, or ran last.
pub(super) fn known_to_agent(state_dir: &Path) -> Result<BTreeSet<Version>, DurableError> {
    let path = state_dir.join("agent.json");
    let Some(state): Option<State> = durable::load(&path)? else { return Ok(BTreeSet::new()) };
    let running = state.instances.into_values().map(|record| record.version);
    let mut known: BTreeSet<Version> = running.chain(state.started).collect();
    // One that only a newer agent understands names versions all the same.
    let assigned = state.accepted.map(|accepted| serde_json::from_str(&accepted.text)).transpose();
    let assigned: Option<handover_proto::assignment::Assignment> =
        assigned.map_err(|source| DurableError::Foreign { path, source })?;
    known.extend(assigned.into_iter().flat_map(|assignment| assignment.slots.into_values().map(|wish| wish.version)));
    Ok(known)
}

/// Takes versions away one by one, up to the first that cannot be; what was gone by then is said, too.
pub(super) fn remove_each(builds: &Path, doomed: &[Version]) -> Result<(), String> {
    for (at, version) in doomed.iter().enumerate() {
        remove(builds, version).map_err(|error| {
            let before: Vec<&str> = doomed[..at].iter().map(Version::as_str).collect();
            let before =
                if before.is_empty() { String::new() } else { format!("; pruned before: {}", before.join(", ")) };
            format!("{}: {error}{before}", builds.join(version.as_str()).display())
        })?;
    }
    Ok(())
}

/// Takes a version away: out of sight first, so that there is never half of it.
fn remove(builds: &Path, version: &Version) -> io::Result<()> {
    let aside = builds.join(format!("{ASIDE}pruned-{version}"));
    fs::rename(builds.join(version.as_str()), &aside)?;
    remove_all(&aside)
}

/// Removes a directory whose directories may be write-protected.
pub(super) fn remove_all(dir: &Path) -> io::Result<()> {
    let mut open = vec![dir.to_owned()];
    while let Some(directory) = open.pop() {
        fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
        }
    }
    fs::remove_dir_all(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn version(text: &str) -> Version {
        text.parse().expect("a version")
    }

    fn staged(versions: &[(&str, u64)]) -> BTreeMap<Version, SystemTime> {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        versions.iter().map(|(name, seconds)| (version(name), at(*seconds))).collect()
    }

    #[test]
    fn the_oldest_go_first_and_by_time_not_by_name() {
        let all = staged(&[("1.9.0", 1), ("1.10.0", 2), ("1.11.0", 3), ("1.2.0", 4)]);
        assert_eq!(doomed(&all, &BTreeSet::new(), 2), [version("1.10.0"), version("1.9.0")]);
        assert_eq!(doomed(&all, &BTreeSet::new(), 4), []);
        assert_eq!(doomed(&all, &BTreeSet::new(), 0).len(), 4);
    }

    #[test]
    fn what_is_in_use_is_kept_and_does_not_count() {
        let all = staged(&[("1.0.0", 1), ("1.1.0", 2), ("1.2.0", 3)]);
        let used = BTreeSet::from([version("1.0.0"), version("1.2.0")]);
        assert_eq!(doomed(&all, &used, 1), []);
        assert_eq!(doomed(&all, &used, 0), [version("1.1.0")]);
    }

    #[test]
    fn an_assignment_that_cannot_be_read_is_an_error_and_not_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut file = crate::state::StateFile::open(dir.path()).expect("a state file");
        file.change(|state| state.note_start(&version("1.4.2"))).expect("changed");
        assert_eq!(known_to_agent(dir.path()).expect("read"), BTreeSet::from([version("1.4.2")]));
        let text = r#"{"v": 2, "written": "by a newer agent"}"#.to_owned();
        let accepted =
            crate::core::accept::Accepted { term: Default::default(), serial: Default::default(), text, parsed: None };
        file.change(|state| state.accepted = Some(accepted)).expect("changed");
        let error = known_to_agent(dir.path()).expect_err("nobody knows what is assigned").to_string();
        assert!(error.contains("agent.json") && error.contains("cannot be understood"), "{error}");
    }

    #[test]
    fn what_was_taken_away_before_a_failure_is_said() {
        let builds = tempfile::tempdir().expect("a directory");
        for name in ["1.0.0", "1.1.0", ".handover-pruned-1.1.0/in-the-way"] {
            fs::create_dir_all(builds.path().join(name)).expect("made");
        }
        let error = remove_each(builds.path(), &[version("1.0.0"), version("1.1.0")]).expect_err("in the way");
        assert!(error.contains("/1.1.0: ") && error.ends_with("; pruned before: 1.0.0"), "{error}");
        assert!(!builds.path().join("1.0.0").exists());
    }

    #[test]
    fn what_a_link_or_a_process_points_at_is_in_use() {
        let builds = tempfile::tempdir().expect("a directory");
        for name in ["1.0.0", "1.1.0", "1.2.0"] {
            fs::create_dir_all(builds.path().join(name).join("bin")).expect("made");
        }
        std::os::unix::fs::symlink("1.0.0/bin", builds.path().join("current@a")).expect("linked");
        std::os::unix::fs::symlink("9.9.9", builds.path().join("current@b")).expect("linked");
        let mut sleeper = std::process::Command::new("sleep")
            .arg("60")
            .current_dir(builds.path().join("1.1.0/bin"))
            .spawn()
            .expect("a process");
        let used = in_use(builds.path());
        sleeper.kill().and_then(|()| sleeper.wait()).expect("ended");
        assert_eq!(used.expect("looked"), BTreeSet::from([version("1.0.0"), version("1.1.0")]));
    }
}
