//! Fetching by HTTP: one GET for each file, over a connection of its own, with or without TLS.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use http::header::{CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_util::task::AbortOnDropHandle;

use super::fetch::Why;

/// Writes what the URL holds to a file, no more than `most_bytes` of it.
pub(super) async fn fetch(url: &str, ca: &Path, to: &Path, most_bytes: u64) -> Result<(), Why> {
    let (response, _connection) = get(url, ca).await.map_err(Why::Http)?;
    match response.status() {
        StatusCode::OK => write(response, to, most_bytes).await,
        StatusCode::NOT_FOUND => Err(Why::NotThere),
        status if status.is_redirection() => {
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("elsewhere");
            Err(Why::Status(format!("{status} to {to}; name that place in `fetch.url`: redirections are not followed")))
        }
        status if status.is_server_error() => Err(Why::Unable(status.to_string())),
        status => Err(Why::Status(status.to_string())),
    }
}

async fn write(response: Response<Incoming>, to: &Path, most_bytes: u64) -> Result<(), Why> {
    let (mut file, mut body, mut left) = (File::create(to)?, response.into_body(), most_bytes);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Why::Http(format!("the answer broke off: {error}")))?;
        let Some(data) = frame.data_ref() else { continue };
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        left = left.checked_sub(length).ok_or(Why::TooLarge(most_bytes))?;
        file.write_all(data)?;
    }
    Ok(())
}

async fn get(url: &str, ca: &Path) -> Result<(Response<Incoming>, AbortOnDropHandle<()>), String> {
    let uri: Uri = url.parse().map_err(|error| format!("{url} is no URL: {error}"))?;
    let authority = uri.authority().ok_or_else(|| format!("{url} names no host"))?.clone();
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let request = Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(HOST, authority.as_str())
        .header(USER_AGENT, "handover-agent")
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| format!("cannot ask for {url}: {error}"))?;
    let secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        other => return Err(format!("the URL begins with {:?}; use http:// or https://", other.unwrap_or_default())),
    };
    let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let tcp = TcpStream::connect((host.as_str(), port)).await;
    let tcp = tcp.map_err(|error| format!("cannot connect to {host}, port {port}: {error}"))?;
    let asked = if secure { ask(encrypted(tcp, &host, ca).await?, request).await } else { ask(tcp, request).await };
    asked.map_err(|error| format!("no HTTP answer from {host}: {error}"))
}

async fn encrypted(
    tcp: TcpStream,
    host: &str,
    ca: &Path,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let pem = std::fs::read(ca).map_err(|error| format!("cannot read fetch.ca = {}: {error}", ca.display()))?;
    let mut roots = RootCertStore::empty();
    // A system's file may hold some that are too old for us; none at all is a mistake.
    let (taken, _) = roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    if taken == 0 {
        return Err(format!("fetch.ca = {} holds no certificate in PEM form", ca.display()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("no TLS: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|_| format!("{host:?} cannot be a name in a certificate"))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
    stream.map_err(|error| format!("no TLS with {host}: {error} (believed are the authorities of {})", ca.display()))
}

/// The connection must live until the body has been read; dropping it closes it.
async fn ask<S>(stream: S, request: Request<Empty<Bytes>>) -> hyper::Result<(Response<Incoming>, AbortOnDropHandle<()>)>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = AbortOnDropHandle::new(tokio::spawn(async move {
        // Its error is the request's as well, and told there.
        let _ = connection.await;
    }));
    Ok((sender.send_request(request).await?, connection))
}
