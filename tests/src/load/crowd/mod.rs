//! A crowd: clients of every kind that a gate has to carry, each in a loop of its own, for as long as it takes.
//!
//! The open-loop load beside it measures latencies; the crowd asks one question: *was anything lost?* Each client keeps its
//! connection as long as it can, and books every request as answered, returned or lost, and every connection that the other
//! side ended as announced or not ([`book`]). What the other side did with a connection is read off the wire ([`wire`]).

mod ask;
pub mod book;
mod events;
mod fate;
mod grpc;
mod http1;
mod http2;
mod websocket;
mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

pub use book::{Book, Counts, CrowdReceipt, Kind};

use crate::load::LoadError;

/// Streams at once on each HTTP/2 connection.
const STREAMS: usize = 8;

/// Who is in the crowd.
#[derive(Debug, Clone)]
pub struct CrowdSpec {
    /// Where all connect.
    pub gate: SocketAddr,
    /// How many clients of each kind.
    pub clients: BTreeMap<Kind, usize>,
    /// A request without its whole answer after this long is lost.
    pub patience: Duration,
    /// All pauses between requests are this many times as long.
    pub pauses: f64,
}

impl CrowdSpec {
    /// The crowd of the issue: 64 keep-alive clients, 16 HTTP/2 connections, 200 idle clients, and a few of every other kind.
    pub fn full(gate: SocketAddr) -> Self {
        let clients = [
            (Kind::KeepAlive, 64),
            (Kind::Http2, 16),
            (Kind::Upload, 8),
            (Kind::Download, 8),
            (Kind::GrpcUnary, 4),
            (Kind::GrpcStream, 8),
            (Kind::WebSocket, 16),
            (Kind::Events, 8),
            (Kind::Idle, 200),
        ];
        Self { gate, clients: clients.into(), patience: Duration::from_secs(20), pauses: 1.0 }
    }

    /// The same, with one client where there are eight; at least one of each kind.
    pub fn small(gate: SocketAddr) -> Self {
        let full = Self::full(gate);
        let clients = full.clients.iter().map(|(kind, count)| (*kind, (count / 8).max(1))).collect();
        Self { clients, ..full }
    }

    /// So many of one kind, and nobody else.
    pub fn only(gate: SocketAddr, kind: Kind, count: usize) -> Self {
        Self { clients: [(kind, count)].into(), ..Self::full(gate) }
    }

    /// Without these kinds.
    #[must_use]
    pub fn without(mut self, kinds: &[Kind]) -> Self {
        self.clients.retain(|kind, _| !kinds.contains(kind));
        self
    }
}

/// What every client has.
#[derive(Debug, Clone)]
struct Visit {
    gate: SocketAddr,
    kind: Kind,
    book: Arc<Book>,
    patience: Duration,
    pauses: f64,
    stop: watch::Receiver<bool>,
}

impl Visit {
    fn is_over(&self) -> bool {
        *self.stop.borrow()
    }

    /// Returns when the crowd is to go home.
    async fn over(&mut self) {
        let _gone = self.stop.wait_for(|stop| *stop).await;
    }

    /// A pause of a random length around the kind's usual one.
    fn pause(&self) -> Duration {
        let usual = match self.kind {
            Kind::KeepAlive | Kind::Http2 => 150,
            Kind::Upload | Kind::Download => 100,
            Kind::GrpcUnary | Kind::GrpcStream | Kind::WebSocket => 100,
            Kind::Events => 50,
            Kind::Idle => 5_000,
        };
        Duration::from_millis(usual).mul_f64(rand::random_range(0.02..2.0) * self.pauses)
    }

    /// The pause between requests, cut short by the crowd's end.
    async fn rest(&mut self) {
        let pause = self.pause();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.over() => {}
        }
    }
}

/// A crowd at work. Dropped without [`Crowd::stop`], it goes home without a receipt.
#[derive(Debug)]
pub struct Crowd {
    book: Arc<Book>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Crowd {
    /// Sends it out, on a thread and a runtime of its own.
    ///
    /// # Errors
    /// [`LoadError::Start`].
    pub fn start(spec: CrowdSpec) -> Result<Self, LoadError> {
        let book = Arc::new(Book::default());
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(LoadError::Start)?;
        let theirs = Arc::clone(&book);
        let thread = std::thread::Builder::new()
            .name("crowd".to_owned())
            .spawn(move || runtime.block_on(send_out(spec, theirs, stopped)))
            .map_err(LoadError::Start)?;
        Ok(Self { book, stop, thread })
    }

    /// The numbers so far.
    pub fn receipt(&self) -> CrowdReceipt {
        self.book.receipt()
    }

    /// Every client finishes what it is in and leaves.
    ///
    /// # Errors
    /// [`LoadError::Died`].
    pub fn stop(self) -> Result<CrowdReceipt, LoadError> {
        self.stop.send_replace(true);
        self.thread.join().map_err(|_| LoadError::Died)?;
        Ok(self.book.receipt())
    }
}

async fn send_out(spec: CrowdSpec, book: Arc<Book>, stop: watch::Receiver<bool>) {
    let clients = TaskTracker::new();
    for (kind, count) in &spec.clients {
        for _ in 0..*count {
            let (book, stop) = (Arc::clone(&book), stop.clone());
            let visit =
                Visit { gate: spec.gate, kind: *kind, book, patience: spec.patience, pauses: spec.pauses, stop };
            match kind {
                Kind::KeepAlive | Kind::Idle | Kind::Upload | Kind::Download => clients.spawn(http1::client(visit)),
                Kind::Http2 => clients.spawn(http2::client(visit, STREAMS)),
                Kind::GrpcUnary => clients.spawn(grpc::asks(visit)),
                Kind::GrpcStream => clients.spawn(grpc::talks(visit)),
                Kind::WebSocket => clients.spawn(websocket::client(visit)),
                Kind::Events => clients.spawn(events::client(visit)),
            };
        }
    }
    clients.close();
    clients.wait().await;
}
