//! The last lines that an instance wrote, from the journal.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use tokio::task::spawn_blocking;

use crate::driver::{ExitStatus, child, ended};

/// As many as of an instance that writes into a file of ours.
const LINES: &str = "20";

/// What this invocation of a unit wrote last, oldest first; empty if the journal cannot be read, which is no reason to hide
/// how the instance ended. Called once for each end.
pub(super) async fn last_lines(invocation: &str) -> Vec<String> {
    let of = format!("_SYSTEMD_INVOCATION_ID={invocation}");
    match spawn_blocking(move || read(&of)).await.map_err(io::Error::other).flatten() {
        Ok(lines) => lines,
        Err(error) => {
            tracing::warn!(%error, invocation, "the last lines of an instance cannot be read from the journal");
            Vec::new()
        }
    }
}

fn read(of: &str) -> io::Result<Vec<String>> {
    // What was written just before the end may still be on its way to the journal.
    run(&["--sync"])?;
    let text = run(&["--quiet", "--no-pager", "--output=cat", "--lines", LINES, of])?;
    Ok(text.lines().map(str::to_owned).collect())
}

fn run(args: &[&str]) -> io::Result<String> {
    let (mut output, input) = io::pipe()?;
    let mut command = Command::new("timeout");
    child::clean_env(&mut command);
    // A journal that hangs must not keep an end from being told.
    command.args(["5", "journalctl"]).args(args).stdin(Stdio::null()).stdout(input).stderr(Stdio::null());
    let child = child::spawn(&mut command)?;
    // The writer's end in `command` would keep the pipe open.
    drop(command);
    let mut text = Vec::new();
    output.read_to_end(&mut text)?;
    ended::wait(&child.as_fd().try_clone_to_owned()?, None)?;
    match child.reap()? {
        Some(ExitStatus::Code(0)) => Ok(String::from_utf8_lossy(&text).into_owned()),
        other => Err(io::Error::other(format!("journalctl {} ended with {other:?}", args.join(" ")))),
    }
}
