//! Artifacts: a version's directory with a manifest (what it is, and the digest of every file) and the manifest's detached
//! signature by minisign.
//!
//! [`manifest`] and [`judge`] are pure; [`tree`] looks at directories, [`signature`] and [`secret`] are the two sides of a
//! signature, and [`verify()`] puts them together: nothing is activated that it does not let pass.

pub mod judge;
pub mod manifest;
pub mod path;
pub mod secret;
pub mod signature;
pub mod tree;
pub mod verify;

pub use judge::{Expected, Refusal};
pub use manifest::{Entry, MANIFEST, Manifest, ManifestError, Range, SIGNATURE};
pub use path::EntryPath;
pub use signature::{Key, KeyError, Trust};
pub use verify::{Refused, Verified, verify};
