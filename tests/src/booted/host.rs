//! One booted host.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};

use super::cgroups::Cgroups;

/// Nothing that a test runs on a host takes longer, in seconds.
const COMMAND_LIMIT_S: &str = "120";

/// A host. Commands run on it as root.
#[derive(Debug, Clone)]
pub struct BootedHost {
    number: u8,
    cgroups: Cgroups,
}

/// How a command on a host ended.
#[derive(Debug, Clone)]
pub struct Said {
    /// Its exit code; -1 if it was ended by a signal.
    pub code: i32,
    /// What it said.
    pub out: String,
    /// What it complained of.
    pub err: String,
}

impl BootedHost {
    pub(super) fn new(number: u8, cgroups: &Cgroups) -> Self {
        Self { number, cgroups: cgroups.clone() }
    }

    /// Counted from 1.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Its name: app-01.
    pub fn name(&self) -> String {
        format!("app-{:02}", self.number)
    }

    /// Its address on the bridge.
    pub fn address(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 88, 0, self.number))
    }

    /// Runs a command on it, to its end.
    ///
    /// # Errors
    /// If the host does not run, or the command cannot be started.
    pub fn run(&self, words: &[&str]) -> Result<Said> {
        let ended =
            self.command(words)?.output().with_context(|| format!("cannot run {words:?} on {}", self.name()))?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Ok(Said { code: ended.status.code().unwrap_or(-1), out: text(&ended.stdout), err: text(&ended.stderr) })
    }

    /// Runs a command that must succeed; what it said.
    ///
    /// # Errors
    /// If it does not succeed; with what it said.
    pub fn must(&self, words: &[&str]) -> Result<String> {
        let said = self.run(words)?;
        ensure!(said.code == 0, "{words:?} on {} ended with {}: {}{}", self.name(), said.code, said.out, said.err);
        Ok(said.out)
    }

    /// The command, to be started by the caller. It ends with the host.
    ///
    /// # Errors
    /// If the host does not run.
    pub fn command(&self, words: &[&str]) -> Result<Command> {
        let leader = self.cgroups.leader(self.number).with_context(|| format!("{} does not run", self.name()))?;
        let mut command = Command::new("timeout");
        command.args([COMMAND_LIMIT_S, "nsenter", "--target", &leader.to_string(), "--all", "--"]).args(words);
        command.stdin(Stdio::null()).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("NO_COLOR", "1");
        Ok(command)
    }

    /// A path of the host, as this machine reaches it.
    ///
    /// # Errors
    /// If the host does not run.
    pub fn path(&self, path: &str) -> Result<PathBuf> {
        let leader = self.cgroups.leader(self.number).with_context(|| format!("{} does not run", self.name()))?;
        Ok(Path::new(&format!("/proc/{leader}/root")).join(path.trim_start_matches('/')))
    }

    /// Writes a file on it, with its directories.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put(&self, path: &str, text: &str) -> Result<()> {
        let there = self.path(path)?;
        let wrote = there.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&there, text));
        wrote.with_context(|| format!("cannot write {path} on {}", self.name()))
    }

    /// Whether it runs.
    pub fn runs(&self) -> bool {
        self.cgroups.leader(self.number).is_some()
    }

    /// What a unit has in the journal.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub fn journal(&self, unit: &str) -> Result<String> {
        self.must(&["journalctl", "--no-pager", "--output=cat", "--unit", unit])
    }

    pub(super) fn kill(&self) -> Result<()> {
        let leader = self.cgroups.leader(self.number).with_context(|| format!("{} does not run", self.name()))?;
        kill(leader, Signal::SIGKILL).with_context(|| format!("cannot kill PID 1 of {}", self.name()))
    }
}
