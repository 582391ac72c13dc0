//! How values stand in the store: canonical JSON with a version field, readable with `etcdctl get`.
//!
//! A reader one version behind must not destroy what it does not know: values that are read and written back keep
//! unknown fields in `rest`.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version that this code writes. Fields are added, never reused.
pub const STORED_VERSION: u32 = 1;

/// Fields of a newer version, carried along.
pub type Rest = serde_json::Map<String, serde_json::Value>;

/// A stored value that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// Not JSON of the expected shape.
    #[error(
        "the value of store key {key} cannot be read; look at it with `etcdctl get {key}`, and restore or delete it"
    )]
    Garbled {
        /// The key.
        key: String,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// Not a value that can be written (a map with keys that are not text, for example).
    #[error("a value for the store cannot be written as JSON")]
    Unwritable(#[source] serde_json::Error),
}

/// The bytes of a value, always the same for the same value.
///
/// # Errors
/// [`StoredError::Unwritable`]; none of our own values can cause it.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoredError> {
    serde_json::to_vec(value).map_err(StoredError::Unwritable)
}

/// The value in these bytes of `key`.
///
/// # Errors
/// [`StoredError::Garbled`], which names the key and the way out.
pub fn decode<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, StoredError> {
    serde_json::from_slice(bytes).map_err(|source| StoredError::Garbled { key: key.to_owned(), source })
}
