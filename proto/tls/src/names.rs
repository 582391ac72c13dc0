//! The URI name in a certificate.

use handover_proto::peer::{PeerName, PeerNameError};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tonic::Request;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use webpki::EndEntityCert;

/// A certificate without a name that we could go by.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// It cannot be read.
    #[error("the certificate cannot be read: {0}")]
    Unreadable(webpki::Error),
    /// It has no name of ours.
    #[error("the certificate has no URI name that begins with handover://")]
    None,
    /// It has two, of which nobody could say which one counts.
    #[error("the certificate has several URI names that begin with handover://: {0} and {1}")]
    Several(PeerName, PeerName),
    /// What begins like one is none.
    #[error(transparent)]
    Bad(#[from] PeerNameError),
}

/// The one `handover://` name in a certificate.
///
/// # Errors
/// [`NameError`].
pub fn name_in(certificate: &CertificateDer<'_>) -> Result<PeerName, NameError> {
    let certificate = EndEntityCert::try_from(certificate).map_err(NameError::Unreadable)?;
    let mut ours = certificate.valid_uri_names().filter(|uri| uri.starts_with("handover://"));
    let name = ours.next().ok_or(NameError::None)?.parse()?;
    match ours.next() {
        None => Ok(name),
        Some(other) => Err(NameError::Several(name, other.parse()?)),
    }
}

/// Who makes this call; `None` if it came without TLS (which happens on loopback only).
///
/// # Errors
/// [`NameError`]: a verified certificate, but without a usable name.
pub fn caller<T>(request: &Request<T>) -> Result<Option<PeerName>, NameError> {
    let Some(info) = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>() else { return Ok(None) };
    let certs = info.peer_certs();
    let leaf = certs.as_deref().and_then(|certs| certs.first());
    leaf.map_or(Err(NameError::None), name_in).map(Some)
}
