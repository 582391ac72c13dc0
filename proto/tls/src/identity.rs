//! Our own side of the handshake: the certificate, and whether anybody wanted to see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_rustls::rustls::SignatureScheme;
use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

/// Shows our certificate to a server that asks for it, and remembers that one did.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) asked: Arc<AtomicBool>,
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.asked.store(true, Ordering::Relaxed);
        Some(Arc::clone(&self.key))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The subject's common name, by which etcd knows a user; the last one if there are several, as Go reads it.
pub(crate) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    /// OBJECT IDENTIFIER 2.5.4.3 in DER (X.520, id-at-commonName).
    const COMMON_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let subject = certificate.subject();
    let at = subject.windows(COMMON_NAME.len()).rposition(|window| window == COMMON_NAME)?;
    // A string follows: its kind, its length (at most 64 characters, RFC 5280 appendix A.1, so that it is one byte), itself.
    let [_, length, text @ ..] = &subject[at + COMMON_NAME.len()..] else { return None };
    let text = text.get(..usize::from(*length)).filter(|_| *length < 0x80)?;
    String::from_utf8(text.to_vec()).ok()
}
