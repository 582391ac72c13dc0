//! A world of its own for one schedule: network, process and mount namespaces. Whatever happens in it, killing its first
//! process ends every process in it, and with the last of them the networks and mounts are gone: nothing has to be cleaned
//! up, not even after `kill -9`.

use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result, bail};

/// The first process of the world. It reaps what loses its parent (a shell does), and waits for the schedule.
const INIT: &str = "mount -t tmpfs none /run && mkdir /run/netns && ip link set lo up || exit 90
\"$@\"
exit $?";

/// What a world is made with, and the Debian package that has it.
const PROGRAMS: [(&str, &str); 6] = [
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("strace", "strace"),
    ("faketime", "faketime"),
];

/// Whether worlds can be made here; says what is missing.
///
/// # Errors
/// If a right or a program is missing.
pub fn possible() -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for (program, package) in PROGRAMS {
        if !std::env::split_paths(&path).any(|dir| dir.join(program).is_file()) {
            bail!("{program} is missing; `apt-get install {package}`, or run tests/run, which does");
        }
    }
    let mut tried = Command::new("unshare");
    tried.args(["--net", "--mount", "--pid", "--fork", "true"]).stderr(Stdio::null());
    let status = tried.stdin(Stdio::null()).status().context("cannot run unshare")?;
    if status.success() { Ok(()) } else { bail!("namespaces cannot be made: this needs root") }
}

/// Runs our own program with these words in a world of its own, to its end.
///
/// # Errors
/// If it cannot be started.
pub fn run(words: &[String]) -> Result<ExitStatus> {
    let own = std::env::current_exe().context("where our own executable is")?;
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["bash", "-c", INIT, "world"]).arg(own).args(words).stdin(Stdio::null());
    command.status().context("cannot run unshare")
}
