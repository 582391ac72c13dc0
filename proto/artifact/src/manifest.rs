//! What an artifact says of itself.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use handover_proto::ids::{Service, Version};
use semver::VersionReq;
use serde::{Deserialize, Serialize};

use crate::path::EntryPath;

/// The manifest's name in the artifact's directory.
pub const MANIFEST: &str = "handover-manifest.json";

/// Its signature's, beside it.
pub const SIGNATURE: &str = "handover-manifest.json.minisig";

/// The form that this code writes and reads.
const FORM: u32 = 1;

/// What an artifact says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the form.
    pub v: u32,
    /// Of which service it is.
    pub service: Service,
    /// Which version it is; its directory has the same name.
    pub version: Version,
    /// The commit it was built from; empty: not said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub commit: String,
    /// When it was built, RFC 3339.
    pub built: String,
    /// The versions that may run beside it, any of these ranges; empty: nothing is said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub compatible_with: Vec<Range>,
    /// The database schema that it needs; empty: not said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub schema_version: String,
    /// Release notes, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub notes: String,
    /// Everything in the directory but the manifest and its signature.
    pub files: BTreeMap<EntryPath, Entry>,
}

/// One file, or one link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Entry {
    /// A file with this content.
    File {
        /// SHA-256 of it, hexadecimal.
        sha256: String,
        /// Its length.
        size_bytes: u64,
        /// Whether it may be run.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        executable: bool,
    },
    /// A symbolic link to something within the artifact.
    Link {
        /// Its text.
        target: String,
    },
}

/// A range of versions, such as `>=1.4, <2` (semver).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Range {
    text: String,
    parsed: VersionReq,
}

/// A manifest that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is not JSON of the right shape.
    #[error("its content cannot be understood ({0}); write it again with `handover artifact pack`")]
    Form(#[from] serde_json::Error),
    /// A newer `handover` wrote it.
    #[error("it has form {0}, and this program knows form {FORM}; upgrade Handover here first")]
    TooNew(u32),
    /// A link leads out of the artifact.
    #[error("its link {path} leads to {target:?}, outside of the artifact; pack a copy of what it leads to")]
    LinkOutside {
        /// Which.
        path: EntryPath,
        /// Where to.
        target: String,
    },
    /// A file has the name of another one's directory, or of the manifest itself.
    #[error("its file {0} stands in the way of another one; pack it again")]
    InTheWay(EntryPath),
}

/// A text that is no range of versions.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is not a range of versions ({source}); write one such as \">=1.4, <2\"")]
pub struct RangeError {
    text: String,
    source: semver::Error,
}

impl Manifest {
    /// A manifest of these files, about which nothing else is said yet.
    pub fn of(service: Service, version: Version, built: String, files: BTreeMap<EntryPath, Entry>) -> Self {
        Self {
            v: FORM,
            service,
            version,
            commit: String::new(),
            built,
            compatible_with: Vec::new(),
            schema_version: String::new(),
            notes: String::new(),
            files,
        }
    }

    /// Reads a manifest file's content.
    ///
    /// # Errors
    /// [`ManifestError`] with the first thing that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Form {
            v: u32,
        }
        let form: Form = serde_json::from_slice(bytes)?;
        if form.v != FORM {
            return Err(ManifestError::TooNew(form.v));
        }
        let manifest: Self = serde_json::from_slice(bytes)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// As it is written to the file.
    ///
    /// # Errors
    /// When something in it cannot stand in a manifest.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        self.check()?;
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    fn check(&self) -> Result<(), ManifestError> {
        for (path, entry) in &self.files {
            let (path_text, above) = (path.as_str(), path.as_str().match_indices('/').map(|(at, _)| at));
            let blocked = above.map(|at| &path_text[..at]).find_map(|dir| self.files.get_key_value(&dir.parse().ok()?));
            if let Some((file, _)) = blocked {
                return Err(ManifestError::InTheWay(file.clone()));
            }
            if [MANIFEST, SIGNATURE].contains(&path.as_str()) {
                return Err(ManifestError::InTheWay(path.clone()));
            }
            match entry {
                Entry::Link { target } if !path.keeps_inside(target) => {
                    return Err(ManifestError::LinkOutside { path: path.clone(), target: target.clone() });
                }
                Entry::File { .. } | Entry::Link { .. } => {}
            }
        }
        Ok(())
    }

    /// Length of all its files together, in bytes.
    pub fn size_bytes(&self) -> u64 {
        let sizes = self.files.values().map(|entry| match entry {
            Entry::File { size_bytes, .. } => *size_bytes,
            Entry::Link { .. } => 0,
        });
        sizes.fold(0, u64::saturating_add)
    }

    /// Whether both may serve at once. One that says nothing of others lets the other one judge; of two that say something
    /// one has to know the other: the older one cannot know of the newer.
    pub fn may_run_beside(&self, other: &Self) -> bool {
        let silent = |one: &Self| one.compatible_with.is_empty();
        let knows = |one: &Self, other: &Self| one.compatible_with.iter().any(|range| range.holds(&other.version));
        self.version == other.version || (silent(self) && silent(other)) || knows(self, other) || knows(other, self)
    }
}

impl Range {
    /// Whether this version is in it. One that is not `MAJOR.MINOR.PATCH` is in none.
    pub fn holds(&self, version: &Version) -> bool {
        let version = version.as_str().strip_prefix('v').unwrap_or(version.as_str());
        semver::Version::parse(version).is_ok_and(|version| self.parsed.matches(&version))
    }
}

impl TryFrom<String> for Range {
    type Error = RangeError;

    fn try_from(text: String) -> Result<Self, RangeError> {
        match VersionReq::parse(&text) {
            Ok(parsed) => Ok(Self { text, parsed }),
            Err(source) => Err(RangeError { text, source }),
        }
    }
}

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        Self::try_from(text.to_owned())
    }
}

impl From<Range> for String {
    fn from(range: Range) -> Self {
        range.text
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
