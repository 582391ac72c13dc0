//! `[tls]`: the files for the way between agent and coordinators.

use std::path::PathBuf;

use handover_tls::{TlsError, TlsFiles};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TlsTable {
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl TlsTable {
    /// All three; an empty table is a mistake too.
    ///
    /// # Errors
    /// [`TlsError::Incomplete`].
    pub(super) fn files(self) -> Result<TlsFiles, TlsError> {
        let files = TlsFiles::of("tls.", self.ca, self.cert, self.key)?;
        files.ok_or_else(|| TlsError::Incomplete { missing: "tls.ca".to_owned() })
    }
}
