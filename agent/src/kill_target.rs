//! What the trial of how long a kill takes ends: a process with a child outside of its group (`handover-agent
//! kill-target`, for the agent's own use).

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::driver::child;

/// The subcommand.
pub const KILL_TARGET: &str = "kill-target";
/// Runs this program, whatever has become of its file.
pub const OWN_PROGRAM: &str = "/proc/self/exe";

/// Starts a child, says so on standard output, and waits for its end. `leaf`: only waits. Ends by itself when its standard
/// input does, which its agent holds: one that dies in its trial leaves nothing behind.
///
/// # Errors
/// If there is no child, or nobody listens.
pub fn run(leaf: bool) -> io::Result<()> {
    if !leaf {
        let mut child = Command::new(OWN_PROGRAM);
        child.args([KILL_TARGET, "--leaf"]).process_group(0).stdout(Stdio::null());
        drop(child::spawn(&mut child)?);
        let mut out = io::stdout();
        out.write_all(b"up\n").and_then(|()| out.flush())?;
    }
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
