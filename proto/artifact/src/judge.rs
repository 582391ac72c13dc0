//! Whether a manifest is what is wanted, and whether a directory is what its manifest says. Pure.

use std::collections::BTreeMap;

use handover_proto::ids::{Service, Version};

use crate::manifest::{Entry, MANIFEST, Manifest, ManifestError, SIGNATURE};
use crate::path::EntryPath;

/// What an artifact has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Of which service; none: of any.
    pub service: Option<Service>,
    /// Which version; none: any.
    pub version: Option<Version>,
}

/// What is found under a path, before anything of its content is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A file.
    File {
        /// Its length.
        size_bytes: u64,
        /// Whether its owner may run it.
        executable: bool,
    },
    /// A symbolic link, with its text.
    Link(String),
}

/// Why an artifact is not let pass.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No manifest.
    #[error("{MANIFEST} is missing; write it with `handover artifact pack`, and stage the version again")]
    NoManifest,
    /// No signature.
    #[error(
        "{MANIFEST} is not signed: {SIGNATURE} is missing, and one by {keys} is required; sign it with `handover artifact \
         sign`, or say require_signature = false"
    )]
    NoSignature {
        /// Whose would do.
        keys: String,
    },
    /// The signature file is none.
    #[error("{SIGNATURE} is not a minisign signature ({0}); sign {MANIFEST} again with `handover artifact sign`")]
    BadSignatureFile(String),
    /// Signed by somebody else.
    #[error(
        "{MANIFEST} is signed with key {signer}, and only {keys} are trusted here; sign it with one of these, or add the \
         signer's public key to `keys`"
    )]
    UnknownKey {
        /// The key's id.
        signer: String,
        /// Whose would do.
        keys: String,
    },
    /// The signature is not of this content.
    #[error(
        "{MANIFEST} was changed after it was signed with key {key} (or {SIGNATURE} was): the signature does not fit; stage \
         the version again, and find out who changed it"
    )]
    Forged {
        /// The key's id.
        key: String,
    },
    /// The manifest cannot be used.
    #[error("{MANIFEST}: {0}")]
    Manifest(#[from] ManifestError),
    /// Another service's.
    #[error("it is an artifact of service {found}, and {wanted} is wanted; stage the right one")]
    OtherService {
        /// What it is.
        found: Service,
        /// What it should be.
        wanted: Service,
    },
    /// Another version's.
    #[error(
        "its manifest says version {found}, and its directory says {wanted}; a version is known by one name alone: pack it \
         as {wanted}, or stage it as {found}"
    )]
    OtherVersion {
        /// What it is.
        found: Version,
        /// What it should be.
        wanted: Version,
    },
    /// A file of the manifest is not there.
    #[error("{0} is missing, which the manifest lists; stage the version again")]
    Missing(EntryPath),
    /// A file is there that nobody vouches for.
    #[error(
        "{0} is in the directory, and the manifest does not list it; remove it, and keep the service from writing into its \
         version's directory"
    )]
    Extra(EntryPath),
    /// A file was changed.
    #[error("{path} is not as the manifest says: {how}; stage the version again")]
    Changed {
        /// Which.
        path: EntryPath,
        /// What is different.
        how: String,
    },
    /// Neither a file nor a link nor a directory.
    #[error("{path} is {what}, which cannot be in an artifact; remove it")]
    Strange {
        /// Its path.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// The file system refuses.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// What, within the artifact.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Whether the manifest is of what is wanted.
///
/// # Errors
/// [`Refusal::OtherService`], [`Refusal::OtherVersion`].
pub fn is_wanted(manifest: &Manifest, expected: &Expected) -> Result<(), Refusal> {
    if let Some(wanted) = expected.service.as_ref().filter(|wanted| **wanted != manifest.service) {
        return Err(Refusal::OtherService { found: manifest.service.clone(), wanted: wanted.clone() });
    }
    match expected.version.as_ref().filter(|wanted| **wanted != manifest.version) {
        Some(wanted) => Err(Refusal::OtherVersion { found: manifest.version.clone(), wanted: wanted.clone() }),
        None => Ok(()),
    }
}

/// Whether these are the manifest's files, as far as can be told without reading them.
///
/// # Errors
/// [`Refusal`] with the first difference, in the order of paths.
pub fn is_complete(manifest: &Manifest, found: &BTreeMap<EntryPath, Found>) -> Result<(), Refusal> {
    for (path, entry) in &manifest.files {
        let found = found.get(path).ok_or_else(|| Refusal::Missing(path.clone()))?;
        if let Some(how) = difference(entry, found) {
            return Err(Refusal::Changed { path: path.clone(), how });
        }
    }
    match found.keys().find(|path| !manifest.files.contains_key(path)) {
        Some(extra) => Err(Refusal::Extra(extra.clone())),
        None => Ok(()),
    }
}

fn difference(entry: &Entry, found: &Found) -> Option<String> {
    match (entry, found) {
        (Entry::File { size_bytes, executable, .. }, Found::File { size_bytes: size, executable: runs }) => {
            let mode = |runs: bool| if runs { "may be run" } else { "may not be run" };
            if size_bytes != size {
                let unit = if *size == 1 { "byte" } else { "bytes" };
                return Some(format!("it has {size} {unit}, and should have {size_bytes}"));
            }
            (executable != runs).then(|| format!("it {}, and should be one that {}", mode(*runs), mode(*executable)))
        }
        (Entry::Link { target }, Found::Link(text)) => {
            (target != text).then(|| format!("it links to {text:?}, and should to {target:?}"))
        }
        (Entry::File { .. }, Found::Link(_)) => Some("it is a link, and should be a file".to_owned()),
        (Entry::Link { .. }, Found::File { .. }) => Some("it is a file, and should be a link".to_owned()),
    }
}

/// Whether a file's content has the digest of the manifest.
///
/// # Errors
/// [`Refusal::Changed`].
pub fn has_digest(path: &EntryPath, entry: &Entry, digest: &str) -> Result<(), Refusal> {
    match entry {
        Entry::File { sha256, .. } if sha256 != digest => {
            let how = format!("its SHA-256 is {digest}, and should be {sha256}");
            Err(Refusal::Changed { path: path.clone(), how })
        }
        Entry::File { .. } | Entry::Link { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(size_bytes: u64, executable: bool) -> Entry {
        Entry::File { sha256: "aa".into(), size_bytes, executable }
    }

    fn manifest(files: &[(&str, Entry)]) -> Manifest {
        let files = files.iter().map(|(path, entry)| (path.parse().expect("a path"), entry.clone())).collect();
        let (service, version) = ("billing".parse().expect("a service"), "1.5.0".parse().expect("a version"));
        Manifest::of(service, version, String::new(), files)
    }

    fn refusal(entry: Entry, found: &[(&str, Found)]) -> String {
        let found = found.iter().map(|(path, found)| (path.parse().expect("a path"), found.clone())).collect();
        is_complete(&manifest(&[("run", entry)]), &found).expect_err("differs").to_string()
    }

    #[test]
    fn every_difference_names_the_file_and_both_values() {
        let is = |size_bytes, executable| ("run", Found::File { size_bytes, executable });
        let link = |to: &str| ("run", Found::Link(to.into()));
        for (entry, found, expected) in [
            (file(7, true), vec![], "run is missing"),
            (file(7, true), vec![is(8, true)], "it has 8 bytes, and should have 7"),
            (file(7, true), vec![is(1, true)], "it has 1 byte, and should have 7"),
            (file(7, true), vec![is(7, false)], "it may not be run, and should be one that may be run"),
            (file(7, false), vec![link("x")], "it is a link, and should be a file"),
            (Entry::Link { target: "x".into() }, vec![link("y")], "it links to \"y\", and should to \"x\""),
            (Entry::Link { target: "x".into() }, vec![is(7, false)], "it is a file, and should be a link"),
            (file(7, false), vec![is(7, false), ("z", Found::Link("x".into()))], "z is in the directory"),
        ] {
            let said = refusal(entry, &found);
            assert!(said.contains(expected) && said.contains("run") || said.contains("z is"), "{said}");
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn what_is_as_it_should_be_passes() {
        let found = BTreeMap::from([("run".parse().expect("a path"), Found::File { size_bytes: 7, executable: true })]);
        assert!(is_complete(&manifest(&[("run", file(7, true))]), &found).is_ok());
        let path = "run".parse().expect("a path");
        assert!(has_digest(&path, &file(7, true), "aa").is_ok());
        let said = has_digest(&path, &file(7, true), "bb").expect_err("another content").to_string();
        assert!(said.contains("run") && said.contains("bb") && said.contains("aa"), "{said}");
    }

    #[test]
    fn another_service_or_version_is_refused_with_both_names() {
        let manifest = manifest(&[]);
        let expected = |service: &str, version: &str| Expected {
            service: Some(service.parse().expect("a service")),
            version: Some(version.parse().expect("a version")),
        };
        assert!(is_wanted(&manifest, &expected("billing", "1.5.0")).is_ok());
        assert!(is_wanted(&manifest, &Expected { service: None, version: None }).is_ok());
        let said = is_wanted(&manifest, &expected("shipping", "1.5.0")).expect_err("another").to_string();
        assert!(said.contains("billing") && said.contains("shipping"), "{said}");
        let said = is_wanted(&manifest, &expected("billing", "1.5.1")).expect_err("another").to_string();
        assert!(said.contains("1.5.0") && said.contains("1.5.1"), "{said}");
    }
}
