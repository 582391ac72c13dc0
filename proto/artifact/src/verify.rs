//! The whole check of a version's directory, before it is activated.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::judge::{self, Expected, Refusal};
use crate::manifest::{Entry, MANIFEST, Manifest, SIGNATURE};
use crate::signature::Trust;
use crate::tree::{self, Listing};

/// A manifest of hundreds of thousands of files is smaller.
pub const MANIFEST_BYTES: u64 = 64 * 1024 * 1024;

/// Four lines, of which two are comments.
pub const SIGNATURE_BYTES: u64 = 64 * 1024;

/// An artifact that is not let pass.
#[derive(Debug, thiserror::Error)]
#[error("artifact {dir}: {why}", dir = dir.display())]
pub struct Refused {
    /// Its directory.
    pub dir: PathBuf,
    /// Why not.
    pub why: Refusal,
}

/// An artifact that passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// What it says of itself; none: it has no manifest, and none is demanded.
    pub manifest: Option<Manifest>,
    /// The id of the key that signed it.
    pub signed_by: Option<String>,
    seen: Option<Seen>,
}

/// What was looked at, so that it need not be read once more while nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    manifest_sha256: Vec<u8>,
    listing: Listing,
}

/// Checks signature, manifest and every file of the artifact in `dir`. With what was verified `before` the files are not
/// read again if none was changed since; signature and manifest are always. Blocks for as long as reading takes.
///
/// # Errors
/// [`Refused`] with the first thing that is wrong.
pub fn verify(dir: &Path, expected: &Expected, trust: &Trust, before: Option<&Verified>) -> Result<Verified, Refused> {
    check(dir, expected, trust, before).map_err(|why| Refused { dir: dir.to_owned(), why })
}

fn check(dir: &Path, expected: &Expected, trust: &Trust, before: Option<&Verified>) -> Result<Verified, Refusal> {
    let Some(bytes) = tree::small_file(dir, MANIFEST, MANIFEST_BYTES)? else {
        let demanded = trust.require_manifest || trust.require_signature;
        let bare = Verified { manifest: None, signed_by: None, seen: None };
        return if demanded { Err(Refusal::NoManifest) } else { Ok(bare) };
    };
    let signature = tree::small_file(dir, SIGNATURE, SIGNATURE_BYTES)?;
    let (manifest, signed_by) = believe(&bytes, signature.as_deref(), expected, trust)?;
    let seen = Seen { manifest_sha256: Sha256::digest(&bytes).to_vec(), listing: Listing::of(dir)? };
    judge::is_complete(&manifest, &seen.listing.found())?;
    if before.and_then(|before| before.seen.as_ref()) != Some(&seen) {
        for (path, entry) in &manifest.files {
            match entry {
                Entry::File { .. } => judge::has_digest(path, entry, &tree::digest(dir, path)?)?,
                Entry::Link { .. } => {}
            }
        }
    }
    Ok(Verified { manifest: Some(manifest), signed_by, seen: Some(seen) })
}

/// A manifest whose signature is right and that is of what is wanted, and who signed it. Nothing of it is acted on before.
///
/// # Errors
/// [`Refusal`].
pub fn believe(
    manifest: &[u8],
    signature: Option<&[u8]>,
    expected: &Expected,
    trust: &Trust,
) -> Result<(Manifest, Option<String>), Refusal> {
    let signed_by = trust.judge(manifest, signature)?;
    let manifest = Manifest::parse(manifest)?;
    judge::is_wanted(&manifest, expected)?;
    Ok((manifest, signed_by))
}
