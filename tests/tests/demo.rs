//! The demo leaves no process behind, however it ends.
#![allow(clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use handover_tests::fleet::{Binaries, processes_of};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

struct Demo {
    child: Child,
    dir: PathBuf,
}

/// Starts the demo and waits until its whole fleet runs.
fn running() -> Demo {
    let program = Binaries::find().expect("the programs").path("demo");
    let temporary = tempfile::tempdir().expect("a directory").keep();
    let mut child = Command::new(program)
        .args(["--json", "--no-build"])
        .env("TMPDIR", &temporary)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the demo");
    let mut lines = BufReader::new(child.stderr.take().expect("its words")).lines();
    lines
        .find(|line| line.as_ref().is_ok_and(|line| line.contains("4. ")))
        .expect("the upgrade begins")
        .expect("a line");
    // The rest is read too, or the demo would wait for us.
    std::thread::spawn(move || lines.for_each(drop));
    let mut entries = std::fs::read_dir(&temporary).expect("the directory");
    let dir = entries.find_map(|entry| entry.ok().map(|entry| entry.path())).expect("the fleet's directory");
    let count = processes_of(&dir).len();
    assert!(count >= 11, "coordinator, store, and three times gate, agent and service; found {count}");
    Demo { child, dir }
}

fn nothing_is_left(dir: &Path) {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let left = processes_of(dir);
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < end, "left behind: {left:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ends_with(signal: Signal) {
    let mut demo = running();
    kill(Pid::from_raw(i32::try_from(demo.child.id()).expect("a pid")), signal).expect("sent");
    demo.child.wait().expect("its end");
    nothing_is_left(&demo.dir);
    drop(std::fs::remove_dir_all(demo.dir.parent().expect("the temporary directory")));
}

#[test]
fn after_ctrl_c_no_process_is_left() {
    ends_with(Signal::SIGINT);
}

#[test]
fn after_a_kill_9_of_the_demo_no_process_is_left() {
    ends_with(Signal::SIGKILL);
}
