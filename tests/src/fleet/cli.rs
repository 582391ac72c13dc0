//! The `handover` command, as its user would run it.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Fleet, Process, Secure, Spec};

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code.
    pub code: i32,
    /// What it said.
    pub out: String,
    /// What it complained of.
    pub err: String,
}

/// The command line, pointed at a fleet.
pub struct Cli<'a> {
    fleet: &'a Fleet,
}

impl<'a> Cli<'a> {
    pub(super) fn new(fleet: &'a Fleet) -> Self {
        Self { fleet }
    }

    /// The arguments that point it at the fleet, for people to copy.
    pub fn words(&self) -> Vec<String> {
        let fleet = self.fleet;
        let program = fleet.binaries.path("handover").display().to_string();
        let (coordinator, store) = (fleet.coordinator.to_string(), fleet.stores().join(","));
        vec![program, "--env".into(), super::ENV.into(), "--coordinator".into(), coordinator, "--store".into(), store]
    }

    fn command(&self, args: &[&str]) -> Command {
        let words = self.words();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(args).env("NO_COLOR", "1").envs(self.variables()).stdin(Stdio::null());
        command
    }

    /// With TLS, alice's files.
    fn variables(&self) -> Vec<(&'static str, String)> {
        self.fleet.secure.as_ref().map(Secure::of_operator).unwrap_or_default()
    }

    /// Runs a command to its end.
    ///
    /// # Errors
    /// If it cannot be started, or is ended by a signal.
    pub fn run(&self, args: &[&str]) -> Result<Outcome> {
        let Output { status, stdout, stderr } = self.command(args).output().context("cannot run handover")?;
        let code = status.code().with_context(|| format!("handover {args:?} was ended by a signal"))?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Ok(Outcome { code, out: text(&stdout), err: text(&stderr) })
    }

    /// Runs a command that must succeed, and reads its JSON.
    ///
    /// # Errors
    /// If it fails; with what it said.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let args: Vec<&str> = ["--json"].iter().chain(args).copied().collect();
        let outcome = self.run(&args)?;
        if outcome.code != 0 {
            bail!("handover {args:?} ended with {}: {}", outcome.code, outcome.err.trim());
        }
        let last = outcome.out.lines().last().unwrap_or_default();
        serde_json::from_str(last).with_context(|| format!("handover {args:?} printed {last:?}"))
    }

    /// The rollout and the fleet.
    ///
    /// # Errors
    /// If the coordinator does not answer.
    pub fn status(&self) -> Result<Value> {
        self.json(&["rollout", "status"])
    }

    /// Writes a spec and starts it, without waiting for its end.
    ///
    /// # Errors
    /// If it is refused; with what was said.
    pub fn start(&self, spec: &Spec) -> Result<String> {
        let file = self.write(spec)?;
        let outcome = self.run(&["--json", "rollout", "start", "--detach", &file.display().to_string()])?;
        if outcome.code != 0 {
            bail!("rollout start ended with {}: {}{}", outcome.code, outcome.out, outcome.err);
        }
        let reply: Value = serde_json::from_str(outcome.out.lines().last().unwrap_or_default())?;
        reply["rollout"].as_str().map(str::to_owned).with_context(|| format!("no rollout id in {}", outcome.out))
    }

    /// Starts a rollout and waits for its end.
    ///
    /// # Errors
    /// If the command cannot be run.
    pub fn roll(&self, spec: &Spec) -> Result<Outcome> {
        let file = self.write(spec)?;
        self.run(&["--timeout", "90s", "rollout", "start", &file.display().to_string()])
    }

    /// Starts a command that goes on beside us, with its output in the fleet's log directory.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(&self, name: &str, args: &[&str]) -> Result<Process> {
        let words = self.words();
        let args: Vec<String> = words[1..].iter().cloned().chain(args.iter().map(|arg| (*arg).to_owned())).collect();
        Process::spawn(name, &self.fleet.binaries.path("handover"), &args, &self.fleet.dir, &self.variables())
    }

    /// Puts a spec into a file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, spec: &Spec) -> Result<PathBuf> {
        let file = self.fleet.dir.join(format!("{}.toml", spec.version));
        std::fs::write(&file, spec.text())?;
        Ok(file)
    }
}
