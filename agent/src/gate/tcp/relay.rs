//! Bytes both ways between two sockets, with half-closes kept.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::net::{Shutdown, shutdown};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// With 8 KiB a MiB costs four times as much. One for all connections of a thread: a connection needs memory of its own only
/// while the other side does not take what was read.
const BUFFER_BYTES: usize = 64 << 10;
/// How much of what a client still sends is read when its service has broken off, and for how long.
const LINGER_BYTES: usize = 256 << 10;
const LINGER_TIME: Duration = Duration::from_secs(5);

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER_BYTES]);
}

/// How a connection came to its end.
#[derive(Debug)]
pub(super) enum Ended {
    /// Both sides have said all.
    Well,
    /// Nothing moved for the idle time.
    Idle,
    /// The client's side broke.
    ByClient(io::Error),
    /// The upstream's side broke.
    ByUpstream(io::Error),
}

impl Ended {
    fn of_up(broken: Broken) -> Self {
        match broken {
            Broken::From(error) => Ended::ByClient(error),
            Broken::To(error) => Ended::ByUpstream(error),
        }
    }

    fn of_down(broken: Broken) -> Self {
        match broken {
            Broken::From(error) => Ended::ByUpstream(error),
            Broken::To(error) => Ended::ByClient(error),
        }
    }
}

/// Which of its two sockets one direction broke on.
enum Broken {
    From(io::Error),
    To(io::Error),
}

/// When a byte last moved.
struct Moved {
    began: Instant,
    last_ms: AtomicU64,
}

impl Moved {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn note(&self) {
        self.last_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// Ends when nothing has moved for so long.
    async fn stands_still(&self, limit: Duration) {
        loop {
            let due = self.began + Duration::from_millis(self.last_ms.load(Ordering::Relaxed)) + limit;
            if Instant::now() >= due {
                return;
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

/// Passes on what either side says until both have said all. If one takes no more, what it has said before is still passed
/// on; what the other says meanwhile is read and thrown away.
pub(super) async fn relay(client: &TcpStream, upstream: &TcpStream, idle: Duration) -> Ended {
    let moved = Moved { began: Instant::now(), last_ms: AtomicU64::new(0) };
    let both = async {
        let (mut up, mut down) = (pin!(one_way(client, upstream, &moved)), pin!(one_way(upstream, client, &moved)));
        tokio::select! {
            ended = &mut up => match ended {
                Ok(()) => down.await.map_err(Ended::of_down),
                Err(broken) => {
                    rest(&broken, down, client).await;
                    Err(Ended::of_up(broken))
                }
            },
            ended = &mut down => match ended {
                Ok(()) => up.await.map_err(Ended::of_up),
                Err(broken) => {
                    rest(&broken, up, upstream).await;
                    Err(Ended::of_down(broken))
                }
            },
        }
    };
    tokio::select! {
        biased;
        ended = both => ended.err().unwrap_or(Ended::Well),
        () = moved.stands_still(idle) => Ended::Idle,
    }
}

/// Lets the other direction come to its end if it can, while `talker` is heard for nothing.
async fn rest(broken: &Broken, other: impl Future<Output = Result<(), Broken>>, talker: &TcpStream) {
    if matches!(broken, Broken::From(_)) {
        // Nobody is there to whom it leads.
        return;
    }
    tokio::select! {
        // How it ends is no matter: the connection is broken.
        _either = other => {}
        () = async {
            discard(talker, usize::MAX).await;
            std::future::pending().await
        } => {}
    }
}

/// Reads and throws away, until the end or so much.
async fn discard(from: &TcpStream, most: usize) {
    let mut left = most;
    while left > 0 && from.readable().await.is_ok() {
        tokio::task::consume_budget().await;
        match BUFFER.with_borrow_mut(|buffer| from.try_read(buffer)) {
            Ok(0) => return,
            Ok(count) => left = left.saturating_sub(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Ends our side to a client that may still be sending, and reads on for a while: closing with unread bytes makes the kernel
/// send a reset, and the client loses what it has not read.
pub(super) async fn linger(client: &TcpStream) {
    if shutdown(client, Shutdown::Write).is_ok() {
        // What came in that time is enough.
        let _either = tokio::time::timeout(LINGER_TIME, discard(client, LINGER_BYTES)).await;
    }
}

async fn one_way(from: &TcpStream, to: &TcpStream, moved: &Moved) -> Result<(), Broken> {
    loop {
        // A connection that always has something to say must not keep others from being served.
        tokio::task::consume_budget().await;
        from.readable().await.map_err(Broken::From)?;
        let rest = match pass(from, to) {
            Ok(Passed::End) => {
                // One that is closed already is as good as told.
                let _told = shutdown(to, Shutdown::Write);
                return Ok(());
            }
            Ok(Passed::All) => Vec::new(),
            Ok(Passed::Part(rest)) => rest,
            Err(Broken::From(error)) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        moved.note();
        let mut left = rest.as_slice();
        while !left.is_empty() {
            to.writable().await.map_err(Broken::To)?;
            match to.try_write(left) {
                Ok(count) => {
                    left = &left[count..];
                    moved.note();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(Broken::To(error)),
            }
        }
    }
}

enum Passed {
    /// The sender has said all.
    End,
    All,
    /// This is still to be written.
    Part(Vec<u8>),
}

/// Reads once and writes once.
fn pass(from: &TcpStream, to: &TcpStream) -> Result<Passed, Broken> {
    BUFFER.with_borrow_mut(|buffer| {
        let read = from.try_read(buffer).map_err(Broken::From)?;
        if read == 0 {
            return Ok(Passed::End);
        }
        let written = match to.try_write(&buffer[..read]) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(Broken::To(error)),
        };
        Ok(if written == read { Passed::All } else { Passed::Part(buffer[written..read].to_vec()) })
    })
}
