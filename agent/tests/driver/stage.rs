//! What every test here needs: a builds directory with a script, a driver, and a way to wait.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use handover_agent::driver::{Exit, Owner, ProcessDriver, StartSpec};
use handover_proto::ids::InstanceId;
use tokio::sync::{Mutex, MutexGuard, mpsc};

/// Far above what anything here takes, so that reaching it means "never".
const DEADLINE: Duration = Duration::from_secs(20);

/// One driver per process is the rule, and all tests of a binary share one process.
static ALONE: Mutex<()> = Mutex::const_new(());

pub struct Stage {
    pub driver: ProcessDriver,
    pub exits: mpsc::Receiver<Exit>,
    pub dir: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Stage {
    pub async fn new() -> Self {
        let alone = ALONE.lock().await;
        let dir = tempfile::tempdir().expect("a directory");
        let (driver, exits) = ProcessDriver::open(owner(dir.path())).expect("a driver");
        Self { driver, exits, dir, _alone: alone }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a shell script as an instance; `$D` in it is the test's directory.
    pub fn start(&self, script: &str) -> InstanceId {
        let spec = spec(self.dir.path(), script);
        self.driver.start(&spec).expect("started").instance
    }

    pub async fn exit(&mut self) -> Exit {
        tokio::time::timeout(DEADLINE, self.exits.recv()).await.expect("an exit in time").expect("an exit")
    }

    /// Waits until the script has written a number into the file.
    pub async fn number(&self, name: &str) -> i32 {
        number_in(&self.path(name)).await
    }
}

pub fn owner(state_dir: &Path) -> Owner {
    Owner {
        env: "test".parse().expect("env"),
        service: "billing".parse().expect("service"),
        agent: "app-01".parse().expect("agent"),
        state_dir: state_dir.to_owned(),
    }
}

pub fn spec(dir: &Path, script: &str) -> StartSpec {
    let directory = dir.join("builds/1.0.0");
    fs::create_dir_all(&directory).expect("a version directory");
    let program = directory.join("run");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
    StartSpec {
        slot: "a".parse().expect("slot"),
        instance: InstanceId::random(),
        version: "1.0.0".parse().expect("version"),
        command: vec!["./run".to_owned()],
        env: vec![("D".to_owned(), dir.to_string_lossy().into_owned())],
        directory,
        output: dir.join("output/a.log"),
    }
}

/// Waits for a condition, never for a time.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn number_in(path: &Path) -> i32 {
    let read = || fs::read_to_string(path).ok()?.strip_suffix('\n')?.parse().ok();
    eventually(&format!("a number in {}", path.display()), || read().is_some()).await;
    read().expect("a number")
}

/// The fields of `/proc/PID/stat` after the name: state, parent, group, session, …; none if there is no such process.
pub fn stat(pid: i32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

pub fn runs(pid: i32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z" && fields[0] != "X")
}

pub fn me() -> i32 {
    i32::try_from(std::process::id()).expect("a pid")
}

pub fn kill(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("a signal sent");
}
