//! The three files: named, read, checked, and read again when they change.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error as RustlsError, InconsistentKeys, RootCertStore};
use webpki::{EndEntityCert, Error as CertError, KeyUsage};

use crate::error::TlsError;
use crate::identity::{Identity, common_name};

/// Where the files are, and what they are called where they were configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// What stands before `ca`, `cert` and `key` there: `store.` in a config, `--store-` on a command line.
    pub prefix: &'static str,
    /// Certificates of the CAs by which the other side must be signed (PEM).
    pub ca: PathBuf,
    /// Our certificate, then its intermediates (PEM).
    pub cert: PathBuf,
    /// Our private key (PEM).
    pub key: PathBuf,
}

/// What is in the files.
pub(crate) struct Material {
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) identity: Arc<CertifiedKey>,
}

/// When and how large the three files were when they were read.
type Stamp = [Option<(SystemTime, u64)>; 3];

/// The files in use; clones share what was read.
#[derive(Clone)]
pub struct Tls {
    files: Arc<TlsFiles>,
    read: Arc<Mutex<(Stamp, Arc<Material>)>>,
    asked: Arc<AtomicBool>,
}

impl TlsFiles {
    /// The three fields as configured; `None` if none is given.
    ///
    /// # Errors
    /// [`TlsError::Incomplete`] if some are missing.
    pub fn of(
        prefix: &'static str,
        ca: Option<PathBuf>,
        cert: Option<PathBuf>,
        key: Option<PathBuf>,
    ) -> Result<Option<Self>, TlsError> {
        let missing = |name: &str| TlsError::Incomplete { missing: format!("{prefix}{name}") };
        match (ca, cert, key) {
            (None, None, None) => Ok(None),
            (Some(ca), Some(cert), Some(key)) => Ok(Some(Self { prefix, ca, cert, key })),
            (None, _, _) => Err(missing("ca")),
            (_, None, _) => Err(missing("cert")),
            (_, _, None) => Err(missing("key")),
        }
    }

    /// Reads and checks the files.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn open(&self) -> Result<Tls, TlsError> {
        let stamp = self.stamp();
        let material = Arc::new(self.read()?);
        Ok(Tls { files: Arc::new(self.clone()), read: Arc::new(Mutex::new((stamp, material))), asked: Arc::default() })
    }

    fn stamp(&self) -> Stamp {
        [&self.ca, &self.cert, &self.key].map(|file| {
            let meta = std::fs::metadata(file).ok()?;
            Some((meta.modified().ok()?, meta.len()))
        })
    }

    fn read(&self) -> Result<Material, TlsError> {
        let mut roots = RootCertStore::empty();
        for cert in self.certificates("ca", &self.ca)? {
            let fix = "give the certificates of the CA";
            roots.add(cert).map_err(|error| self.content("ca", &self.ca, error.to_string(), fix))?;
        }
        let chain = self.certificates("cert", &self.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&self.bytes("key", &self.key)?);
        let key = key.map_err(|_| {
            let problem = "has no private key in PEM form".to_owned();
            self.content("key", &self.key, problem, "give a key that begins with -----BEGIN PRIVATE KEY-----")
        })?;
        let identity = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            RustlsError::InconsistentKeys(InconsistentKeys::KeyMismatch) => self.not_a_pair(),
            other => self.content("key", &self.key, other.to_string(), "give an ECDSA, Ed25519 or RSA key"),
        })?;
        self.in_time(&identity, &roots)?;
        Ok(Material { roots: Arc::new(roots), identity: Arc::new(identity) })
    }

    fn bytes(&self, name: &str, file: &Path) -> Result<Vec<u8>, TlsError> {
        let field = || format!("{}{name}", self.prefix);
        std::fs::read(file).map_err(|source| TlsError::Unreadable { field: field(), file: file.to_owned(), source })
    }

    fn certificates(&self, name: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let bytes = self.bytes(name, file)?;
        let all = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>();
        let fix = "give a file with -----BEGIN CERTIFICATE-----";
        match all {
            Ok(all) if !all.is_empty() => Ok(all),
            Ok(_) => Err(self.content(name, file, "has no certificate in PEM form".to_owned(), fix)),
            Err(error) => Err(self.content(name, file, format!("is not PEM: {error}"), fix)),
        }
    }

    fn content(&self, name: &str, file: &Path, problem: String, fix: &'static str) -> TlsError {
        TlsError::Content { field: format!("{}{name}", self.prefix), file: file.to_owned(), problem, fix }
    }

    fn not_a_pair(&self) -> TlsError {
        TlsError::NotAPair {
            cert_field: format!("{}cert", self.prefix),
            cert: self.cert.clone(),
            key_field: format!("{}key", self.prefix),
            key: self.key.clone(),
        }
    }

    /// Our own certificate's time is checked here, because the other side would only say "bad certificate".
    fn in_time(&self, identity: &CertifiedKey, roots: &RootCertStore) -> Result<(), TlsError> {
        let [leaf, intermediates @ ..] = &identity.cert[..] else { return Ok(()) };
        let leaf = EndEntityCert::try_from(leaf).map_err(|error| {
            let fix = "give the certificate itself first, then its intermediates";
            self.content("cert", &self.cert, format!("its first certificate cannot be used: {error}"), fix)
        })?;
        let algorithms = provider().signature_verification_algorithms.all;
        let usage = KeyUsage::client_auth();
        let verified =
            leaf.verify_for_usage(algorithms, &roots.roots, intermediates, UnixTime::now(), usage, None, None);
        let (field, file) = (format!("{}cert", self.prefix), self.cert.clone());
        let between =
            |earlier: UnixTime, later: UnixTime| Duration::from_secs(later.as_secs().saturating_sub(earlier.as_secs()));
        match verified.err() {
            Some(CertError::CertExpired { time, not_after }) => {
                Err(TlsError::Expired { field, file, ago: between(not_after, time) })
            }
            Some(CertError::CertNotValidYet { time, not_before }) => {
                Err(TlsError::NotYetValid { field, file, within: between(time, not_before) })
            }
            // The CA that signed us need not be the one by which we know the others.
            _ => Ok(()),
        }
    }
}

impl Tls {
    /// The files' names, for messages.
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// The common name of our certificate, by which etcd knows us.
    pub fn common_name(&self) -> Option<String> {
        common_name(self.material().identity.cert.first()?)
    }

    /// Whether a server to which we connected wanted to see our certificate.
    pub fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Our side of a handshake.
    pub(crate) fn identity(&self) -> Identity {
        Identity { key: Arc::clone(&self.material().identity), asked: Arc::clone(&self.asked) }
    }

    /// What is in the files now; if they cannot be used any more, what was in them when they could.
    pub(crate) fn material(&self) -> Arc<Material> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = self.files.stamp();
        if read.0 != stamp {
            match self.files.read() {
                Ok(material) => *read = (stamp, Arc::new(material)),
                Err(error) => {
                    tracing::warn!(%error, "changed TLS files cannot be used; going on with what was read before")
                }
            }
        }
        Arc::clone(&read.1)
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tls").field(&self.files).finish()
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::LazyLock<Arc<CryptoProvider>> =
        std::sync::LazyLock::new(|| Arc::new(ring::default_provider()));
    Arc::clone(&PROVIDER)
}
