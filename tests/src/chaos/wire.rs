//! N4: a wire in user space, since this kernel has no netem: a TCP relay beside each agent, whose shape is read from a file.
//! It notes each connection in another file, so that a fault can come right after one was made.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;

use crate::clock::BootNs;

/// How often the file is read again.
const REREAD: Duration = Duration::from_millis(20);
/// What was held comes with so much between two pieces: whoever takes back what he asked comes too late.
const APART: Duration = Duration::from_millis(30);
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
    /// What is said to the far end waits; answers pass.
    pub hold_there: bool,
    /// Answers wait.
    pub hold_back: bool,
    /// What is said to the far end is so long on its way, in milliseconds; answers are not.
    pub there_ms: u64,
    /// Pieces end after a few bytes, and the connection with them, every second time.
    pub tear: bool,
}

type Current = Arc<Mutex<Shape>>;

/// Which way a piece goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

impl Shape {
    fn holds(&self, way: Way) -> bool {
        match way {
            Way::There => self.hold_there,
            Way::Back => self.hold_back,
        }
    }
}

/// Where a wire with this shape notes its connections: a line for each, with the pair's number and the moment.
pub fn dials(shape: &Path) -> PathBuf {
    shape.with_extension("dials")
}

/// Relays each pair for ever, shaped as the file says.
///
/// # Errors
/// If a port cannot be listened on.
pub fn run(pairs: Vec<(SocketAddr, SocketAddr)>, file: PathBuf) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        // What stands there already holds from the first byte on.
        let shape: Current = Arc::new(Mutex::new(read(&file).unwrap_or_default()));
        let dialled = std::fs::OpenOptions::new().create(true).append(true).open(dials(&file))?;
        let dialled = Arc::new(dialled);
        for (number, (from, to)) in pairs.into_iter().enumerate() {
            let listener = TcpListener::bind(from).await.with_context(|| format!("listening on {from}"))?;
            let dialled = dialled.clone();
            let note = move || {
                let line = format!("{number} {}\n", BootNs::now().0);
                // Who waits for the line says that it did not come.
                let _noted = (&*dialled).write_all(line.as_bytes());
            };
            drop(tokio::spawn(accept(listener, to, shape.clone(), note)));
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

async fn accept(listener: TcpListener, to: SocketAddr, shape: Current, note: impl Fn()) {
    while let Ok((near, _)) = listener.accept().await {
        note();
        let shape = shape.clone();
        drop(tokio::spawn(async move {
            let Ok(far) = TcpStream::connect(to).await else { return };
            let _only_latency = (near.set_nodelay(true), far.set_nodelay(true));
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            // One end's end is the end of both.
            tokio::select! {
                () = relay(near_in, far_out, shape.clone(), Way::There) => {}
                () = relay(far_in, near_out, shape, Way::Back) => {}
            }
        }));
    }
}

fn now(shape: &Current) -> Shape {
    shape.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Until one end is gone; what was taken in before that is passed on first.
async fn relay(from: OwnedReadHalf, to: OwnedWriteHalf, shape: Current, way: Way) {
    let (pieces, queue) = unbounded_channel();
    let reading = async {
        take_in(from, pieces, &shape).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = reading => {}
        () = pass_on(queue, to, &shape, way) => {}
    }
}

type Piece = (Instant, Vec<u8>);

async fn take_in(mut from: OwnedReadHalf, pieces: UnboundedSender<Piece>, shape: &Current) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let most = match now(shape).bytes_at_once {
            0 => buffer.len(),
            few => few.min(buffer.len()),
        };
        let Ok(length @ 1..) = from.read(&mut buffer[..most]).await else { return };
        while now(shape).stall {
            tokio::time::sleep(REREAD).await;
        }
        if pieces.send((Instant::now(), buffer[..length].to_vec())).is_err() {
            return;
        }
    }
}

async fn pass_on(mut queue: UnboundedReceiver<Piece>, mut to: OwnedWriteHalf, shape: &Current, way: Way) {
    let mut pieces = 0_u32;
    let mut let_go: Option<Instant> = None;
    while let Some((came, piece)) = queue.recv().await {
        while now(shape).holds(way) {
            tokio::time::sleep(REREAD).await;
            let_go = Some(Instant::now());
        }
        let Shape { delay_ms, jitter_ms, there_ms, tear, .. } = now(shape);
        if delay_ms > 0 {
            let jitter = rand::random_range(0..=2 * jitter_ms);
            tokio::time::sleep(Duration::from_millis((delay_ms + jitter).saturating_sub(jitter_ms))).await;
        }
        if way == Way::There {
            tokio::time::sleep_until(came + Duration::from_millis(there_ms)).await;
        }
        pieces += 1;
        let torn = tear && pieces.is_multiple_of(2);
        let length = if torn { piece.len().min(TORN_AFTER) } else { piece.len() };
        if to.write_all(&piece[..length]).await.is_err() || torn {
            return;
        }
        if let_go.is_some_and(|let_go| came <= let_go) {
            tokio::time::sleep(APART).await;
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
    fn what_is_held_on_its_way_comes_later_in_its_own_pieces_though_who_said_it_is_gone() {
        let dir = tempfile::tempdir().expect("dir");
        let file = dir.path().join("shape.json");
        let shape = |shape: &Shape| {
            std::fs::write(file.with_extension("new"), serde_json::to_string(shape).expect("json")).expect("written");
            std::fs::rename(file.with_extension("new"), &file).expect("in place");
        };
        shape(&Shape { hold_there: true, ..Shape::default() });
        let far = std::net::TcpListener::bind("127.0.0.1:0").expect("far");
        let to = far.local_addr().expect("address");
        let from = SocketAddr::from(([127, 0, 0, 1], free_ports(1).expect("port")[0]));
        let theirs = file.clone();
        std::thread::spawn(move || run(vec![(from, to)], theirs));
        let until = std::time::Instant::now() + Duration::from_secs(20);
        let mut near = loop {
            match std::net::TcpStream::connect(from) {
                Ok(stream) => break stream,
                Err(error) => assert!(std::time::Instant::now() < until, "{error}"),
            }
        };
        let mut heard = far.accept().expect("a connection").0;
        heard.write_all(b"an answer").expect("said");
        let mut answer = [0; 9];
        near.set_read_timeout(Some(Duration::from_secs(20))).expect("limit");
        near.read_exact(&mut answer).expect("answers pass");
        near.write_all(b"ask").expect("said");
        std::thread::sleep(REREAD * 5);
        near.write_all(b"never mind").expect("said");
        drop(near);
        heard.set_read_timeout(Some(REREAD * 5)).expect("limit");
        let mut buffer = [0; 100];
        assert!(heard.read(&mut buffer).is_err(), "it is on its way");
        shape(&Shape::default());
        heard.set_read_timeout(Some(Duration::from_secs(20))).expect("limit");
        assert_eq!(heard.read(&mut buffer).expect("the first piece"), 3);
        assert_eq!(heard.read(&mut buffer).expect("the second piece"), 10);
        let noted = std::fs::read_to_string(dials(&file)).expect("noted");
        assert!(noted.starts_with("0 ") && noted.lines().count() == 1, "{noted}");
    }

    #[test]
    fn a_late_wire_is_late_both_ways_and_a_torn_one_ends() {
        let (back, took) = echoed(&Shape { delay_ms: 50, ..Shape::default() }, LIMIT);
        assert!(back == 100 && took >= Duration::from_millis(200), "{back} bytes in {took:?}");
        let (back, _) = echoed(&Shape { tear: true, ..Shape::default() }, LIMIT);
        assert!(back < 100, "{back}");
    }
}
