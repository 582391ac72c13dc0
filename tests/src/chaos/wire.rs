//! N4: a wire in user space, since this kernel has no netem: a TCP relay beside each agent, whose shape is read from a file.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// How often the file is read again.
const REREAD: Duration = Duration::from_millis(20);
/// A torn connection ends after so many bytes of a message.
const TORN_AFTER: usize = 7;

/// What a wire does to what passes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shape {
    /// Each piece comes so much later, in milliseconds.
    pub delay_ms: u64,
    /// Give or take this.
    pub jitter_ms: u64,
    /// No more bytes than this in one piece; 0: as they come.
    pub bytes_at_once: usize,
    /// Nothing passes.
    pub stall: bool,
    /// Pieces end after a few bytes, and the connection with them, every second time.
    pub tear: bool,
}

type Current = Arc<Mutex<Shape>>;

/// Relays each pair for ever, shaped as the file says.
///
/// # Errors
/// If a port cannot be listened on.
pub fn run(pairs: Vec<(SocketAddr, SocketAddr)>, file: PathBuf) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let shape = Current::default();
        for (from, to) in pairs {
            let listener = TcpListener::bind(from).await.with_context(|| format!("listening on {from}"))?;
            drop(tokio::spawn(accept(listener, to, shape.clone())));
        }
        loop {
            tokio::time::sleep(REREAD).await;
            if let Some(read) = read(&file) {
                *shape.lock().unwrap_or_else(PoisonError::into_inner) = read;
            }
        }
    })
}

fn read(file: &Path) -> Option<Shape> {
    serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()
}

async fn accept(listener: TcpListener, to: SocketAddr, shape: Current) {
    while let Ok((near, _)) = listener.accept().await {
        let shape = shape.clone();
        drop(tokio::spawn(async move {
            let Ok(far) = TcpStream::connect(to).await else { return };
            let _only_latency = (near.set_nodelay(true), far.set_nodelay(true));
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            // One end's end is the end of both.
            tokio::select! {
                () = relay(near_in, far_out, shape.clone()) => {}
                () = relay(far_in, near_out, shape) => {}
            }
        }));
    }
}

async fn relay(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shape: Current) {
    let now = || shape.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut buffer = vec![0; 16 * 1024];
    let mut pieces = 0_u32;
    loop {
        let most = match now().bytes_at_once {
            0 => buffer.len(),
            few => few.min(buffer.len()),
        };
        let Ok(length @ 1..) = from.read(&mut buffer[..most]).await else { return };
        while now().stall {
            tokio::time::sleep(REREAD).await;
        }
        let Shape { delay_ms, jitter_ms, tear, .. } = now();
        if delay_ms > 0 {
            let jitter = rand::random_range(0..=2 * jitter_ms);
            tokio::time::sleep(Duration::from_millis((delay_ms + jitter).saturating_sub(jitter_ms))).await;
        }
        pieces += 1;
        let torn = tear && pieces.is_multiple_of(2);
        let length = if torn { length.min(TORN_AFTER) } else { length };
        if to.write_all(&buffer[..length]).await.is_err() || torn {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::fleet::free_ports;

    /// An echo behind a wire of this shape; what came back of 100 bytes within `limit`.
    fn echoed(shape: &Shape, limit: Duration) -> (usize, Duration) {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("shape.json");
        std::fs::write(&file, serde_json::to_string(shape).expect("json")).expect("written");
        let echo = std::net::TcpListener::bind("127.0.0.1:0").expect("echo");
        let to = echo.local_addr().expect("address");
        let from = SocketAddr::from(([127, 0, 0, 1], free_ports(1).expect("port")[0]));
        std::thread::spawn(move || {
            for stream in echo.incoming().flatten() {
                let mut write = stream.try_clone().expect("a clone");
                drop(std::io::copy(&mut &stream, &mut write));
            }
        });
        std::thread::spawn(move || run(vec![(from, to)], file));
        std::thread::sleep(REREAD * 5);
        let until = std::time::Instant::now() + Duration::from_secs(5);
        let mut stream = loop {
            match std::net::TcpStream::connect(from) {
                Ok(stream) => break stream,
                Err(error) => assert!(std::time::Instant::now() < until, "{error}"),
            }
        };
        stream.set_read_timeout(Some(limit)).expect("limit");
        let began = std::time::Instant::now();
        let (mut back, mut buffer) = (0, [0; 200]);
        for _ in 0..2 {
            if stream.write_all(&[7; 50]).is_err() {
                break;
            }
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(length) => back += length,
            }
        }
        (back, began.elapsed())
    }

    const LIMIT: Duration = Duration::from_millis(700);

    #[test]
    fn a_straight_wire_passes_everything_and_a_stalled_one_nothing() {
        assert_eq!(echoed(&Shape::default(), LIMIT).0, 100);
        assert_eq!(echoed(&Shape { stall: true, ..Shape::default() }, LIMIT).0, 0);
    }

    #[test]
    fn a_late_wire_is_late_both_ways_and_a_torn_one_ends() {
        let (back, took) = echoed(&Shape { delay_ms: 50, ..Shape::default() }, LIMIT);
        assert!(back == 100 && took >= Duration::from_millis(200), "{back} bytes in {took:?}");
        let (back, _) = echoed(&Shape { tear: true, ..Shape::default() }, LIMIT);
        assert!(back < 100, "{back}");
    }
}
