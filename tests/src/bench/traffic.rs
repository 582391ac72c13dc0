//! Steady requests through gates, each kept with the moments at which it was sent and answered, and by whom.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use hyper::Method;

use super::exchange::Connection;
use crate::billing::http::VERSION_HEADER;
use crate::clock::BootNs;

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shot {
    /// When it left.
    pub(super) sent: BootNs,
    /// When its whole answer was there.
    pub(super) answered: BootNs,
    /// The version that answered; none: it got no good answer.
    pub(super) version: Option<String>,
}

/// Running load. Dropped, it ends with its next requests.
pub(super) struct Traffic {
    shots: Arc<Mutex<Vec<Shot>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Traffic {
    /// A thread and a connection for each of `gates`, with a request every `every`; a request that takes longer delays
    /// the next.
    pub(super) fn start(gates: &[SocketAddr], every: Duration) -> Result<Self> {
        let (shots, stop) = (Arc::<Mutex<Vec<Shot>>>::default(), Arc::<AtomicBool>::default());
        let spawn = |gate: &SocketAddr| {
            let (gate, shots, stop) = (*gate, Arc::clone(&shots), Arc::clone(&stop));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let work = move || shoot(&runtime, gate, every, &shots, &stop);
            Ok(std::thread::Builder::new().name("traffic".to_owned()).spawn(work)?)
        };
        let threads = gates.iter().map(spawn).collect::<Result<_>>()?;
        Ok(Self { shots, stop, threads })
    }

    /// Whether the last `count` requests were all answered by `version`.
    pub(super) fn all_go_to(&self, version: &str, count: usize) -> bool {
        let shots = self.shots.lock().unwrap_or_else(PoisonError::into_inner);
        shots.len() >= count && shots.iter().rev().take(count).all(|shot| shot.version.as_deref() == Some(version))
    }

    /// Ends it and gives all requests.
    pub(super) fn stop(mut self) -> Result<Vec<Shot>> {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow!("a thread of the load panicked; its numbers are worth nothing"))??;
        }
        Ok(std::mem::take(&mut *self.shots.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

fn shoot(
    runtime: &tokio::runtime::Runtime,
    gate: SocketAddr,
    every: Duration,
    shots: &Mutex<Vec<Shot>>,
    stop: &AtomicBool,
) -> Result<()> {
    let open = || runtime.block_on(Connection::open(gate)).context("the load cannot connect");
    let mut connection = open()?;
    let mut due = Instant::now();
    while !stop.load(Ordering::Acquire) {
        // The load's pace; a sleep of the thread is exact to about 50 µs, one of the runtime only to 1 ms.
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        due = Instant::now().max(due + every);
        let sent = BootNs::now();
        let answer = runtime.block_on(connection.exchange(Method::GET, "/version", Vec::new()));
        let answered = BootNs::now();
        let version = answer
            .as_ref()
            .ok()
            .filter(|answer| answer.status.is_success())
            .and_then(|answer| Some(answer.headers.get(VERSION_HEADER)?.to_str().ok()?.to_owned()));
        if answer.is_err() {
            connection = open()?;
        }
        shots.lock().unwrap_or_else(PoisonError::into_inner).push(Shot { sent, answered, version });
    }
    Ok(())
}

/// How many got no good answer.
pub(super) fn failed(shots: &[Shot]) -> usize {
    shots.iter().filter(|shot| shot.version.is_none()).count()
}
