//! How an instance ended.

use std::fmt;

use handover_proto::ids::InstanceId;

use super::OverMemory;

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
    /// As systemd judged it, where that says more.
    Unit(UnitEnd),
    /// As commands tell: more is not to be known of it.
    Command(CommandEnd),
    /// Killed by the agent, since it used more memory than it may.
    Memory(OverMemory),
}

/// How an instance ended that commands start, stop and watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandEnd {
    /// It could not be started.
    NotStarted,
    /// Its status command says that it has stopped.
    Stopped,
    /// Something else ran in its place, so that was stopped.
    Foreign,
}

impl fmt::Display for CommandEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotStarted => "it could not be started",
            Self::Stopped => "its status command says that it has stopped",
            Self::Foreign => "somebody else started something in its place, so that was stopped",
        })
    }
}

/// Why a unit came to rest, other than by the end of its main process alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitEnd {
    /// It did not say `WATCHDOG=1` in time.
    Watchdog,
    /// Killed for lack of memory.
    OutOfMemory,
    /// It did not come up in time.
    StartTimeout,
    /// It did not stop in time.
    StopTimeout,
    /// Its main process ended before it had said `READY=1`.
    Protocol,
    /// systemd could not run its program; the code says why.
    NotRun(i32),
    /// It was started too often.
    StartLimit,
    /// systemd lacked something to start it with.
    Resources,
    /// A unit that it needs could not be started.
    Dependency,
    /// The order to start it was taken back.
    Canceled,
    /// systemd would not start it.
    Refused,
    /// systemd did not say what became of the order to start it, so that it was taken back.
    TakenBack,
    /// Somebody else started the unit anew, so that it was stopped.
    Foreign,
}

impl fmt::Display for UnitEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Watchdog => "killed by systemd's watchdog: it did not say WATCHDOG=1 in time (WatchdogSec=)",
            Self::OutOfMemory => "killed for lack of memory",
            Self::StartTimeout => "killed by systemd: it did not come up in time (no READY=1 within TimeoutStartSec=)",
            Self::StopTimeout => "killed by systemd: it did not stop in time (TimeoutStopSec=)",
            Self::Protocol => "its main process ended before it had said READY=1",
            Self::NotRun(code) => return write!(f, "systemd could not run its program ({}, code {code})", step(*code)),
            Self::StartLimit => "systemd will not start it: it was started too often (StartLimitBurst=)",
            Self::Resources => "systemd could not set it up; see journalctl for the unit",
            Self::Dependency => "systemd did not start it: a unit that it requires failed",
            Self::Canceled => "systemd did not start it: somebody took the order back (systemctl stop?)",
            Self::Refused => "systemd did not start it; see journalctl for the unit",
            Self::TakenBack => "systemd did not answer the order to start it, so the order was taken back",
            Self::Foreign => "somebody else started its unit anew (systemctl restart?), so it was stopped",
        })
    }
}

/// At which step systemd gave up: systemd.exec(5), "process exit codes". The ones that are met.
fn step(code: i32) -> &'static str {
    match code {
        200 => "its working directory: CHDIR",
        203 => "the program itself: EXEC",
        209 => "its standard output: STDOUT",
        216 => "its group: GROUP",
        217 => "its user: USER",
        226 => "its view of the file system: NAMESPACE",
        233 => "a directory under /run: RUNTIME_DIRECTORY",
        238 => "a directory under /var/lib: STATE_DIRECTORY",
        243 => "its credentials: CREDENTIALS",
        _ => "see systemd.exec(5)",
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("status unknown (adopted)"),
            Self::Unit(end) => end.fmt(f),
            Self::Command(end) => end.fmt(f),
            Self::Memory(over) => over.fmt(f),
        }
    }
}
