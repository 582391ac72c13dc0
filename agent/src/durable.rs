//! A JSON value in a file that survives a power cut: written aside, synced, renamed, and the directory synced.
//!
//! The first line carries a checksum of the rest, so that a truncated or edited file is noticed and never read as if it
//! were whole. A damaged file is an error that names the file and what to do, never a silent default: what it held may
//! be a promise. One writer per file; both functions block for as long as the disk takes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// First word of the first line; the number is the version of this layout.
const HEADER: &str = "handover-file 1 sha256 ";

/// A file that could not be kept or read.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    /// The file system refused.
    #[error("cannot {operation} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The value has no JSON form.
    #[error("cannot write {path}: the value has no JSON form: {source}", path = path.display())]
    Encode {
        /// Where to.
        path: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
    /// The content is not what was saved.
    #[error(
        "{path} is damaged ({what}); nothing was changed. Put a good copy in its place, or move it away \
         (mv {path} {path}.damaged) to start without what it held", path = path.display()
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The content is whole, but not of the expected shape: another version of Handover wrote it.
    #[error(
        "{path} is whole but cannot be understood: {source}. Start the version of Handover that wrote it, or move the \
         file away (mv {path} {path}.foreign) to start without what it held", path = path.display()
    )]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// What does not fit.
        source: serde_json::Error,
    },
}

/// Replaces the file's content as a whole: after a crash at any moment it holds the old value or the new one.
///
/// # Errors
/// When the value has no JSON form or the file system refuses; the old content then still stands.
pub fn save(path: &Path, value: &impl Serialize) -> Result<(), DurableError> {
    let json =
        serde_json::to_string_pretty(value).map_err(|source| DurableError::Encode { path: path.to_owned(), source })?;
    let aside = aside(path);
    let io = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| DurableError::Io { operation, path, source }
    };
    let mut file = File::create(&aside).map_err(io("create", &aside))?;
    let text = format!("{HEADER}{}\n{json}\n", checksum(&json));
    file.write_all(text.as_bytes()).map_err(io("write", &aside))?;
    file.sync_all().map_err(io("sync", &aside))?;
    drop(file);
    fs::rename(&aside, path).map_err(io("rename into place", path))?;
    let directory = directory(path);
    // Without this the rename itself may be lost in a power cut.
    File::open(directory).and_then(|d| d.sync_all()).map_err(io("sync the directory", directory))
}

/// Reads what [`save`] wrote; none if there is no such file.
///
/// # Errors
/// When the file cannot be read, is damaged, or holds another shape.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, DurableError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DurableError::Io { operation: "read", path: path.to_owned(), source }),
    };
    let json = verified(&bytes).map_err(|what| DurableError::Damaged { path: path.to_owned(), what })?;
    serde_json::from_str(json).map(Some).map_err(|source| DurableError::Foreign { path: path.to_owned(), source })
}

/// Takes a file away for good.
///
/// # Errors
/// When the file system refuses. That there is none is no error.
pub fn remove(path: &Path) -> Result<(), DurableError> {
    let io = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| DurableError::Io { operation, path, source }
    };
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        removed => removed.map_err(io("remove", path))?,
    }
    let directory = directory(path);
    File::open(directory).and_then(|d| d.sync_all()).map_err(io("sync the directory", directory))
}

fn verified(bytes: &[u8]) -> Result<&str, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    let rest = text.strip_prefix(HEADER).ok_or_else(|| match text.len() {
        0 => "it is empty".to_owned(),
        _ => format!("its first line does not begin with {HEADER:?}"),
    })?;
    let (sum, json) = rest.split_once('\n').ok_or("it ends within its first line")?;
    let json = json.strip_suffix('\n').ok_or("its end is missing")?;
    if checksum(json) == sum { Ok(json) } else { Err("its content does not match its checksum".to_owned()) }
}

fn checksum(json: &str) -> String {
    Sha256::digest(json.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The same directory, so that the rename does not cross file systems; a leftover of a crash is overwritten.
fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests;
