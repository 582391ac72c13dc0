//! What a look at the status means for an instance that is followed. Pure.

use crate::driver::ExitStatus;

/// With this code `status` says that nothing runs in the slot: "not running", as in init scripts (LSB).
const STOPPED: i32 = 3;

/// What the status command says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// Something runs, and this is what it calls it; empty: it has no name for it.
    Runs(String),
    /// Nothing runs in the slot.
    Stopped,
    /// It cannot tell, and why.
    Unknown(String),
}

/// What follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// It runs, and this is its name from now on.
    Named(String),
    /// It runs.
    Runs,
    /// Something else runs in its place: somebody started that past the agent.
    Foreign(String),
    /// It has ended.
    Ended,
    /// Nobody knows.
    Unknown(String),
}

/// The meaning of the command's end and its last line.
pub(super) fn said(status: ExitStatus, line: String) -> Said {
    match status {
        ExitStatus::Code(0) => Said::Runs(line),
        ExitStatus::Code(STOPPED) => Said::Stopped,
        other if line.is_empty() => Said::Unknown(other.to_string()),
        other => Said::Unknown(format!("{other}: {line}")),
    }
}

/// The next step for an instance known by `name`; empty: it has none yet.
pub(super) fn next(name: &str, said: Said) -> Step {
    match said {
        Said::Runs(now) if now == name => Step::Runs,
        Said::Runs(now) if name.is_empty() => Step::Named(now),
        Said::Runs(now) => Step::Foreign(now),
        Said::Stopped => Step::Ended,
        Said::Unknown(why) => Step::Unknown(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_code_means_stopped_and_every_fault_means_unknown() {
        let of = |code| said(ExitStatus::Code(code), "abc".into());
        assert_eq!(of(0), Said::Runs("abc".into()));
        assert_eq!(of(3), Said::Stopped);
        for code in [1, 2, 4, 125, 126, 127] {
            assert_eq!(of(code), Said::Unknown(format!("exit code {code}: abc")));
        }
        assert!(matches!(said(ExitStatus::Signal(9), String::new()), Said::Unknown(_)));
        assert!(matches!(said(ExitStatus::Unknown, String::new()), Said::Unknown(_)));
    }

    #[test]
    fn what_runs_under_another_name_is_not_the_same() {
        assert_eq!(next("", Said::Runs("x".into())), Step::Named("x".into()));
        assert_eq!(next("x", Said::Runs("x".into())), Step::Runs);
        assert_eq!(next("", Said::Runs(String::new())), Step::Runs);
        assert_eq!(next("x", Said::Runs("y".into())), Step::Foreign("y".into()));
        assert_eq!(next("x", Said::Stopped), Step::Ended);
        assert_eq!(next("x", Said::Unknown("?".into())), Step::Unknown("?".into()));
    }

    #[test]
    fn a_name_that_is_lost_is_another_one() {
        // What had a name and shows none any more was replaced, or the command is broken: neither may go on unnoticed.
        assert_eq!(next("x", Said::Runs(String::new())), Step::Foreign(String::new()));
    }
}
