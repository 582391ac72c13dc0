//! The host's config file, and the installed versions.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::fleet::Binaries;

/// The environment.
pub(super) const ENV: &str = "switch";
/// The agent's name.
pub(super) const AGENT: &str = "app-01";

/// Installs the demo service under a version's name.
pub(super) fn install(binaries: &Binaries, dir: &Path, version: &str) -> Result<()> {
    let dir = dir.join("builds").join(version);
    std::fs::create_dir_all(&dir)?;
    let program = dir.join("billing");
    std::fs::hard_link(binaries.path("billing"), &program)
        .or_else(|_| std::fs::copy(binaries.path("billing"), &program).map(drop))
        .with_context(|| format!("cannot install {}", program.display()))
}

/// How jobs are counted, if nothing else is asked for: they are waited for, and not cut with the rest.
const JOBS: Jobs = Jobs { path: "/jobs", policy: "deadline = \"5m\"\nat_deadline = \"wait\"" };

/// How jobs are counted.
#[derive(Debug, Clone, Copy)]
pub struct Jobs {
    /// What is asked.
    pub path: &'static str,
    /// Lines about the deadline.
    pub policy: &'static str,
}

impl Default for Jobs {
    fn default() -> Self {
        JOBS
    }
}

/// Writes it; `gate` are further lines of the gate's table. Ports: gate, agent, operations, two slots, store.
pub(super) fn write(dir: &Path, gate: &str, jobs: Jobs, ports: &[u16]) -> Result<PathBuf> {
    let path = dir.join("agent.toml");
    let dir = dir.display();
    let Jobs { path: jobs_path, policy } = jobs;
    let [gate_port, agent, operations, a, b, store] = ports else { anyhow::bail!("six ports are needed") };
    let text = format!(
        r#"agent = "{AGENT}"
service = "billing"
env = "{ENV}"
listen = "127.0.0.1:{agent}"
operations = "127.0.0.1:{operations}"
state_dir = "{dir}/state"
runtime_dir = "{dir}/run"
store = ["127.0.0.1:{store}"]

[gate]
mode = "proxy"
listen = "127.0.0.1:{gate_port}"
tag_responses = true
{gate}

[driver]
kind = "process"
builds = "{dir}/builds"
command = [
  "{{builds}}/{{version}}/billing", "--version-name", "{{version}}", "--port", "{{port}}",
  "--ledger", "{dir}/ledger.db", "--lease-socket", "{dir}/run/lease.sock",
]
grace = "20s"

[[probe]]
name = "ready"
http = {{ path = "/ready", field = "ok", equals = true }}
affects = "ready"
interval = "500ms"

[[drain.jobs]]
name = "jobs"
http = {{ path = "{jobs_path}", count = "in_flight", oldest_ms = "oldest_ms" }}
interval = "200ms"
{policy}

[[slot]]
name = "a"
port = {a}

[[slot]]
name = "b"
port = {b}
"#
    );
    std::fs::write(&path, text)?;
    Ok(path)
}
