//! The files of TLS: for the way to the store, and for the way between our own processes.

use std::path::PathBuf;

use handover_tls::{TlsError, TlsFiles};

/// TLS to the store.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct StoreTls {
    /// The CA that signed the store members' certificates (PEM); with it come --store-cert and --store-key
    #[arg(long, global = true, env = "HANDOVER_STORE_CA", value_name = "FILE")]
    pub store_ca: Option<PathBuf>,
    /// Our certificate for the store; its common name is the user there
    #[arg(long, global = true, env = "HANDOVER_STORE_CERT", value_name = "FILE")]
    pub store_cert: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, global = true, env = "HANDOVER_STORE_KEY", value_name = "FILE")]
    pub store_key: Option<PathBuf>,
}

/// TLS between coordinators, agents and command lines.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct PeerTls {
    /// The CA that signed the others' certificates (PEM); with it come --tls-cert and --tls-key
    #[arg(long, global = true, env = "HANDOVER_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Our certificate, with the URI name handover://ENV/coordinator or handover://ENV/operator/NAME
    #[arg(long, global = true, env = "HANDOVER_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, global = true, env = "HANDOVER_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
}

impl PeerTls {
    /// All three files, or none.
    ///
    /// # Errors
    /// [`TlsError::Incomplete`].
    pub fn files(&self) -> Result<Option<TlsFiles>, TlsError> {
        TlsFiles::of("--tls-", self.tls_ca.clone(), self.tls_cert.clone(), self.tls_key.clone())
    }
}

impl StoreTls {
    /// All three files, or none.
    ///
    /// # Errors
    /// [`TlsError::Incomplete`].
    pub fn files(&self) -> Result<Option<TlsFiles>, TlsError> {
        TlsFiles::of("--store-", self.store_ca.clone(), self.store_cert.clone(), self.store_key.clone())
    }
}
