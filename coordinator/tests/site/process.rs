//! The `handover` binary as processes.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::PATIENCE;

/// An address that was free a moment ago.
pub(crate) fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_handover"));
    command.args(args).env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    command
}

/// Runs a command to its end.
pub(crate) async fn handover(args: &[&str]) -> Output {
    let mut command = command(args);
    tokio::task::spawn_blocking(move || command.output().expect("it runs")).await.expect("it ended")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A process that goes on until it is ended.
pub(crate) struct Daemon {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
    seen: String,
}

impl Daemon {
    /// Starts it, with one more environment variable.
    pub(crate) fn start(args: &[&str], (name, value): (&str, &str)) -> Self {
        let mut child =
            command(args).env(name, value).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it runs");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        Self { child, log, seen: String::new() }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    /// The first line of its log with `word` in it.
    pub(crate) async fn until_it_says(self, word: &'static str) -> (Self, String) {
        let read = tokio::task::spawn_blocking(move || self.read_until(word));
        tokio::time::timeout(PATIENCE, read)
            .await
            .unwrap_or_else(|_| panic!("it never says {word:?}"))
            .expect("it was read")
    }

    fn read_until(mut self, word: &str) -> (Self, String) {
        loop {
            let mut line = String::new();
            let bytes = self.log.read_line(&mut line).expect("its log");
            assert!(bytes > 0, "it ended without saying {word:?}:\n{}", self.seen);
            self.seen.push_str(&line);
            if line.contains(word) {
                return (self, line);
            }
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }

    /// Its end, by itself, and all that it said.
    pub(crate) async fn ended(mut self) -> (std::process::ExitStatus, String) {
        let wait = tokio::task::spawn_blocking(move || {
            self.log.read_to_string(&mut self.seen).expect("its log");
            (self.child.wait().expect("its end"), self.seen.clone())
        });
        tokio::time::timeout(PATIENCE, wait).await.expect("it ends").expect("it was waited for")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that the test did not start itself, ended with the test.
pub(crate) struct Stray(pub(crate) Pid);

impl Stray {
    /// From the `pid=` field of a log line.
    pub(crate) fn named_in(line: &str) -> Self {
        let pid = line.rsplit_once("pid=").expect("a pid").1.trim();
        Self(Pid::from_raw(pid.parse().expect("a number")))
    }

    pub(crate) fn runs(&self) -> bool {
        kill(self.0, None).is_ok()
    }
}

impl Drop for Stray {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}
