//! Stands between an agent and HAProxy's stats socket: a HAProxy that takes an order and is then slow to answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    Quick,
    /// Slow from the next `state ready` on.
    SlowOnceReady,
    Slow,
    End,
}

type Shared = Arc<(Mutex<Pace>, Condvar)>;

pub(crate) struct Relay {
    pub(crate) path: PathBuf,
    pace: Shared,
    looks: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    pub(crate) fn start(dir: &Path, haproxy: PathBuf) -> Self {
        let path = dir.join("relay.sock");
        let (listener, pace) =
            (UnixListener::bind(&path).expect("a socket"), Shared::new((Pace::Quick.into(), Condvar::new())));
        let (shared, looks) = (pace.clone(), Arc::new(AtomicUsize::new(0)));
        let looked = looks.clone();
        let thread = std::thread::spawn(move || {
            std::thread::scope(|scope| {
                for stream in listener.incoming() {
                    if *shared.0.lock().expect("a pace") == Pace::End {
                        return;
                    }
                    scope.spawn(|| pass(stream.expect("accepted"), &haproxy, &shared, &looked));
                }
            });
        });
        Self { path, pace, looks, thread: Some(thread) }
    }

    /// Answers nothing more after the next `state ready`, which HAProxy gets.
    pub(crate) fn slow_once_ready(&self) {
        self.set(Pace::SlowOnceReady);
    }

    pub(crate) fn quick(&self) {
        self.set(Pace::Quick);
    }

    /// How often HAProxy was asked for its state.
    pub(crate) fn looks(&self) -> usize {
        self.looks.load(Ordering::SeqCst)
    }

    fn set(&self, pace: Pace) {
        *self.pace.0.lock().expect("a pace") = pace;
        self.pace.1.notify_all();
    }
}

/// One command, as HAProxy takes them. The agent may have given up before it is answered.
fn pass(agent: UnixStream, haproxy: &Path, pace: &(Mutex<Pace>, Condvar), looks: &AtomicUsize) {
    let (mut command, mut answer) = (String::new(), String::new());
    let _ended = BufReader::new(&agent).read_line(&mut command);
    if let Ok(mut stream) = UnixStream::connect(haproxy) {
        let _sent = stream.write_all(command.as_bytes());
        let _read = stream.read_to_string(&mut answer);
    }
    if command.starts_with("show servers state") {
        looks.fetch_add(1, Ordering::SeqCst);
    }
    let mut now = pace.0.lock().expect("a pace");
    if *now == Pace::SlowOnceReady && command.contains("state ready") {
        *now = Pace::Slow;
    }
    drop(pace.1.wait_while(now, |now| *now == Pace::Slow).expect("a pace"));
    let _answered = (&agent).write_all(answer.as_bytes());
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.set(Pace::End);
        let _woken = UnixStream::connect(&self.path);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}
