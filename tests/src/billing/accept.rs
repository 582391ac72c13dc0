//! The listener: HTTP/1.1 and HTTP/2 with prior knowledge on one port, until SIGTERM.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::Signal;
use tokio::sync::{oneshot, watch};

use crate::billing::faults::Watched;
use crate::billing::http::Billing;
use crate::billing::scheduler::Message;

/// A breath after an accept that failed, so that a lack of descriptors does not become a busy loop.
const ACCEPT_AGAIN: Duration = Duration::from_millis(10);

/// Accepts until SIGTERM, then lets every connection finish what it is in, and jobs as long as they are given.
pub(super) async fn until_told(
    listener: TcpListener,
    billing: Arc<Billing>,
    closing: watch::Sender<bool>,
    mut sigterm: Signal,
    faults: &Watched,
    mut scheduler_ended: oneshot::Receiver<std::io::Result<()>>,
) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                match accepted {
                    Ok((stream, _)) => {
                        billing.closing.open.spawn(connection(stream, Arc::clone(&billing)));
                    }
                    // The client left early, or descriptors ran out; neither concerns the others.
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_AGAIN).await;
                    }
                }
            }
            _ = sigterm.recv() => {
                if !faults.now().hang_on_sigterm {
                    break;
                }
                tracing::warn!("ignoring SIGTERM, as the fault hang-on-sigterm asks");
            }
            result = &mut scheduler_ended => {
                return result.context("the scheduler panicked")?.context("recording the scheduler's activity");
            }
        }
    }
    tracing::info!("SIGTERM: finishing what is in flight");
    // Scheduling ends first: requests may take long, and the lease may already be wanted elsewhere. The scheduler may
    // have ended by itself; then there is nobody to tell.
    let _ = billing.scheduler.send(Message::Close);
    drop(listener);
    closing.send_replace(true);
    billing.closing.open.close();
    billing.closing.open.wait().await;
    let lost = billing.jobs.end(billing.finish_jobs).await;
    if lost > 0 {
        tracing::error!(lost, "jobs were lost: the instance was stopped while it had some");
    }
    Ok(())
}

async fn connection(stream: TcpStream, billing: Arc<Billing>) {
    // Only latency is at stake.
    let _ = stream.set_nodelay(true);
    let mut closing = billing.closing.clone();
    let service = service_fn(move |request| {
        let billing = Arc::clone(&billing);
        async move { Ok::<_, Infallible>(billing.answer(request).await) }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    let mut connection = pin!(server.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let result = tokio::select! {
        result = &mut connection => result,
        () = closing.wait() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
}
