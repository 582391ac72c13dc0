//! From what systemd says of a unit to what that means for the instance in it. Pure.
//!
//! An instance is one *invocation* of its slot's unit: systemd gives each start an id of its own. Whatever begins another
//! one, a `systemctl restart` by hand or a `Restart=` of the unit, is a process that the scheduler lease knows nothing of.
//! So the instance is over then, and what was started beside us is stopped.

use crate::driver::{ExitStatus, UnitEnd};

/// A unit as systemd shows it, in one look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Seen {
    pub(super) active: State,
    /// `SubState`: for people, and to tell a restart that is under way.
    pub(super) sub: String,
    /// `Result`: how the last invocation ended, as systemd judges it.
    pub(super) result: String,
    /// `MainPID`; 0: none.
    pub(super) main_pid: i32,
    /// `ExecMainCode`: `CLD_EXITED` and so on; 0: it has not ended.
    pub(super) main_code: i32,
    /// `ExecMainStatus`: exit code or signal.
    pub(super) main_status: i32,
    /// `NRestarts`: so often systemd has started it by itself.
    pub(super) restarts: i32,
    /// `InvocationID` in hexadecimal digits; empty: it was never started.
    pub(super) invocation: String,
    /// `ControlGroup`; empty while it has none.
    pub(super) cgroup: String,
    /// `MemoryMax` in bytes; none: no limit.
    pub(super) memory_max: Option<u64>,
    /// `Job`: systemd has an order for it that waits or is carried out.
    pub(super) ordered: bool,
}

/// `ActiveState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum State {
    #[default]
    Inactive,
    Failed,
    Activating,
    Up,
    Deactivating,
}

impl State {
    /// What systemd says; a word that we do not know is a unit that is not at rest.
    pub(super) fn read(text: &str) -> Self {
        match text {
            "inactive" => Self::Inactive,
            "failed" => Self::Failed,
            "activating" => Self::Activating,
            "deactivating" => Self::Deactivating,
            _ => Self::Up,
        }
    }
}

impl Seen {
    /// Nothing of it runs. An order may wait for its turn.
    pub(super) fn at_rest(&self) -> bool {
        matches!(self.active, State::Inactive | State::Failed)
    }

    /// Nothing of it runs yet, and systemd is about to start it.
    pub(super) fn awaits_its_turn(&self) -> bool {
        self.at_rest() && self.ordered
    }
}

/// Where the instance stands with its unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// systemd was told to start the unit.
    Ordered {
        /// The invocation before.
        before: String,
        /// What became of the order, once that is known: `done`, `failed`, `dependency`, …; or [`LOST`], [`TAKEN_BACK`].
        outcome: Option<String>,
    },
    /// This invocation is the instance.
    Begun {
        /// Its id.
        invocation: String,
        /// It has been up.
        was_up: bool,
    },
}

/// Nobody can say any more what became of the order.
pub(super) const LOST: &str = "lost";
/// It was lost, and the unit was ordered to stop instead: what has not begun by now never will.
pub(super) const TAKEN_BACK: &str = "taken-back";

/// What follows from a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// The instance's invocation has begun.
    Begun,
    /// It runs, and systemd takes it for up; or why not yet.
    Runs {
        /// What systemd waits for.
        awaits: Option<&'static str>,
    },
    /// The order to start it is to be taken back: it may be carried out at any time.
    TakeBack,
    /// Somebody else began another invocation: it is to be stopped.
    Foreign,
    /// The instance has ended.
    Ended(ExitStatus),
}

/// What a look means. Called again after each step.
pub(super) fn next(stage: &Stage, seen: &Seen) -> Step {
    match stage {
        Stage::Ordered { before, .. } if seen.invocation != *before => Step::Begun,
        Stage::Ordered { outcome: Some(outcome), .. } if outcome == LOST => Step::TakeBack,
        Stage::Ordered { outcome: Some(outcome), .. } if outcome != "done" => {
            Step::Ended(ExitStatus::Unit(not_begun(outcome)))
        }
        // Done, and nothing was begun: it ran already, started by somebody else since we looked.
        Stage::Ordered { outcome: Some(_), .. } if !seen.at_rest() => Step::Foreign,
        Stage::Ordered { outcome: Some(_), .. } => Step::Ended(ExitStatus::Unit(UnitEnd::Foreign)),
        Stage::Ordered { outcome: None, .. } => Step::Runs { awaits: Some("its turn to be started") },
        Stage::Begun { invocation, was_up } => begun(invocation, *was_up, seen),
    }
}

fn begun(invocation: &str, was_up: bool, seen: &Seen) -> Step {
    let other = seen.invocation != invocation;
    let again = seen.active == State::Activating && seen.sub.starts_with("auto-restart");
    match seen.active {
        State::Inactive | State::Failed if other => Step::Ended(ExitStatus::Unit(UnitEnd::Foreign)),
        State::Inactive | State::Failed => Step::Ended(how(seen, was_up)),
        _ if other || again => Step::Foreign,
        State::Activating => Step::Runs { awaits: Some(awaited(&seen.sub)) },
        State::Deactivating => Step::Runs { awaits: Some("it to stop") },
        State::Up => Step::Runs { awaits: None },
    }
}

fn awaited(sub: &str) -> &'static str {
    match sub {
        "start-pre" | "condition" => "its ExecStartPre= to end",
        "start-post" => "its ExecStartPost= to end",
        // Type=notify; one of Type=exec or Type=forking is here for a moment only.
        _ => "READY=1 from it",
    }
}

/// How a start's order ended that began nothing.
fn not_begun(outcome: &str) -> UnitEnd {
    match outcome {
        "dependency" => UnitEnd::Dependency,
        "canceled" => UnitEnd::Canceled,
        "timeout" => UnitEnd::StartTimeout,
        TAKEN_BACK => UnitEnd::TakenBack,
        _ => UnitEnd::Refused,
    }
}

/// How an invocation ended: systemd's verdict where it has one, or the main process's own end.
pub(super) fn how(seen: &Seen, was_up: bool) -> ExitStatus {
    let own = match (seen.main_code, seen.main_status) {
        // CLD_EXITED; CLD_KILLED and CLD_DUMPED.
        (1, code) => ExitStatus::Code(code),
        (2 | 3, signal) => ExitStatus::Signal(signal),
        _ => ExitStatus::Unknown,
    };
    let judged = match (seen.result.as_str(), own) {
        // What systemd itself could not do before the program ran: systemd.exec(5), "process exit codes".
        ("exit-code", ExitStatus::Code(code @ 200..=245)) => UnitEnd::NotRun(code),
        ("watchdog", _) => UnitEnd::Watchdog,
        ("oom-kill", _) => UnitEnd::OutOfMemory,
        ("timeout", _) if was_up => UnitEnd::StopTimeout,
        ("timeout", _) => UnitEnd::StartTimeout,
        ("protocol", _) => UnitEnd::Protocol,
        ("start-limit-hit", _) => UnitEnd::StartLimit,
        ("resources", _) => UnitEnd::Resources,
        _ => return own,
    };
    ExitStatus::Unit(judged)
}

/// Whether an instance that was told to stop has ended as services do then, by themselves or by SIGTERM: nobody asks for
/// its last words.
pub(super) fn is_as_asked(told_to_stop: bool, status: ExitStatus) -> bool {
    let term = ExitStatus::Signal(rustix::process::Signal::TERM.as_raw());
    told_to_stop && (status == ExitStatus::Code(0) || status == term)
}

#[cfg(test)]
mod tests;
