//! Whether hosts can be booted here.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// What is needed, and the Debian package that has it.
const PROGRAMS: [(&str, &str); 7] = [
    ("/usr/bin/systemd-nspawn", "systemd-container"),
    ("/lib/systemd/systemd", "systemd"),
    ("/usr/bin/dbus-daemon", "dbus"),
    ("/usr/bin/unshare", "util-linux"),
    ("/usr/bin/nsenter", "util-linux"),
    ("/bin/bash", "bash"),
    ("/sbin/ip", "iproute2"),
];

/// Whether hosts can be booted here; says what is missing.
///
/// # Errors
/// If a program, a right or a cgroup hierarchy is missing.
pub fn possible() -> Result<()> {
    for (program, package) in PROGRAMS {
        ensure!(
            Path::new(program).exists(),
            "{program} is missing; `apt-get install {package}`, or run tests/run --tools, which does"
        );
    }
    let mut tried = Command::new("unshare");
    tried.args(["--net", "--mount", "--pid", "--fork", "true"]).stdin(Stdio::null()).stderr(Stdio::null());
    if !tried.status().context("cannot run unshare")?.success() {
        bail!("namespaces cannot be made: this needs root");
    }
    let (pure, mixed) = ("/sys/fs/cgroup/cgroup.procs", ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"]);
    let cgroups = Path::new(pure).exists() || mixed.iter().all(|tree| Path::new(tree).is_dir());
    ensure!(cgroups, "there is neither a cgroup v2 hierarchy nor one of systemd's own under /sys/fs/cgroup");
    Ok(())
}
