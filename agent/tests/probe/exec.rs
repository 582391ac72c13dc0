//! Probes that run a command.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use handover_agent::probe::ProbeRunner;

use crate::stage::{eventually, first_reading, start_in, until};

struct Builds(tempfile::TempDir);

impl Builds {
    fn with(script: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let version = dir.path().join("1.0.0");
        std::fs::create_dir(&version).expect("a version");
        let program = version.join("check");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("a script");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("executable");
        Self(dir)
    }

    fn version(&self) -> PathBuf {
        self.0.path().join("1.0.0")
    }

    fn start(&self, command: &str, more: &str) -> ProbeRunner {
        let probe = format!("name = \"app\"\naffects = \"ready\"\nexec = {{ command = {command} }}\n{more}");
        start_in(self.0.path(), 8081, &[&probe])
    }

    async fn reading(&self) -> (bool, String) {
        // A busy machine may take its time to start a shell.
        first_reading(&self.start("[\"./check\"]", "interval = \"10s\"\ntimeout = \"10s\"")).await
    }
}

async fn number_in(path: &Path) -> i32 {
    let read = || std::fs::read_to_string(path).ok()?.strip_suffix('\n')?.parse().ok();
    eventually("a number is written", || read().is_some()).await;
    read().expect("a number")
}

fn exists(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn the_exit_code_decides_and_the_last_line_is_shown() {
    for (script, met, reading) in [
        ("exit 0", true, "exit code 0"),
        ("echo one; echo two", true, "two"),
        ("exit 3", false, "exit code 3"),
        ("echo no database >&2; exit 3", false, "exit code 3: no database"),
        ("kill -9 $$", false, "signal 9"),
    ] {
        assert_eq!(Builds::with(script).reading().await, (met, reading.to_owned()), "{script}");
    }
}

#[tokio::test]
async fn it_runs_in_the_versions_directory_with_its_placeholders_filled_in() {
    let builds = Builds::with("echo \"$(pwd) $1 $HANDOVER_INSTANCE\"");
    let runner = builds.start("[\"./check\", \"{slot}:{port}:{version}\"]", "interval = \"10s\"\ntimeout = \"10s\"");
    let (met, reading) = first_reading(&runner).await;
    assert!(met);
    assert_eq!(reading, format!("{} a:8081:1.0.0", builds.version().display()), "and without an instance's marks");
}

#[tokio::test]
async fn a_program_that_is_missing_is_unmet_and_named() {
    let builds = Builds::with("exit 0");
    let (met, reading) = first_reading(&builds.start("[\"{builds}/no-such-check\"]", "")).await;
    assert!(!met && reading.contains("no-such-check") && reading.contains("cannot run"), "{reading}");
}

#[tokio::test]
async fn much_output_does_not_block_it() {
    let builds = Builds::with(
        "i=0; while [ $i -lt 3000 ]; do echo 'a line of some length, to fill a pipe'; i=$((i+1)); done; echo end",
    );
    assert_eq!(builds.reading().await, (true, "end".to_owned()));
}

#[tokio::test]
async fn a_descendant_that_holds_its_output_open_does_not_delay_it_and_is_killed() {
    let builds = Builds::with("sleep 1000 & echo $! > child; echo done");
    assert_eq!(builds.reading().await, (true, "done".to_owned()));
    let child = number_in(&builds.version().join("child")).await;
    eventually("the descendant is gone", || !exists(child)).await;
}

#[tokio::test]
async fn its_whole_group_is_killed_and_reaped_when_its_time_is_up() {
    let builds = Builds::with("sleep 1000 & echo $! > child; echo $$ > pid; wait");
    // Long enough that both numbers are written even on a busy machine: that they are is waited for below.
    let runner = builds.start("[\"./check\"]", "interval = \"1s\"\ntimeout = \"1s\"\nstart_interval = \"1s\"");
    let pid = number_in(&builds.version().join("pid")).await;
    let child = number_in(&builds.version().join("child")).await;
    until(&runner, "no answer", |r| r.conditions[0].reading == "no answer within 1s").await;
    eventually("both are gone", || !exists(pid) && !exists(child)).await;
}

#[tokio::test]
async fn it_ends_with_the_runner() {
    let builds = Builds::with("echo $$ > pid; exec sleep 1000");
    let runner = builds.start("[\"./check\"]", "interval = \"1h\"\ntimeout = \"1h\"");
    let pid = number_in(&builds.version().join("pid")).await;
    assert!(exists(pid));
    drop(runner);
    eventually("it is gone", || !exists(pid)).await;
}
