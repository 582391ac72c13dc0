//! What a unit finds when it is started: the variables of its slot, and the link to its version.
//!
//! Both are renamed into place, so that a unit never sees half of one. The variables are in the runtime directory: after
//! a boot there are none, and a unit cannot start before the agent has said what it is to run, and as which instance.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Puts the variables into the file that the unit names as `EnvironmentFile=`.
pub(super) fn write_variables(path: &Path, variables: &[(String, String)]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let aside = beside(path);
    fs::write(&aside, render(variables))?;
    fs::rename(&aside, path)
}

/// Points the link at a version's directory, whatever it pointed at before.
pub(super) fn link(link: &Path, version: &Path) -> io::Result<()> {
    let aside = beside(link);
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::os::unix::fs::symlink(version, &aside)?;
    fs::rename(&aside, link)
}

/// The version that a link points at: the name of the directory.
pub(super) fn linked(link: &Path) -> Option<String> {
    Some(fs::read_link(link).ok()?.file_name()?.to_str()?.to_owned())
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

/// As systemd reads it: systemd.exec(5), `EnvironmentFile=`. Within double quotes a backslash protects these four, and a
/// line's end is kept.
pub(super) fn render(variables: &[(String, String)]) -> String {
    let mut text = String::from("# Written by handover-agent before each start of this slot.\n");
    for (name, value) in variables {
        let mut quoted = String::new();
        for c in value.chars() {
            if matches!(c, '"' | '\\' | '`' | '$') {
                quoted.push('\\');
            }
            quoted.push(c);
        }
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name}=\"{quoted}\"");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_to_systemd_is_protected() {
        let text = render(&[("A".into(), "plain word".into()), ("B".into(), r#"a"b\c$d`e"#.into())]);
        assert!(text.ends_with("A=\"plain word\"\nB=\"a\\\"b\\\\c\\$d\\`e\"\n"), "{text}");
    }

    #[test]
    fn a_link_is_moved_from_version_to_version_in_one_step() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = dir.path().join("current@a");
        assert_eq!(linked(&at), None);
        for version in ["1.4.2", "1.5.0", "1.5.0"] {
            link(&at, &dir.path().join(version)).expect("linked");
            assert_eq!(linked(&at).as_deref(), Some(version));
        }
        let left = fs::read_dir(dir.path()).expect("listed").count();
        assert_eq!(left, 1, "nothing is left beside the link");
    }

    #[test]
    fn variables_are_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("slots/a.env");
        write_variables(&path, &[("PORT".into(), "8081".into())]).expect("written");
        assert!(fs::read_to_string(&path).expect("read").contains("PORT=\"8081\""));
        assert!(!dir.path().join("slots/a.env.new").exists());
    }
}
