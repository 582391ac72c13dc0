//! A balancer, as small as they come: asks each host's `/ready`, and sends nothing new where the answer is not 200.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

/// Between two questions to one host.
const EVERY: Duration = Duration::from_millis(200);
/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_millis(500);

/// Which gates are up; without hosts to ask, all of them.
pub(super) struct Balance {
    up: Arc<[AtomicBool]>,
    asking: Vec<AbortHandle>,
}

impl Balance {
    /// Asks the operations port of each gate's host.
    pub(super) fn new(operations: &[SocketAddr]) -> Self {
        let up: Arc<[AtomicBool]> = operations.iter().map(|_| AtomicBool::new(true)).collect();
        let ask = |(index, address): (usize, &SocketAddr)| {
            let (up, address) = (Arc::clone(&up), *address);
            let asking = tokio::spawn(async move {
                loop {
                    // An agent that does not answer changes nothing (`SAFETY.md` R3).
                    if let Ok(Some(ready)) = tokio::time::timeout(ANSWER, ready(address)).await {
                        up[index].store(ready, Ordering::Release);
                    }
                    tokio::time::sleep(EVERY).await;
                }
            });
            asking.abort_handle()
        };
        let asking = operations.iter().enumerate().map(ask).collect();
        Self { up, asking }
    }

    /// The gate that takes a request meant for `gate`: this one, or the next that is up.
    pub(super) fn choose(&self, gate: usize) -> usize {
        let count = self.up.len();
        let mut order = (0..count).map(|step| (gate + step) % count);
        order.find(|index| self.up[*index].load(Ordering::Acquire)).unwrap_or(gate)
    }
}

impl Drop for Balance {
    fn drop(&mut self) {
        self.asking.iter().for_each(AbortHandle::abort);
    }
}

async fn ready(address: SocketAddr) -> Option<bool> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(b"GET /ready HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n").await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let status = answer.split(' ').nth(1)?;
    Some(status == "200")
}
