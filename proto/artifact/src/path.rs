//! Where a file is within its artifact.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A relative path of plain names with `/` between them: it cannot lead out of its directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EntryPath(String);

/// A path that no file of an artifact can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be a file's path in an artifact: use names in UTF-8 without control characters, with / between them, and \
     neither . nor .. among them"
)]
pub struct PathError(String);

impl EntryPath {
    /// As it stands in the manifest.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its names, from the top.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The file under `directory`.
    pub fn under(&self, directory: &Path) -> PathBuf {
        directory.join(&self.0)
    }

    /// Whether a symbolic link here with this text stays within the artifact, whatever other such links do: it may lead up only
    /// at its beginning, from where it is. A name may be a link itself, and what is above where that leads is another place.
    pub fn keeps_inside(&self, target: &str) -> bool {
        let (mut depth, mut named) = (self.names().count() - 1, false);
        for part in Path::new(target).components() {
            match part {
                Component::Normal(_) => named = true,
                Component::CurDir => {}
                Component::ParentDir if depth > 0 && !named => depth -= 1,
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
            }
        }
        !target.is_empty()
    }
}

impl TryFrom<String> for EntryPath {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        let plain = |name: &str| !matches!(name, "" | "." | "..") && !name.contains(char::is_control);
        if text.split('/').all(plain) { Ok(Self(text)) } else { Err(PathError(text)) }
    }
}

impl FromStr for EntryPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::try_from(text.to_owned())
    }
}

impl From<EntryPath> for String {
    fn from(path: EntryPath) -> Self {
        path.0
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_leads_out_of_its_directory() {
        for bad in ["", "/etc/passwd", "../a", "a/../b", "a//b", "./a", "a/", "a\nb"] {
            assert!(bad.parse::<EntryPath>().is_err(), "{bad:?}");
        }
        for good in ["a", "bin/billing", "site/[id].js", "lib/ä b"] {
            assert_eq!(good.parse::<EntryPath>().expect(good).as_str(), good);
        }
    }

    #[test]
    fn a_link_may_point_about_within_the_artifact_only() {
        let link: EntryPath = "lib/x/current".parse().expect("a path");
        for inside in ["y", "./y", "../z", "../../bin/run", "../..", "./../z/a"] {
            assert!(link.keeps_inside(inside), "{inside}");
        }
        for outside in ["", "/bin/sh", "../../../etc", "y/../../../../etc", "y/../z"] {
            assert!(!link.keeps_inside(outside), "{outside}");
        }
    }

    #[test]
    fn a_link_does_not_leave_its_artifact_through_another_one() {
        // With `here` a link to its own directory, each name before the dots stays where it is.
        let links: [(EntryPath, &str); 2] =
            [("here".parse().expect("a path"), "."), ("x".parse().expect("a path"), "here/here/../../etc/passwd")];
        assert!(!links.iter().all(|(path, target)| path.keeps_inside(target)));
    }
}
