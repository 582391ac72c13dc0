//! TLS towards clients: one certificate, read again when its files change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use handover_tls::validity::{self, Validity};
use serde::{Deserialize, Serialize};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};

use super::control::TlsReport;

/// How often the files are looked at. A renewed certificate is weeks early.
const LOOK: Duration = Duration::from_secs(2);
/// From when on the log warns that nobody has renewed the certificate; those that renew by themselves do it at 30 days.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 86_400);
/// How often it does.
const WARN_AGAIN: Duration = Duration::from_secs(86_400);

/// Where the certificate is, `[gate.tls]`. Without this section clients speak without TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The certificate, then its intermediates (PEM).
    pub certificate: PathBuf,
    /// Its private key (PEM).
    pub key: PathBuf,
    /// Time for a handshake. It takes milliseconds and two round trips.
    #[serde(with = "crate::duration", default = "handshake_time")]
    pub handshake_time: Duration,
}

fn handshake_time() -> Duration {
    Duration::from_secs(10)
}

/// A certificate that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("gate.tls.{field} {}: {reason}; give a PEM file that the gate may read", file.display())]
    Unreadable {
        /// Which setting.
        field: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// They are read, but are no pair.
    #[error("gate.tls: {} and {} do not go together: {reason}", certificate.display(), key.display())]
    Unfit {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// When and how large the two files were when they were read.
type Stamp = [Option<(SystemTime, u64)>; 2];

/// The certificate in use.
#[derive(Debug)]
struct InUse {
    key: Arc<CertifiedKey>,
    not_after: Option<SystemTime>,
    /// Why what is in the files now is not what is in use.
    error: Option<String>,
}

/// Hands out the certificate in use.
#[derive(Debug)]
struct Certificate(RwLock<InUse>);

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).key))
    }
}

/// TLS as the gate speaks it.
pub(super) struct Tls {
    settings: TlsSettings,
    certificate: Arc<Certificate>,
    pub(super) acceptor: TlsAcceptor,
    first: Stamp,
}

impl Tls {
    /// Reads the files, without which a gate that should speak TLS does not start.
    pub(super) fn open(settings: &TlsSettings) -> Result<Self, TlsError> {
        let first = stamp(settings);
        let certificate = Arc::new(Certificate(RwLock::new(read(settings)?)));
        let versions = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = versions.map_err(|error| unfit(settings, &error))?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::clone(&certificate) as _);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { settings: settings.clone(), certificate, acceptor, first })
    }

    /// Time for a handshake.
    pub(super) fn handshake_time(&self) -> Duration {
        self.settings.handshake_time
    }

    /// How it stands.
    pub(super) fn report(&self) -> TlsReport {
        let in_use = self.certificate.0.read().unwrap_or_else(PoisonError::into_inner);
        TlsReport { not_after_unix_s: in_use.not_after.and_then(unix_s), error: in_use.error.clone() }
    }

    /// Looks at the files for as long as the gate runs. Reads them off the runtime's thread: a disk that hangs holds up
    /// nobody's request.
    pub(super) async fn watch(self: Arc<Self>, changed: impl Fn()) {
        let (mut seen, mut warned) = (self.first, None);
        loop {
            self.warn_of_expiry(&mut warned);
            tokio::time::sleep(LOOK).await;
            let settings = self.settings.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let now = stamp(&settings);
                (now, (now != seen).then(|| read(&settings)))
            });
            // The task cannot end otherwise than well, unless the runtime does.
            let Ok((now, read)) = looked.await else { continue };
            if let Some(read) = read {
                self.take(read);
                (seen, warned) = (now, None);
                changed();
            }
        }
    }

    /// A file that cannot be used is told once, and what was in use stays.
    fn take(&self, read: Result<InUse, TlsError>) {
        let mut in_use = self.certificate.0.write().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(new) => {
                tracing::info!(not_after = ?new.not_after.map(validity::text), "the certificate was changed: new connections get the new one");
                *in_use = new;
            }
            Err(error) => {
                tracing::error!(%error, "the changed certificate cannot be used; the one before stays in use");
                in_use.error = Some(error.to_string());
            }
        }
    }

    fn warn_of_expiry(&self, warned: &mut Option<SystemTime>) {
        let now = SystemTime::now();
        let not_after = self.certificate.0.read().unwrap_or_else(PoisonError::into_inner).not_after;
        let Some(not_after) = not_after.filter(|end| *end < now + EXPIRES_SOON) else { return };
        if warned.is_none_or(|then| now.duration_since(then).is_ok_and(|since| since >= WARN_AGAIN)) {
            let file = self.settings.certificate.display();
            tracing::warn!(certificate = %file, not_after = %validity::text(not_after), "the certificate expires soon, or has expired: renew it");
            *warned = Some(now);
        }
    }
}

fn unix_s(time: SystemTime) -> Option<u64> {
    time.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn stamp(settings: &TlsSettings) -> Stamp {
    [&settings.certificate, &settings.key].map(|file| {
        let meta = std::fs::metadata(file).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    })
}

fn read(settings: &TlsSettings) -> Result<InUse, TlsError> {
    let unreadable = |field, file: &Path| {
        let file = file.to_owned();
        move |reason: String| TlsError::Unreadable { field, file, reason }
    };
    let text = std::fs::read(&settings.certificate).map_err(|error| error.to_string());
    let chain = text.and_then(|text| {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        all.map_err(|error| error.to_string())
    });
    let chain = chain.map_err(unreadable("certificate", &settings.certificate))?;
    let Some(not_after) = chain.first().map(|leaf| Validity::of(leaf).map(|validity| validity.until)) else {
        return Err(unreadable("certificate", &settings.certificate)("there is no certificate in it".to_owned()));
    };
    let key = std::fs::read(&settings.key).map_err(|error| error.to_string());
    let key = key.and_then(|text| PrivateKeyDer::from_pem_slice(&text).map_err(|error| error.to_string()));
    let key = key.map_err(unreadable("key", &settings.key))?;
    let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| unfit(settings, &error))?;
    Ok(InUse { key: Arc::new(key), not_after, error: None })
}

fn unfit(settings: &TlsSettings, error: &rustls::Error) -> TlsError {
    TlsError::Unfit { certificate: settings.certificate.clone(), key: settings.key.clone(), reason: error.to_string() }
}
