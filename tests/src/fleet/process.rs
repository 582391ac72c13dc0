//! One started program: its log, its end, and how all processes of a fleet are found again.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill as send};
use nix::unistd::{Pid, User};

/// Marks every process of a fleet, the instances that its agents start included.
const MARK: &str = "FLEET_DIR";

/// A started program.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Where its output goes.
    pub log: PathBuf,
}

impl Process {
    /// Starts a program in a process group of its own, so that Ctrl-C reaches only the one who started it.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(name: &str, program: &Path, args: &[String], dir: &Path, env: &[(&str, String)]) -> Result<Self> {
        Self::spawn_as(name, program, args, dir, env, None)
    }

    /// The same, as another user: some servers refuse to run as root.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn_as(
        name: &str,
        program: &Path,
        args: &[String],
        dir: &Path,
        env: &[(&str, String)],
        user: Option<User>,
    ) -> Result<Self> {
        let logs = dir.join("log");
        std::fs::create_dir_all(&logs)?;
        let log = logs.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log)?;
        let mut command = Command::new(program);
        command.args(args).envs(env.iter().map(|(name, value)| (name, value))).env(MARK, dir);
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        if let Some(user) = user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw()).current_dir("/");
        }
        let child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { child, log })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// If it has ended already.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        send(Pid::from_raw(i32::try_from(self.pid())?), signal).with_context(|| format!("{signal} to {}", self.pid()))
    }

    /// Kills it and waits for its end.
    ///
    /// # Errors
    /// If it had ended already.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Takes note of its end, if it has ended.
    pub fn reap(&mut self) {
        drop(self.child.try_wait());
    }

    /// What it wrote.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Every live process of the fleet in `dir`.
pub fn processes_of(dir: &Path) -> Vec<i32> {
    let mark = format!("{MARK}={}", dir.display());
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    })
    .collect()
}

/// Kills by pid; one that has ended meanwhile is fine.
pub(super) fn kill(pid: i32) {
    let _ended_already = send(Pid::from_raw(pid), Signal::SIGKILL);
}
