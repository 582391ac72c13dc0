//! How an instance ended.

use std::fmt;

use handover_proto::ids::InstanceId;

/// An instance's main process has ended and what it left behind has been killed. While a killed process is still there,
/// one with [`left`](Self::left) goes ahead, and the last one follows when nothing is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Which instance.
    pub instance: InstanceId,
    /// How its main process ended.
    pub status: ExitStatus,
    /// What is left of it; none: no process is, verified after killing and not assumed.
    pub left: Option<String>,
    /// A proof of stop: empty, and this agent was the subreaper of every descendant from the start to the end, and no
    /// child of unknown descent is left. Without it the lease's quarantine applies.
    pub proven: bool,
    /// The last lines that it wrote, oldest first.
    pub tail: Vec<String>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It was not our child (adopted after a restart of the agent), so the kernel does not tell.
    Unknown,
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("status unknown (adopted)"),
        }
    }
}
