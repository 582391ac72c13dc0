//! What every test here needs: a builds directory with a script, a driver, and a way to wait.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use handover_agent::driver::{Exit, Owner, ProcessDriver, StartSpec, Told};
use handover_proto::ids::InstanceId;
use tokio::sync::{Mutex, MutexGuard, mpsc};

/// Far above what anything here takes, so that reaching it means "never".
const DEADLINE: Duration = Duration::from_secs(20);

const UNTIL_GO: &str = "until [ -e $D/go ]; do sleep 0.01; done";

/// One driver per process is the rule, and all tests of a binary share one process.
static ALONE: Mutex<()> = Mutex::const_new(());

pub(crate) struct Stage {
    pub(crate) driver: ProcessDriver,
    pub(crate) exits: mpsc::Receiver<Told>,
    pub(crate) dir: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        Self::after(async |_| ()).await.0
    }

    /// Opens the driver after something has been done in the test's directory, while this process is no subreaper: what
    /// loses its parent meanwhile becomes init's child and not ours, as with a restarted agent.
    pub(crate) async fn after<T>(first: impl AsyncFnOnce(&Path) -> T) -> (Self, T) {
        let alone = ALONE.lock().await;
        let dir = tempfile::tempdir().expect("a directory");
        nix::sys::prctl::set_child_subreaper(false).expect("no subreaper");
        let result = first(dir.path()).await;
        let (driver, exits) = ProcessDriver::open(owner(dir.path())).expect("a driver");
        (Self { driver, exits, dir, _alone: alone }, result)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a shell script as an instance; `$D` in it is the test's directory.
    pub(crate) fn start(&self, script: &str) -> InstanceId {
        let spec = spec(self.dir.path(), script);
        self.driver.start(&spec).expect("started").instance
    }

    pub(crate) async fn exit(&mut self) -> Exit {
        match tokio::time::timeout(DEADLINE, self.exits.recv()).await.expect("an exit in time").expect("an exit") {
            Told::Exit(exit) => exit,
            other => panic!("this driver knows all of a process at once: {other:?}"),
        }
    }

    /// Waits until the script has written a number into the file.
    pub(crate) async fn number(&self, name: &str) -> i32 {
        number_in(&self.path(name)).await
    }
}

/// A test that fails leaves no process behind either: all of them have the directory in their environment.
impl Drop for Stage {
    fn drop(&mut self) {
        let mark = format!("D={}\0", self.dir.path().display());
        for pid in pids().filter(|pid| *pid != me()) {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            if environ.windows(mark.len()).any(|part| part == mark.as_bytes()) {
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).ok();
            }
        }
    }
}

pub(crate) fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").expect("proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

pub(crate) fn owner(state_dir: &Path) -> Owner {
    Owner {
        env: "test".parse().expect("env"),
        service: "billing".parse().expect("service"),
        agent: "app-01".parse().expect("agent"),
        state_dir: state_dir.to_owned(),
    }
}

/// `UNTIL_GO` in a script waits until the test has written the file `go`.
pub(crate) fn spec(dir: &Path, script: &str) -> StartSpec {
    let directory = dir.join("builds/1.0.0");
    fs::create_dir_all(&directory).expect("a version directory");
    let instance = InstanceId::random();
    let name = format!("run-{instance}");
    let program = directory.join(&name);
    fs::write(&program, format!("#!/bin/sh\n{}\n", script.replace("UNTIL_GO", UNTIL_GO))).expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
    StartSpec {
        slot: "a".parse().expect("slot"),
        instance,
        version: "1.0.0".parse().expect("version"),
        command: vec![format!("./{name}")],
        env: vec![("D".to_owned(), dir.to_string_lossy().into_owned())],
        directory,
        output: dir.join("output/a.log"),
    }
}

/// Waits for a condition, never for a time.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn number_in(path: &Path) -> i32 {
    let read = || fs::read_to_string(path).ok()?.strip_suffix('\n')?.parse().ok();
    eventually(&format!("a number in {}", path.display()), || read().is_some()).await;
    read().expect("a number")
}

/// The fields of `/proc/PID/stat` after the name: state, parent, group, session, …; none if there is no such process.
pub(crate) fn stat(pid: i32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').map(str::to_owned).collect())
}

pub(crate) fn runs(pid: i32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z" && fields[0] != "X")
}

pub(crate) fn me() -> i32 {
    i32::try_from(std::process::id()).expect("a pid")
}

pub(crate) fn kill(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("a signal sent");
}
