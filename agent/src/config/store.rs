//! Where the store is: `store = ["host:port", …]`, or a table `[store]` with the files of TLS beside the endpoints.

use std::path::PathBuf;

use handover_store::client::{Access, EMBEDDED_ADDRESS};
use handover_tls::{TlsError, TlsFiles};
use serde::Deserialize;

/// As it stands in the file.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a list of endpoints, or a table with endpoints, ca, cert and key")]
pub(super) enum StoreSettings {
    /// Endpoints only: plain text.
    Plain(Vec<String>),
    /// Endpoints and files.
    Table(StoreTable),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoreTable {
    #[serde(default)]
    endpoints: Vec<String>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self::Plain(Vec::new())
    }
}

impl StoreSettings {
    /// The way to the store; the embedded one if no endpoint is named.
    ///
    /// # Errors
    /// [`TlsError::Incomplete`].
    pub(super) fn access(self) -> Result<Access, TlsError> {
        let (mut endpoints, tls) = match self {
            Self::Plain(endpoints) => (endpoints, None),
            Self::Table(table) => (table.endpoints, TlsFiles::of("store.", table.ca, table.cert, table.key)?),
        };
        if endpoints.is_empty() {
            endpoints.push(EMBEDDED_ADDRESS.to_owned());
        }
        Ok(Access { endpoints, tls })
    }
}
