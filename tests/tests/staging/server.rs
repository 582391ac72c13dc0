//! A file server that counts who asks for what, and can hold an answer back or spoil it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};

/// Serves `/HOST/VERSION/FILE` from `root/VERSION/FILE`.
pub(crate) struct FileServer {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    root: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    asked: BTreeMap<String, usize>,
    held: BTreeSet<String>,
    spoiled: BTreeSet<String>,
    missing: BTreeSet<String>,
}

impl FileServer {
    pub(crate) fn of(root: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared { root, state: Mutex::default(), changed: Condvar::new() });
        let theirs = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                let shared = theirs.clone();
                // Whoever hangs up early does not want the rest.
                std::thread::spawn(move || drop(shared.answer(stream)));
            }
        });
        Self { port, shared }
    }

    /// How often files under this path were asked for.
    pub(crate) fn asked(&self, under: &str) -> usize {
        let state = self.shared.state.lock().expect("a state");
        state.asked.iter().filter(|(path, _)| path.contains(under)).map(|(_, count)| count).sum()
    }

    /// The second half of this file does not come until it is released.
    pub(crate) fn hold(&self, path: &str) {
        self.shared.state.lock().expect("a state").held.insert(path.to_owned());
    }

    pub(crate) fn release(&self, path: &str) {
        self.shared.state.lock().expect("a state").held.remove(path);
        self.shared.changed.notify_all();
    }

    /// This file comes with a byte that was changed.
    pub(crate) fn spoil(&self, path: &str) {
        self.shared.state.lock().expect("a state").spoiled.insert(path.to_owned());
    }

    /// This file is not there.
    pub(crate) fn miss(&self, path: &str) {
        self.shared.state.lock().expect("a state").missing.insert(path.to_owned());
    }

    /// Everything is as it was published.
    pub(crate) fn mend(&self) {
        let mut state = self.shared.state.lock().expect("a state");
        (state.spoiled, state.missing) = Default::default();
    }
}

impl Shared {
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().transpose()?.unwrap_or_default();
        while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
        let path = first.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
        let (spoiled, missing) = {
            let mut state = self.state.lock().expect("a state");
            *state.asked.entry(path.clone()).or_default() += 1;
            (state.spoiled.contains(&path), state.missing.contains(&path))
        };
        let file = path.split_once('/').map(|(_, file)| self.root.join(file)).unwrap_or_default();
        let Some(mut body) = std::fs::read(file).ok().filter(|_| !missing) else {
            return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        };
        if spoiled && let Some(byte) = body.first_mut() {
            *byte ^= 1;
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        let (now, later) = body.split_at(body.len() / 2);
        stream.write_all(head.as_bytes())?;
        stream.write_all(now)?;
        stream.flush()?;
        let state = self.state.lock().expect("a state");
        drop(self.changed.wait_while(state, |state| state.held.contains(&path)).expect("a state"));
        stream.write_all(later)
    }
}
