//! A running wrapper, and a look at the processes below it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use handover_proto::ids::InstanceId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::lease_site::{Agent, PATIENCE};

pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Runs the program to its end: exit code, and what it said on both outputs.
pub(crate) fn output(args: &[&str]) -> (Option<i32>, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_handover-agent")).args(args).output().expect("the program");
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    (done.status.code(), said)
}

pub(crate) struct Wrapped {
    child: Child,
    said: PathBuf,
    mark: String,
}

impl Wrapped {
    /// Runs `script` in a shell, wrapped, with `dir` as the working directory.
    pub(crate) fn start(agent: &Agent, id: &InstanceId, dir: &Path, flags: &[&str], script: &str) -> Self {
        let said = dir.join(format!("{id}.err"));
        let child = Command::new(env!("CARGO_BIN_EXE_handover-agent"))
            .args(["lease", "exec"])
            .args(flags)
            .args(["--", "sh", "-c", script])
            .env("HANDOVER_LEASE_SOCKET", agent.runtime_dir.path().join("lease.sock"))
            .env("HANDOVER_INSTANCE", id.as_str())
            .current_dir(dir)
            .stdin(Stdio::null())
            .stderr(fs::File::create(&said).expect("a file"))
            .spawn()
            .expect("the wrapper");
        Self { child, said, mark: format!("HANDOVER_INSTANCE={id}") }
    }

    /// Every living process of it, the wrapper included, found by the mark in their environment.
    pub(crate) fn tree(&self) -> Vec<i32> {
        let entries = fs::read_dir("/proc").expect("/proc").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let marked = |pid: &i32| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|byte| *byte == 0).any(|variable| variable == self.mark.as_bytes())
        };
        pids.filter(|pid| is_alive(*pid) && marked(pid)).collect()
    }

    /// The process that the wrapper started.
    pub(crate) fn command_pid(&self) -> Option<i32> {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_ascii_whitespace().next()?.parse().ok()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")), signal).expect("a signal");
    }

    /// Its exit code; none: a signal ended it.
    pub(crate) async fn wait(&mut self) -> Option<i32> {
        let mut status = None;
        until("the wrapper's end", || {
            status = self.child.try_wait().expect("its state");
            status.is_some()
        })
        .await;
        status.and_then(|status| status.code())
    }

    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }
}

/// A test that fails leaves no process behind either.
impl Drop for Wrapped {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        for pid in self.tree() {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
    }
}

pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
