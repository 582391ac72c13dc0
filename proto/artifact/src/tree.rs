//! What is in an artifact's directory.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::judge::{Found, Refusal};
use crate::manifest::{Entry, MANIFEST, SIGNATURE};
use crate::path::EntryPath;

/// Read at once; larger is no faster.
const PART_BYTES: usize = 64 * 1024;

/// What tells that a file is the same one with the same content as before: the kernel changes the last number with each
/// write, and nobody but it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

/// All files and links of a directory, without its manifest and signature. Two of them are equal only if nothing was
/// changed in between.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing(BTreeMap<EntryPath, (Found, Stamp)>);

impl Listing {
    /// Looks at everything under `root`, and follows no link.
    ///
    /// # Errors
    /// What cannot be read, or cannot be in an artifact.
    pub fn of(root: &Path) -> Result<Self, Refusal> {
        let mut listing = Self::default();
        let mut open = vec![String::new()];
        while let Some(directory) = open.pop() {
            let entries = fs::read_dir(root.join(&directory)).map_err(unreadable(&directory))?;
            for entry in entries {
                let entry = entry.map_err(unreadable(&directory))?;
                let name = entry.file_name();
                let strange = |what| Refusal::Strange { path: format!("{directory}{}", name.display()), what };
                let path = format!("{directory}{}", name.to_str().ok_or_else(|| strange("a name that is not UTF-8"))?);
                let about = entry.metadata().map_err(unreadable(&path))?;
                if about.is_dir() {
                    open.push(format!("{path}/"));
                } else if ![MANIFEST, SIGNATURE].contains(&path.as_str()) {
                    let found = found(&root.join(&path), &about).map_err(unreadable(&path))?;
                    let found = found.ok_or_else(|| strange(kind(&about)))?;
                    let path = path.parse().map_err(|_| strange("a name with control characters"))?;
                    listing.0.insert(path, (found, stamp(&about)));
                }
            }
        }
        Ok(listing)
    }

    /// Without the stamps.
    pub fn found(&self) -> BTreeMap<EntryPath, Found> {
        self.0.iter().map(|(path, (found, _))| (path.clone(), found.clone())).collect()
    }

    /// The entries of a manifest of these files: their content is read.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn entries(&self, root: &Path) -> Result<BTreeMap<EntryPath, Entry>, Refusal> {
        let entry = |(path, (found, _)): (&EntryPath, &(Found, Stamp))| {
            let entry = match found {
                Found::Link(target) => Entry::Link { target: target.clone() },
                Found::File { size_bytes, executable } => {
                    Entry::File { sha256: digest(root, path)?, size_bytes: *size_bytes, executable: *executable }
                }
            };
            Ok((path.clone(), entry))
        };
        self.0.iter().map(entry).collect()
    }
}

fn found(path: &Path, about: &Metadata) -> io::Result<Option<Found>> {
    if about.is_symlink() {
        return Ok(Some(Found::Link(fs::read_link(path)?.to_string_lossy().into_owned())));
    }
    let file = Found::File { size_bytes: about.len(), executable: about.mode() & 0o100 != 0 };
    Ok(about.is_file().then_some(file))
}

fn kind(about: &Metadata) -> &'static str {
    let kind = about.file_type();
    if kind.is_socket() {
        "a socket"
    } else if kind.is_fifo() {
        "a pipe"
    } else {
        "a device"
    }
}

fn stamp(about: &Metadata) -> Stamp {
    Stamp { device: about.dev(), inode: about.ino(), changed: (about.ctime(), about.ctime_nsec()) }
}

/// SHA-256 of a file's content, hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub fn digest(root: &Path, path: &EntryPath) -> Result<String, Refusal> {
    digest_of(&path.under(root)).map_err(unreadable(path.as_str()))
}

fn digest_of(path: &Path) -> io::Result<String> {
    let (mut file, mut hash, mut part) = (File::open(path)?, Sha256::new(), vec![0; PART_BYTES]);
    loop {
        match file.read(&mut part)? {
            0 => break Ok(hex(&hash.finalize())),
            count => hash.update(&part[..count]),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file of `root` that may be missing, of no more than this many bytes.
pub(crate) fn small_file(root: &Path, name: &str, most_bytes: u64) -> Result<Option<Vec<u8>>, Refusal> {
    let read = || {
        let mut bytes = Vec::new();
        let length = File::open(root.join(name))?.take(most_bytes + 1).read_to_end(&mut bytes)?;
        if u64::try_from(length).is_ok_and(|length| length <= most_bytes) {
            Ok(bytes)
        } else {
            Err(io::Error::other(format!("it has more than {most_bytes} bytes")))
        }
    };
    match read() {
        Ok(bytes) => Ok(Some(bytes)),
        // A directory that is missing is no directory without a manifest.
        Err(error) if error.kind() == io::ErrorKind::NotFound && root.is_dir() => Ok(None),
        Err(source) => Err(unreadable(name)(source)),
    }
}

fn unreadable(path: &str) -> impl FnOnce(io::Error) -> Refusal {
    let path = if path.is_empty() { "its directory" } else { path }.to_owned();
    move |source| Refusal::Unreadable { path, source }
}
