//! Reads and writes of clients, on two threads of their own: the database blocks, and the runtime's thread must not.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::billing::ledger::{Ledger, LedgerAt, LedgerError, Paid, Payment, Writer};

/// A client waits at most this long for the write lock: several of the scheduler's units and of other instances' commits.
const PATIENCE: Duration = Duration::from_secs(5);
/// Writes that share one transaction. One commit of so many rows takes hardly longer than one of a single row, and stays
/// short beside a scheduler's unit, which waits behind it.
const PER_COMMIT: usize = 32;

type Reply<T> = oneshot::Sender<Result<T, Arc<LedgerError>>>;
type Write = (Payment, Reply<Paid>);
type Read = (String, Reply<i64>);

/// The way to both threads. They end when the last clone is gone.
#[derive(Debug, Clone)]
pub struct Desk {
    writes: Sender<Write>,
    reads: Sender<Read>,
}

/// A request at the desk that got no result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeskError {
    /// The ledger refused or failed.
    #[error(transparent)]
    Ledger(Arc<LedgerError>),
    /// The thread is gone.
    #[error("the ledger's thread has ended")]
    Closed,
}

impl Desk {
    /// Opens the ledger twice and starts both threads.
    ///
    /// # Errors
    /// When the ledger cannot be opened.
    pub fn open(at: &LedgerAt, writer: &Writer) -> Result<(Self, [JoinHandle<()>; 2]), LedgerError> {
        let (to_write, to_read) =
            (Ledger::open(at, writer.clone(), PATIENCE)?, Ledger::open(at, writer.clone(), PATIENCE)?);
        let ((writes, write_inbox), (reads, read_inbox)) = (channel(), channel());
        let threads = [
            std::thread::spawn(move || write_all(to_write, &write_inbox)),
            std::thread::spawn(move || read_all(to_read, &read_inbox)),
        ];
        Ok((Self { writes, reads }, threads))
    }

    /// Writes one payment; durable when this returns.
    ///
    /// # Errors
    /// [`DeskError`]; then it may or may not be written, and the same key may be tried again.
    pub async fn pay(&self, payment: Payment) -> Result<Paid, DeskError> {
        let (reply, answer) = oneshot::channel();
        self.writes.send((payment, reply)).map_err(|_| DeskError::Closed)?;
        answer.await.map_err(|_| DeskError::Closed)?.map_err(DeskError::Ledger)
    }

    /// Reads one balance in cents.
    ///
    /// # Errors
    /// [`DeskError`].
    pub async fn balance(&self, account: String) -> Result<i64, DeskError> {
        let (reply, answer) = oneshot::channel();
        self.reads.send((account, reply)).map_err(|_| DeskError::Closed)?;
        answer.await.map_err(|_| DeskError::Closed)?.map_err(DeskError::Ledger)
    }
}

fn write_all(mut ledger: Ledger, inbox: &Receiver<Write>) {
    while let Ok(first) = inbox.recv() {
        let (payments, replies): (Vec<Payment>, Vec<_>) =
            std::iter::once(first).chain(inbox.try_iter().take(PER_COMMIT - 1)).unzip();
        let results: Vec<_> = match ledger.pay(&payments) {
            Ok(paid) => paid.into_iter().map(Ok).collect(),
            Err(error) => {
                let error = Arc::new(error);
                replies.iter().map(|_| Err(Arc::clone(&error))).collect()
            }
        };
        for (reply, result) in replies.into_iter().zip(results) {
            // A client that went away still has its payment; it may ask again under the same key.
            let _ = reply.send(result);
        }
    }
}

fn read_all(mut ledger: Ledger, inbox: &Receiver<Read>) {
    while let Ok((account, reply)) = inbox.recv() {
        // Nobody to tell: the client went away.
        let _ = reply.send(ledger.balance(&account).map_err(Arc::new));
    }
}
