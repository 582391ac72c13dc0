//! A server with known failures: what it does depends only on how many requests it has had, and it counts what it did.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex};

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

/// What the stub does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Act {
    Ok,
    OkFromVersion2,
    ServiceFault,
    GateError,
    ServiceError,
    NotFound,
    /// Closes without an answer.
    Close,
    /// Announces ten bytes, sends four, closes.
    CutBody,
    /// Never answers.
    Hang,
    /// Answers well, then closes the connection without having said so.
    OkThenClose,
    /// Answers well and says that it closes.
    OkAndSaysClose,
    /// Answers well, but not before the test says so.
    Hold,
}

impl Act {
    fn answer(self) -> &'static str {
        match self {
            Act::Ok | Act::OkThenClose | Act::Hold => "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            Act::OkFromVersion2 => "HTTP/1.1 200 OK\r\nhandover-version: 2.0.0\r\ncontent-length: 2\r\n\r\nok",
            Act::OkAndSaysClose => "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
            Act::ServiceFault => "HTTP/1.1 500 X\r\nbilling-fault: 1\r\ncontent-length: 0\r\n\r\n",
            Act::GateError => "HTTP/1.1 503 X\r\nhandover-gate: shut\r\ncontent-length: 0\r\n\r\n",
            Act::ServiceError => "HTTP/1.1 502 X\r\ncontent-length: 0\r\n\r\n",
            Act::NotFound => "HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n",
            Act::CutBody => "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfour",
            Act::Close | Act::Hang => "",
        }
    }

    fn ends_connection(self) -> bool {
        matches!(self, Act::Close | Act::CutBody | Act::OkThenClose | Act::OkAndSaysClose)
    }
}

#[derive(Default)]
struct State {
    requests: usize,
    did: BTreeMap<Act, u64>,
    connections: usize,
    released: bool,
}

/// The server. Its threads end with the test process.
#[derive(Clone)]
pub(crate) struct Stub {
    pub(crate) address: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Stub {
    /// Does the acts in turn, again and again.
    pub(crate) fn start(acts: &'static [Act]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let stub = Self { address, state: Arc::default() };
        let shared = stub.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, shared) = (stream.expect("accept"), shared.clone());
                shared.state.0.lock().expect("lock").connections += 1;
                // The client may hang up at any moment.
                std::thread::spawn(move || drop(shared.serve(stream, acts)));
            }
        });
        stub
    }

    fn serve(&self, mut stream: TcpStream, acts: &[Act]) -> std::io::Result<()> {
        let mut kept = Vec::new();
        while read_request(&mut stream, &mut kept)? {
            let act = {
                let mut state = self.state.0.lock().expect("lock");
                let act = acts[state.requests % acts.len()];
                state.requests += 1;
                *state.did.entry(act).or_default() += 1;
                act
            };
            if act == Act::Hold {
                let state = self.state.0.lock().expect("lock");
                drop(self.state.1.wait_while(state, |state| !state.released).expect("wait"));
            }
            stream.write_all(act.answer().as_bytes())?;
            if act.ends_connection() {
                return Ok(());
            }
        }
        Ok(())
    }

    pub(crate) fn did(&self, act: Act) -> u64 {
        self.state.0.lock().expect("lock").did.get(&act).copied().unwrap_or(0)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.state.0.lock().expect("lock").requests as u64
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.0.lock().expect("lock").connections
    }

    pub(crate) fn release(&self) {
        self.state.0.lock().expect("lock").released = true;
        self.state.1.notify_all();
    }
}

/// Reads one request with its body; false when the client has hung up.
fn read_request(stream: &mut TcpStream, kept: &mut Vec<u8>) -> std::io::Result<bool> {
    loop {
        if let Some(end) = kept.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&kept[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
            let whole = end + 4 + length.unwrap_or(0usize);
            if kept.len() >= whole {
                kept.drain(..whole);
                return Ok(true);
            }
        }
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece)?;
        if read == 0 {
            return Ok(false);
        }
        kept.extend_from_slice(&piece[..read]);
    }
}
