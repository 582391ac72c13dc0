//! Work that goes on after the answer to the request that started it. Both ends of a job are payments of one cent, so that
//! the ledger itself says how many were lost: what was started and never finished.
//!
//! On SIGTERM jobs get the time that `--finish-jobs` gives them, which is none unless it is said: an instance that is
//! stopped while it has jobs loses them, and the ledger shows it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::number;
use crate::billing::desk::{Desk, DeskError};
use crate::billing::http::{Billing, Body, failed, refused, whole};
use crate::billing::ledger::{Ledger, LedgerError, Payment};

/// The account whose balance is the number of jobs that were ever started.
pub const STARTED: &str = "jobs-started";
/// The account whose balance is the number of jobs that were finished.
pub const FINISHED: &str = "jobs-finished";
/// The longest job.
const MAX: Duration = Duration::from_secs(3600);

/// Jobs that were started and not finished, by the ledger's word; only of worth when none runs.
///
/// # Errors
/// When the ledger cannot be read.
pub fn lost(ledger: &mut Ledger) -> Result<i64, LedgerError> {
    Ok(ledger.balance(STARTED)? - ledger.balance(FINISHED)?)
}

/// The jobs of one instance.
#[derive(Debug, Clone)]
pub struct Jobs {
    running: Arc<Mutex<BTreeMap<u64, Instant>>>,
    /// Their tasks.
    tasks: TaskTracker,
    /// Jobs go on until this says that they are given up.
    given_up: watch::Sender<bool>,
}

impl Default for Jobs {
    fn default() -> Self {
        Self { running: Arc::default(), tasks: TaskTracker::new(), given_up: watch::Sender::new(false) }
    }
}

impl Jobs {
    fn running(&self) -> MutexGuard<'_, BTreeMap<u64, Instant>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are, and the age of the oldest.
    pub fn shown(&self) -> Value {
        let running = self.running();
        let oldest = running.values().min().map(Instant::elapsed).unwrap_or_default();
        json!({ "in_flight": running.len(), "oldest_ms": u64::try_from(oldest.as_millis()).unwrap_or(u64::MAX) })
    }

    /// The instance stops: jobs have this long, then they are given up. Returns how many were.
    pub async fn end(&self, patience: Duration) -> usize {
        self.tasks.close();
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_err() {
            self.given_up.send_replace(true);
            self.tasks.wait().await;
        }
        self.running().len()
    }

    /// The job counts from here on, also while its start is being written.
    fn begin(&self) -> u64 {
        let id = rand::random();
        self.running().insert(id, Instant::now());
        id
    }

    fn go(&self, desk: Desk, id: u64, takes: Duration) {
        let (jobs, mut given_up) = (self.clone(), self.given_up.subscribe());
        self.tasks.spawn(async move {
            let told = async { given_up.wait_for(|given_up| *given_up).await.is_ok() };
            if let Ok(true) = tokio::time::timeout(takes, told).await {
                return;
            }
            if let Err(error) = note(&desk, id, FINISHED).await {
                tracing::error!(%error, "a job is lost: its end cannot be written");
            }
            jobs.running().remove(&id);
        });
    }
}

async fn note(desk: &Desk, id: u64, account: &str) -> Result<(), DeskError> {
    let payment = Payment { key: format!("{account}-{id:016x}"), account: account.to_owned(), cents: 1 };
    desk.pay(payment).await.map(drop)
}

/// `POST /jobs?ms=N`: it is started, and in the ledger, when the answer comes.
pub(super) async fn start(billing: &Billing, query: &str) -> Response<Body> {
    let Some(takes) = number(query, "ms").map(Duration::from_millis).filter(|takes| *takes <= MAX) else {
        return refused(StatusCode::BAD_REQUEST, format!("give ?ms=N, at most {}", MAX.as_millis()));
    };
    let id = billing.jobs.begin();
    if let Err(error) = note(&billing.desk, id, STARTED).await {
        billing.jobs.running().remove(&id);
        return failed(&error);
    }
    billing.jobs.go(billing.desk.clone(), id, takes);
    whole(StatusCode::ACCEPTED, &json!({ "job": format!("{id:016x}") }))
}
