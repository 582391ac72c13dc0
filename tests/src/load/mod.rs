//! Load, open loop: requests leave at a fixed rate whatever became of the earlier ones, and a latency counts from the
//! moment at which the request was *meant* to leave. So a service that stands still for a second shows a second, not one
//! slow request. Nothing is tried again.
//!
//! It runs on a thread and a runtime of its own. What each request is, is computed from its number ([`request`]); what
//! came back is classed in [`outcome`] and counted in [`tally`], both without I/O.

mod balance;
pub mod crowd;
mod dispatch;
pub mod histogram;
pub mod outcome;
mod pool;
pub mod request;
pub mod tally;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use request::Mix;
use tally::{LoadReceipt, Tally};

/// What load to make.
#[derive(Debug, Clone)]
pub struct LoadSpec {
    /// Where clients connect; client c uses gate c modulo their number.
    pub gates: Vec<SocketAddr>,
    /// The operations ports of the gates' hosts, if clients come through a balancer that asks them; empty: they do not.
    pub balanced: Vec<SocketAddr>,
    /// Requests a second, over all gates.
    pub rate_per_s: f64,
    /// The mixture.
    pub mix: Mix,
    /// A request without its whole answer this long after it was meant to leave is lost.
    pub timeout: Duration,
    /// Connections per gate, at most. A request that finds none free waits, and the wait is part of its latency.
    pub max_connections: usize,
}

impl LoadSpec {
    /// A mixture of one write in five, 5 s of patience, up to 256 connections per gate.
    pub fn new(gates: Vec<SocketAddr>, rate_per_s: f64) -> Self {
        let mix = Mix { write_share: 0.2, slow_share: 0.0, slow: Duration::from_millis(500) };
        Self { gates, balanced: Vec::new(), rate_per_s, mix, timeout: Duration::from_secs(5), max_connections: 256 }
    }

    fn check(&self) -> Result<(), LoadError> {
        let share = self.mix.write_share + self.mix.slow_share;
        let shares = self.mix.write_share >= 0.0 && self.mix.slow_share >= 0.0 && share <= 1.0;
        let problem = match self {
            _ if self.gates.is_empty() => "there is no gate to send to",
            _ if !(self.rate_per_s > 0.0 && self.rate_per_s.is_finite()) => "the rate must be above 0",
            _ if !shares => "write share and slow share must be 0 or more and together at most 1",
            _ if !self.balanced.is_empty() && self.balanced.len() != self.gates.len() => {
                "a balancer needs one operations port for each gate"
            }
            _ if self.max_connections == 0 => "at least one connection per gate is needed",
            _ => return Ok(()),
        };
        Err(LoadError::Spec(problem))
    }
}

/// Load that cannot run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The spec makes no sense.
    #[error("the load's spec: {0}")]
    Spec(&'static str),
    /// No thread or runtime.
    #[error("starting the load's thread: {0}")]
    Start(std::io::Error),
    /// The thread ended by a panic: its numbers are worth nothing.
    #[error("the load's thread panicked; its numbers are worth nothing")]
    Died,
}

#[derive(Debug)]
struct Shared {
    tally: Mutex<Tally>,
    in_flight: AtomicUsize,
    start: Instant,
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Running load. Dropped without [`Load::stop`], it ends without a receipt.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Load {
    /// Starts sending.
    ///
    /// # Errors
    /// [`LoadError::Spec`] and [`LoadError::Start`].
    pub fn start(spec: LoadSpec) -> Result<Self, LoadError> {
        spec.check()?;
        let run = format!("{:016x}", rand::random::<u64>());
        let tally = Mutex::new(Tally::new(run.clone(), spec.rate_per_s));
        let shared = Arc::new(Shared { tally, in_flight: AtomicUsize::new(0), start: Instant::now() });
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(LoadError::Start)?;
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || runtime.block_on(dispatch::until_stopped(&theirs, spec, run, stopped)))
            .map_err(LoadError::Start)?;
        Ok(Self { shared, stop, thread })
    }

    /// Requests that are meant to leave from now on belong to this phase.
    pub fn mark(&self, phase: &str) {
        self.shared.tally().mark(phase, self.shared.start.elapsed());
    }

    /// Requests that have left, or wait for a connection, and have no whole answer yet.
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Acquire)
    }

    /// Requests answered well so far, over all phases.
    pub fn answered_well(&self) -> u64 {
        self.shared.tally().answered_well()
    }

    /// Stops sending, waits for what is in flight (at most the timeout), and gives the numbers.
    ///
    /// # Errors
    /// [`LoadError::Died`].
    pub fn stop(self) -> Result<LoadReceipt, LoadError> {
        self.stop.send_replace(true);
        self.thread.join().map_err(|_| LoadError::Died)?;
        Ok(self.shared.tally().receipt())
    }
}
