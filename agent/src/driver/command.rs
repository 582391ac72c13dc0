//! A command that is waited for, such as a probe: how it ended, and the last line that it wrote. It runs in a process
//! group of its own, and is killed as a group when nobody waits for it any more.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

use super::ExitStatus;
use super::child::{self, Child};
use super::ended::Ended;
use super::spawn::open_output;
use super::tail::tail;

/// So much of its output is kept; the rest is read and thrown away, so that the command does not block.
const OUTPUT_BYTES: usize = 4096;

/// So much of its last line is shown.
const SHOWN_CHARS: usize = 120;

/// What becomes of processes that a command left in its group when it ended in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leavings<'a> {
    /// They are killed.
    Kill,
    /// They are what it was run for. Its output and theirs is appended to this file: a pipe would end with us, and a process
    /// that writes to one without a reader is killed by that.
    Keep(&'a Path),
}

/// A command that runs; dropping it ends it.
struct Running(Option<Child>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = self.0.take() {
            child.end();
        }
    }
}

/// Runs a command to its end. A program with a slash is taken relative to `directory`, which becomes its working directory;
/// one without is found in PATH. Whoever drops the future ends the command.
///
/// # Errors
/// When it cannot be run.
pub(crate) async fn run(
    words: &[String],
    directory: &Path,
    env: &[(String, String)],
    leavings: Leavings<'_>,
) -> io::Result<(ExitStatus, String)> {
    if let Leavings::Keep(file) = leavings {
        return run_into(words, directory, env, file).await;
    }
    let (output, input) = io::pipe()?;
    let child = start(words, directory, env, input.into())?;
    let running = Running(Some(child));
    let Some(child) = &running.0 else { return Err(io::Error::other("the command is gone")) };
    let mut ended = Ended::of(child.as_fd().try_clone_to_owned()?)?;
    let mut output = Receiver::from_owned_fd(OwnedFd::from(output))?;
    let (mut kept, mut part) = (Vec::new(), [0_u8; 1024]);
    let mut open = true;
    loop {
        tokio::select! {
            end = ended.wait() => break end?,
            read = output.read(&mut part), if open => match read? {
                0 => open = false,
                count => keep(&mut kept, &part[..count]),
            },
        }
    }
    // What was written before the end is in the pipe; a descendant may hold it open, so we do not wait for more. The kernel
    // is asked, not the runtime, which may not have heard yet that there is something to read.
    while let Ok(count @ 1..) = nix::unistd::read(&output, &mut part) {
        keep(&mut kept, &part[..count]);
    }
    let status = child.peek()?.unwrap_or(ExitStatus::Unknown);
    Ok((status, last_line(&kept)))
}

/// The same with its output appended to a file; what it leaves goes on.
async fn run_into(
    words: &[String],
    directory: &Path,
    env: &[(String, String)],
    file: &Path,
) -> io::Result<(ExitStatus, String)> {
    let (output, from_bytes) = open_output(file)?;
    let mut running = Running(Some(start(words, directory, env, output.into())?));
    let Some(child) = &running.0 else { return Err(io::Error::other("the command is gone")) };
    Ended::of(child.as_fd().try_clone_to_owned()?)?.wait().await?;
    let status = child.peek()?.unwrap_or(ExitStatus::Unknown);
    if let Some(child) = running.0.take() {
        child.reap()?;
    }
    // Without its last words it has ended all the same.
    let words = tail(file, from_bytes).unwrap_or_default().join("\n");
    Ok((status, last_line(words.as_bytes())))
}

fn start(words: &[String], directory: &Path, env: &[(String, String)], output: OwnedFd) -> io::Result<Child> {
    let (program, arguments) = words.split_first().ok_or_else(|| io::Error::other("the command is empty"))?;
    // With a slash it is a path from there; without one it is looked for in PATH.
    let program = if program.contains('/') { directory.join(program) } else { Path::new(program).to_owned() };
    let mut command = Command::new(program);
    child::clean_env(&mut command);
    command.args(arguments).envs(env.iter().map(|(name, value)| (name, value)));
    command.current_dir(directory).process_group(0).stdin(Stdio::null());
    command.stdout(output.try_clone()?).stderr(output);
    child::spawn(&mut command)
}

/// Keeps the end, where a command says what went wrong.
fn keep(kept: &mut Vec<u8>, part: &[u8]) {
    kept.extend_from_slice(part);
    kept.drain(..kept.len().saturating_sub(OUTPUT_BYTES));
}

fn last_line(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().take(SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_that_says_something_is_shown() {
        assert_eq!(last_line(b"one\ntwo \n\n"), "two");
        assert_eq!(last_line(b"\n"), "");
        assert_eq!(last_line("x".repeat(500).as_bytes()).len(), SHOWN_CHARS);
    }

    #[test]
    fn of_a_long_output_the_end_is_kept() {
        let mut kept = Vec::new();
        for n in 0..2000 {
            keep(&mut kept, format!("{n}\n").as_bytes());
        }
        assert_eq!((kept.len(), last_line(&kept).as_str()), (OUTPUT_BYTES, "1999"));
    }
}
