//! Dialling: TCP, then TLS with our certificate, then proof of who answers.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use handover_proto::peer::PeerName;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncBufReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor as signed_by;
use tokio_rustls::rustls::crypto::verify_tls13_signature;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, PeerMisbehaved,
    RootCertStore, SignatureScheme,
};

use crate::files::{Tls, TlsFiles, provider};
use crate::names::name_in;

/// In TLS 1.3 the server judges our certificate only after our side of the handshake is done, and HTTP/2 servers speak
/// first after that. Waiting for their first word makes a refusal an error of the *connecting*, when certainly nothing was
/// asked yet. A server that waits for our word gets it after this long.
const FIRST_WORD: Duration = Duration::from_millis(200);

/// Who must answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Whoever's certificate names the host that is dialled (DNS or IP name).
    Host,
    /// Whoever's certificate has this URI name, wherever it is.
    Name(PeerName),
}

/// Makes TLS connections, for tonic's `connect_with_connector`. The URI given there begins with `http://`, since tonic
/// takes `https://` for an order to use its own TLS.
#[derive(Debug, Clone)]
pub struct Connector {
    tls: Tls,
    expect: Expect,
    limit: Duration,
}

/// Why a connection does not stand. Nothing was sent on it.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFailure {
    /// No TCP connection.
    #[error(transparent)]
    Tcp(std::io::Error),
    /// TCP, but no TLS; the text says whose fault it is and what would help.
    #[error("{0}")]
    Tls(String),
}

impl Connector {
    /// Dials with these files, and believes only whom `expect` describes. Gives up after `limit`: tonic's own limit would
    /// not tell a connection that never stood from one that broke under a request.
    pub fn new(tls: Tls, expect: Expect, limit: Duration) -> Self {
        Self { tls, expect, limit }
    }

    async fn within_limit(self, uri: Uri) -> Result<TokioIo<TlsStream<TcpStream>>, ConnectFailure> {
        let limit = self.limit;
        let late = |_| ConnectFailure::Tls(format!("no TLS connection within {} ms", limit.as_millis()));
        tokio::time::timeout(limit, self.connect(uri)).await.map_err(late)?
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<TlsStream<TcpStream>>, ConnectFailure> {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let tcp = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443))).await;
        let tcp = tcp.map_err(ConnectFailure::Tcp)?;
        tcp.set_nodelay(true).map_err(ConnectFailure::Tcp)?;
        let name = ServerName::try_from(host.clone());
        let name = name.map_err(|_| ConnectFailure::Tls(format!("{host:?} cannot be a name in a certificate")))?;
        let config = self.config().map_err(|error| ConnectFailure::Tls(error.to_string()))?;
        let failed = |error: std::io::Error| ConnectFailure::Tls(explain(&error, &host, self.tls.files()));
        let mut tls = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(failed)?;
        if let Ok(said) = tokio::time::timeout(FIRST_WORD, tls.fill_buf()).await {
            let said = said.map_err(failed)?;
            if said.is_empty() {
                return Err(ConnectFailure::Tls(
                    "the other side closed the connection right after the handshake".into(),
                ));
            }
        }
        Ok(TokioIo::new(tls))
    }

    fn config(&self) -> Result<ClientConfig, Error> {
        let material = self.tls.material();
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])?;
        let builder = match &self.expect {
            Expect::Host => builder.with_root_certificates(Arc::clone(&material.roots)),
            Expect::Name(wanted) => builder.dangerous().with_custom_certificate_verifier(Arc::new(ByName {
                roots: Arc::clone(&material.roots),
                wanted: wanted.clone(),
            })),
        };
        let mut config = builder.with_client_cert_resolver(Arc::new(self.tls.identity()));
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Every connection is judged anew, by the certificates as they are now.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = ConnectFailure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectFailure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectFailure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().within_limit(uri))
    }
}

/// Checks the chain up to our CA, and the URI name instead of the host's.
#[derive(Debug)]
struct ByName {
    roots: Arc<RootCertStore>,
    wanted: PeerName,
}

impl ServerCertVerifier for ByName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let algorithms = provider().signature_verification_algorithms.all;
        signed_by(&ParsedCertificate::try_from(end_entity)?, &self.roots, intermediates, now, algorithms)?;
        let name = name_in(end_entity).map_err(|error| other(error.to_string()))?;
        if name == self.wanted {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(other(format!("{name} answers there, not {}", self.wanted)))
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signature, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

fn other(text: String) -> Error {
    let error = std::io::Error::other(text);
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// What a failed handshake means for whoever configured it.
fn explain(error: &std::io::Error, host: &str, files: &TlsFiles) -> String {
    let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>()) else {
        return format!("no TLS handshake with {host} ({error}); does it speak TLS on this port?");
    };
    let (ca, cert) = (format!("`{}ca` = {}", files.prefix, files.ca.display()), files.cert.display());
    match cause {
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            format!("{host}'s certificate is not signed by the CA in {ca}")
        }
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            format!("{host}'s certificate has expired; have it renewed there")
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => {
            format!(
                "{host}'s certificate does not name {host}; use an address that it names, or have it made for this one"
            )
        }
        Error::InvalidCertificate(CertificateError::Other(reason)) => reason.to_string(),
        Error::AlertReceived(alert) => format!(
            "{host} refuses our certificate, `{}cert` = {cert}: {}",
            files.prefix,
            match alert {
                AlertDescription::CertificateExpired => "it has expired; have it renewed",
                AlertDescription::UnknownCA | AlertDescription::DecryptError =>
                    "it is signed by a CA that is not trusted there",
                AlertDescription::BadCertificate =>
                    "it does not trust the CA that signed it, or the certificate has expired",
                AlertDescription::CertificateRequired => "it wants one and got none",
                other => return format!("{host} refuses the TLS handshake ({other:?}); its own log says why"),
            }
        ),
        Error::InvalidMessage(_) => format!("{host} does not speak TLS on this port"),
        other => format!("no TLS with {host}: {other}"),
    }
}
