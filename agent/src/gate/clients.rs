//! The open client connections: accepted, counted, and waited for at the end.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};

use super::server::GateError;
use super::settings::Mode;
use super::ticket::Gate;
use super::{connection, tcp};

/// How long the gate waits before it tries again what the system refused (a full table of files).
const RETRY: Duration = Duration::from_millis(100);

/// How long what is cut off may take to let go, and how often that is looked at. It takes a few turns of the runtime.
const LET_GO: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(5);

/// How many errors may come between those who wait when the gate leaves. Mostly each is of a client that has gone.
const WAITING_TRIES: usize = 100;

/// Whether the system has no descriptor or memory for another connection, rather than that this one is broken.
fn is_out_of_room(error: &std::io::Error) -> bool {
    let full = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|errno| full.contains(&errno))
}

/// The open client connections.
pub(super) struct Clients {
    gate: Arc<Gate>,
    tasks: JoinSet<()>,
}

impl Clients {
    pub(super) fn new(gate: Arc<Gate>) -> Self {
        Self { gate, tasks: JoinSet::new() }
    }

    pub(super) fn count(&self) -> usize {
        self.tasks.len()
    }

    /// Accepts until `end` does, and hands back what that was.
    pub(super) async fn accept<E>(&mut self, listener: &TcpListener, mut end: Pin<&mut impl Future<Output = E>>) -> E {
        let limit = self.gate.settings.limits.connections;
        loop {
            tokio::select! {
                biased;
                ended = &mut end => return ended,
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => self.left(ended),
                // Beyond the limit they wait in the kernel's queue.
                accepted = listener.accept(), if self.tasks.len() < limit => match accepted {
                    Ok((stream, peer)) => self.welcome(stream, peer),
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a client");
                        if is_out_of_room(&error) {
                            tokio::time::sleep(RETRY).await;
                        }
                    }
                },
            }
        }
    }

    /// Connections that the kernel has accepted already belong to clients whose requests must not be reset.
    pub(super) async fn accept_the_waiting(&mut self, listener: &TcpListener) {
        // Lets the runtime learn from the kernel who waits.
        tokio::task::yield_now().await;
        let mut tries = WAITING_TRIES;
        while let Poll::Ready(accepted) = poll_fn(|cx| Poll::Ready(listener.poll_accept(cx))).await {
            match accepted {
                Ok((stream, peer)) => self.welcome(stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client that waits");
                    tries -= 1;
                    if tries == 0 {
                        return;
                    }
                    if is_out_of_room(&error) {
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        }
    }

    fn welcome(&mut self, stream: TcpStream, peer: SocketAddr) {
        // Without it small answers would wait for the client's acknowledgement; a socket that refuses is closing.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let gate = Arc::clone(&self.gate);
        match gate.settings.mode {
            Mode::Proxy => self.tasks.spawn(connection::serve(gate, stream, peer)),
            Mode::Tcp => self.tasks.spawn(tcp::serve(gate, stream, peer)),
        };
        self.publish();
    }

    fn left(&self, ended: Result<(), JoinError>) {
        if let Err(error) = ended {
            tracing::error!(%error, "the task of a client connection ended");
        }
        self.publish();
    }

    fn publish(&self) {
        self.gate.connections.store(self.tasks.len() as u64, Ordering::Relaxed);
    }

    /// Waits until the last has left: for `patience`, and from the end of `hurry` for `limits.stop_time`.
    pub(super) async fn finish(
        mut self,
        patience: Duration,
        hurry: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<(), GateError> {
        let stop_time = self.gate.settings.limits.stop_time;
        let overdue = async {
            if tokio::time::timeout(patience, hurry).await.is_err() {
                return patience;
            }
            tokio::time::sleep(stop_time).await;
            stop_time
        };
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                self.left(ended);
            }
        };
        let after = tokio::select! {
            biased;
            () = all => return Ok(()),
            after = overdue => after,
        };
        let in_flight = |gate: &Gate| gate.core().report(gate.now()).in_flight;
        let requests = in_flight(&self.gate);
        let connections = self.tasks.len() as u64;
        self.gate.cuts.begin_end();
        self.tasks.shutdown().await;
        // Streams of HTTP/2 and uploads have tasks of their own, which hear of it now.
        let let_go = async {
            while in_flight(&self.gate) > 0 {
                tokio::time::sleep(LOOK).await;
            }
        };
        let all = tokio::time::timeout(LET_GO, let_go).await;
        tracing::debug!(?all, "cut off");
        self.gate.sum_up_cuts();
        Err(GateError::CutOff { requests, connections, after })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lack_of_room_lets_others_wait() {
        let is_out = |errno: Errno| is_out_of_room(&errno.into());
        assert!(is_out(Errno::MFILE) && is_out(Errno::NFILE));
        assert!(!is_out(Errno::CONNABORTED) && !is_out(Errno::PERM));
    }
}
