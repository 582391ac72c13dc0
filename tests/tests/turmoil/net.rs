//! The store's client and server over turmoil's network.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use handover_store::client::Dial;
use handover_store::server::serve_over;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::Service;
use tonic::transport::server::Connected;
use tonic::transport::{Endpoint, Uri};
use turmoil::net::{TcpListener, TcpStream};

pub(crate) const PORT: u16 = 2790;

/// A simulated connection, as the server takes it.
pub(crate) struct Connection(TcpStream);

impl Connected for Connection {
    type ConnectInfo = ();
    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Connects by turmoil's names.
#[derive(Clone)]
struct Connector;

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().to_owned();
            TcpStream::connect((host, uri.port_u16().unwrap_or(PORT))).await.map(TokioIo::new)
        })
    }
}

pub(crate) fn dial() -> Dial {
    Arc::new(|endpoint: &Endpoint| endpoint.connect_with_connector_lazy(Connector))
}

/// The embedded store, for as long as its host lives.
pub(crate) async fn store(data: PathBuf) -> turmoil::Result {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let (accepted, incoming) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if accepted.send(Ok(Connection(stream))).await.is_err() {
                return;
            }
        }
    });
    let address = ([127, 0, 0, 1], PORT).into();
    serve_over(&data, address, ReceiverStream::new(incoming), std::future::pending()).await?;
    Ok(())
}
