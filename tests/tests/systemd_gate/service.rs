//! The service behind the gate: it answers with its name, `/wait` only when it is told to.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use handover_agent::gate::control::Upstream;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::clients::{Answered, ask};
use crate::site::until;

/// A request is at the service this long, so that there are always some.
const WORK: Duration = Duration::from_millis(5);

pub(crate) struct Service {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    asked: AtomicU64,
    held: AtomicUsize,
    release: Semaphore,
}

impl Service {
    /// On the host's network, where the calling thread is.
    pub(crate) async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("10.88.0.254:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let release = Semaphore::new(0);
        let shared = Arc::new(Shared { name, asked: AtomicU64::new(0), held: AtomicUsize::new(0), release });
        let at = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let at = Arc::clone(&at);
                let serve = service_fn(move |request| answer(Arc::clone(&at), request));
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), serve));
            }
        });
        Self { address, shared }
    }

    /// It as the gate's upstream.
    pub(crate) fn upstream(&self) -> Upstream {
        Upstream {
            instance: format!("{:016x}", self.address.port()).parse().expect("an id"),
            version: "1.0.0".parse().expect("a version"),
            address: self.address,
            reads: 1,
            writes: 1,
            ready: true,
        }
    }

    /// A request through the gate that is here, and stays until it is released.
    pub(crate) async fn hold(&self, gate: SocketAddr) -> JoinHandle<Answered> {
        let before = self.held();
        let asking = ask(gate, "/wait");
        until("the request is at the service", async || self.held() > before).await;
        asking
    }

    pub(crate) fn held(&self) -> usize {
        self.shared.held.load(SeqCst)
    }

    /// Answers so many.
    pub(crate) fn release(&self, count: usize) {
        self.shared.release.add_permits(count);
    }

    /// Their clients are gone.
    pub(crate) fn forget_the_held(&self) {
        self.shared.held.store(0, SeqCst);
    }

    /// Requests that came, without those that were to wait.
    pub(crate) fn asked(&self) -> u64 {
        self.shared.asked.load(SeqCst)
    }
}

async fn answer(at: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == "/wait" {
        at.held.fetch_add(1, SeqCst);
        if let Ok(permit) = at.release.acquire().await {
            permit.forget();
            at.held.fetch_sub(1, SeqCst);
        }
    } else {
        at.asked.fetch_add(1, SeqCst);
        tokio::time::sleep(WORK).await;
    }
    let _broken_off = request.into_body().collect().await;
    Ok(Response::new(Full::new(Bytes::from_static(at.name.as_bytes()))))
}
