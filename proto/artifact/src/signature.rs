//! Whose signature is believed. The form is minisign's, so that its own program makes and checks the same ones.

use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use minisign_verify::{Error as MinisignError, PublicKey, Signature};

use crate::judge::Refusal;

/// A key's id, and its form without base64: two letters of algorithm, the id, the key.
const KEY_BYTES: usize = 42;

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    id: [u8; 8],
    public: PublicKey,
}

/// What is demanded of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trust {
    /// Whose signature is believed; none: a signature is not looked at.
    pub keys: Vec<Key>,
    /// Nothing without a signature is let pass. Only sensible with keys.
    pub require_signature: bool,
    /// Nothing without a manifest is let pass.
    pub require_manifest: bool,
}

/// A text that is no public key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Neither a key nor a file's path.
    #[error(
        "{given:?} is no public key of minisign ({reason}); give the line of its .pub file that begins with RW, or the \
         file's absolute path"
    )]
    NoKey {
        /// What was given.
        given: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The key's file.
    #[error("public key {file}: cannot be read: {source}", file = file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl Key {
    /// Reads a key, or the key in a file: what begins with `/` or ends with `.pub` is a file.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn read(given: &str) -> Result<Self, KeyError> {
        if !given.starts_with('/') && !given.ends_with(".pub") {
            return Self::parse(given, given);
        }
        let file = PathBuf::from(given);
        let text = std::fs::read_to_string(&file).map_err(|source| KeyError::Unreadable { file, source })?;
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.contains(' '));
        Self::parse(given, lines.next_back().unwrap_or_default())
    }

    fn parse(given: &str, text: &str) -> Result<Self, KeyError> {
        let wrong = |reason: String| KeyError::NoKey { given: given.to_owned(), reason };
        let bytes = BASE64_STANDARD.decode(text).map_err(|error| wrong(error.to_string()))?;
        let id = bytes.get(2..10).and_then(|id| id.try_into().ok()).filter(|_| bytes.len() == KEY_BYTES);
        let id = id.ok_or_else(|| wrong(format!("it has {} bytes instead of {KEY_BYTES}", bytes.len())))?;
        let public = PublicKey::from_base64(text).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { id, public })
    }

    /// Its id, as minisign shows it.
    pub fn id(&self) -> String {
        shown(self.id)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {}", self.id())
    }
}

fn shown(id: [u8; 8]) -> String {
    format!("{:016X}", u64::from_le_bytes(id))
}

impl Trust {
    fn keys(&self) -> String {
        self.keys.iter().map(Key::to_string).collect::<Vec<_>>().join(", ")
    }

    /// Whether the manifest may be believed; who signed it, if somebody is known to have.
    ///
    /// # Errors
    /// What a signature lacks.
    pub fn judge(&self, manifest: &[u8], signature: Option<&[u8]>) -> Result<Option<String>, Refusal> {
        let Some(signature) = signature.filter(|_| !self.keys.is_empty()) else {
            let refused = self.require_signature && signature.is_none();
            return if refused { Err(Refusal::NoSignature { keys: self.keys() }) } else { Ok(None) };
        };
        let bad = |reason: String| Refusal::BadSignatureFile(reason);
        let text = std::str::from_utf8(signature).map_err(|error| bad(error.to_string()))?;
        let decoded = Signature::decode(text).map_err(|error| bad(error.to_string()))?;
        for key in &self.keys {
            // What old versions of minisign made is believed as well: it is no weaker for a file as small as this.
            match key.public.verify(manifest, &decoded, true) {
                Ok(()) => return Ok(Some(key.id())),
                Err(MinisignError::UnexpectedKeyId) => {}
                Err(_) => return Err(Refusal::Forged { key: key.id() }),
            }
        }
        let signer = signer(text).ok_or_else(|| bad("it names no key".to_owned()))?;
        Err(Refusal::UnknownKey { signer, keys: self.keys() })
    }
}

/// The id of the key that a signature says it is by.
fn signer(text: &str) -> Option<String> {
    let bytes = BASE64_STANDARD.decode(text.lines().nth(1)?.trim()).ok()?;
    Some(shown(bytes.get(2..10)?.try_into().ok()?))
}
