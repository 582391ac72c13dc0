//! Listening: TCP, then TLS with a certificate demanded from whoever dials.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::SingleCertAndKey;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{Error, ServerConfig};
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;

use crate::files::{Tls, provider};

/// A handshake takes milliseconds; whoever dials and says nothing is not waited for.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes at the same time; a fleet of a few hundred agents comes back at once after a network cut.
const HANDSHAKES: usize = 64;
/// Rest after the system refused to accept (no file descriptors left), so that the loop does not spin.
const REST: Duration = Duration::from_millis(100);

/// Connections whose other side has shown a certificate of our CA; for tonic's `serve_with_incoming`.
#[derive(Debug)]
pub struct Incoming {
    accepted: mpsc::Receiver<TlsStream<TcpStream>>,
}

impl Stream for Incoming {
    type Item = io::Result<TlsStream<TcpStream>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.accepted.poll_recv(context).map(|accepted| accepted.map(Ok))
    }
}

/// Accepts on `listener` until the stream that this returns is dropped. Whose name is good for which call is the service's
/// business, which can say so in a sentence; a stranger's certificate ends here.
pub fn incoming(listener: TcpListener, tls: Tls) -> Incoming {
    let (out, accepted) = mpsc::channel(1);
    tokio::spawn(accept(listener, tls, out));
    Incoming { accepted }
}

async fn accept(listener: TcpListener, tls: Tls, out: mpsc::Sender<TlsStream<TcpStream>>) {
    let places = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.accept().await)
        };
        let (place, tcp, from) = tokio::select! {
            () = out.closed() => return,
            (place, accepted) = next => match accepted {
                Ok((tcp, from)) => (place, tcp, from),
                Err(error) => {
                    tracing::warn!(%error, "no connection could be accepted");
                    tokio::time::sleep(REST).await;
                    continue;
                }
            },
        };
        let (tls, out) = (tls.clone(), out.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE, handshake(tcp, &tls)).await {
                // Nobody listens any more: then nobody is served.
                Ok(Ok(stream)) => drop(out.send(stream).await),
                Ok(Err(error)) => tracing::warn!(%from, %error, "a connection was refused"),
                Err(_) => tracing::warn!(%from, "a connection was refused: no TLS handshake within {HANDSHAKE:?}"),
            }
            drop(place);
        });
    }
}

async fn handshake(tcp: TcpStream, tls: &Tls) -> io::Result<TlsStream<TcpStream>> {
    tcp.set_nodelay(true)?;
    TlsAcceptor::from(Arc::new(config(tls).map_err(io::Error::other)?)).accept(tcp).await
}

fn config(tls: &Tls) -> Result<ServerConfig, Error> {
    let material = tls.material();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&material.roots), provider()).build();
    let verifier = verifier.map_err(|error| Error::General(error.to_string()))?;
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])?;
    let identity = SingleCertAndKey::from(Arc::clone(&material.identity));
    let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(Arc::new(identity));
    config.alpn_protocols = vec![b"h2".to_vec()];
    // No resumption: every connection is judged by the certificates as they are now.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
