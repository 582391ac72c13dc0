//! What is asked of the driver, and what it gives back to be kept.

use std::path::PathBuf;

use handover_proto::ids::{InstanceId, SlotId, Version};
use serde::{Deserialize, Serialize};

/// One start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartSpec {
    /// Where it runs.
    pub slot: SlotId,
    /// Its id, recorded by the agent before the start.
    pub instance: InstanceId,
    /// What it runs.
    pub version: Version,
    /// Program and arguments. A program with a slash is taken relative to `directory`, one without is found in PATH.
    pub command: Vec<String>,
    /// Added to the agent's own environment, from which systemd's and Handover's variables are removed.
    pub env: Vec<(String, String)>,
    /// The version's directory, which becomes the working directory.
    pub directory: PathBuf,
    /// The file to which stdout and stderr are appended; its directory is made if missing. A file, because a pipe would
    /// end with the agent, and the process must not. To rotate it, copy and truncate.
    pub output: PathBuf,
}

/// What identifies a started process for ever; the agent keeps it in its state file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// Which instance.
    pub instance: InstanceId,
    /// Process id of its main process, which leads a process group of the same number.
    pub pid: i32,
    /// When it started, in clock ticks since boot: a recycled pid has another.
    pub start_time_ticks: u64,
    /// The boot in which it started.
    pub boot_id: String,
    /// This agent process started it and was its subreaper without a break.
    pub unbroken: bool,
    /// Where it writes to.
    pub output: PathBuf,
    /// Length of that file when it started, in bytes.
    pub output_from_bytes: u64,
    /// The unit in which it runs, where systemd runs it: then the pid is 0 until systemd names one, the cgroup takes the
    /// place of `unbroken`, and its output is in the journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitRecord>,
    /// What its status command calls it, where commands run it; empty until it is known. The pid is 0 then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

/// One invocation of a systemd unit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct UnitRecord {
    /// The unit's name.
    pub name: String,
    /// The invocation's id; empty until systemd has begun it.
    pub invocation: String,
    /// Its cgroup, as systemd names it; empty until it has one.
    pub cgroup: String,
}

/// What became of a process while its agent was away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Adopted {
    /// It runs and is watched; keep this record, which is no longer `unbroken`. An [`Exit`](super::Exit) will follow.
    Running(ProcessRecord),
    /// Its main process has ended; no `Exit` will follow.
    Gone {
        /// What it had left behind, if anything, is gone too.
        empty: bool,
        /// And that is a proof of stop, as for [`Exit::proven`](super::Exit::proven): an empty cgroup is one, a look through
        /// the process table after a break is none.
        proven: bool,
    },
}
