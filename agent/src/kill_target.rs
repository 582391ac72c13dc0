//! What the trial of how long a kill takes ends: a process with a child outside of its group (`handover-agent
//! kill-target`, for the agent's own use).

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::driver::child;

/// The subcommand.
pub const KILL_TARGET: &str = "kill-target";
/// Runs this program, whatever has become of its file.
pub const OWN_PROGRAM: &str = "/proc/self/exe";
/// An agent that dies in its trial leaves nothing behind for longer.
const AT_MOST: Duration = Duration::from_secs(10);

/// Starts a child, says so on standard output, and waits for its end. `leaf`: only waits.
///
/// # Errors
/// If there is no child, or nobody listens.
pub fn run(leaf: bool) -> io::Result<()> {
    if !leaf {
        let mut child = Command::new(OWN_PROGRAM);
        child.args([KILL_TARGET, "--leaf"]).process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
        drop(child::spawn(&mut child)?);
        let mut out = io::stdout();
        out.write_all(b"up\n").and_then(|()| out.flush())?;
    }
    std::thread::sleep(AT_MOST);
    Ok(())
}
