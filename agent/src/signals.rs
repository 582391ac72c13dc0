//! SIGTERM and SIGINT, as one thing to wait for.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals.
pub struct Stop {
    term: Signal,
    int: Signal,
}

/// Listens from now on.
///
/// # Errors
/// If the system refuses.
pub fn stop() -> io::Result<Stop> {
    Ok(Stop { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
}

impl Stop {
    /// Waits for either.
    pub async fn recv(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
