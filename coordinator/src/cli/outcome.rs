//! How a command ends. The exit codes never change: scripts rely on them.

use handover_proto::wire::{KIND_HEADER, RolloutStatus, kind, refusal_kind};
use tonic::{Code, Status};

/// The end of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// What was asked for is done.
    Done,
    /// Wrong usage, or something of our own broke.
    Error,
    /// The plan has changes.
    Changes,
    /// The rollout went back.
    RolledBack,
    /// The rollout failed and a human is needed.
    Failed,
    /// A rule forbids it.
    Refused,
    /// The time given has passed; it still runs.
    TimedOut,
}

impl Outcome {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Error => 1,
            Self::Changes => 2,
            Self::RolledBack => 3,
            Self::Failed => 4,
            Self::Refused => 5,
            Self::TimedOut => 6,
        }
    }

    /// How a rollout ended; `None` while it has not.
    pub fn of(rollout: &RolloutStatus) -> Option<Self> {
        match rollout.state.as_str() {
            "done" => Some(Self::Done),
            "rolled-back" => Some(Self::RolledBack),
            "failed" => Some(Self::Failed),
            _ => None,
        }
    }
}

/// A command that could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// No coordinator answers.
    #[error(
        "no coordinator answers at {addresses} ({reason}); start one with `handover serve`, or name another with --coordinator"
    )]
    NoCoordinator {
        /// Who was asked.
        addresses: String,
        /// What the last one tried said.
        reason: String,
    },
    /// The coordinator answered no.
    #[error("{sentence}")]
    Refused {
        /// The kind of refusal, from the protocol's closed list; empty: none was given.
        kind: String,
        /// The coordinator's own sentence.
        sentence: String,
    },
    /// The time given with --timeout has passed.
    #[error("{what} is not over after the time given with --timeout; it still runs, `handover rollout watch` shows it")]
    TimedOut {
        /// What was waited for.
        what: String,
    },
    /// The same for an order outside of a rollout.
    #[error(
        "{what} is not over after the time given with --timeout; it goes on, `handover why` says what it waits for"
    )]
    StillRuns {
        /// What was waited for.
        what: String,
    },
    /// Not a time.
    #[error("{0}")]
    Time(String),
    /// The store said no to what was written straight to it.
    #[error("the store was not changed")]
    Straight(#[from] super::store_orders::StraightError),
    /// A file of the operator cannot be read.
    #[error("cannot read the spec {file}; check the path")]
    Spec {
        /// The file.
        file: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Neither coordinator nor store answers.
    #[error("no coordinator answers at {addresses}, and the store cannot be read either")]
    Nobody {
        /// The coordinators asked.
        addresses: String,
        /// What the store's client said.
        source: handover_store::client::StoreError,
    },
    /// There is no way to the store as configured.
    #[error(transparent)]
    Store(#[from] handover_store::client::OpenError),
    /// The files of TLS are not complete.
    #[error(transparent)]
    Tls(#[from] handover_tls::TlsError),
    /// Standard output is gone.
    #[error("cannot write the answer")]
    Output(#[from] std::io::Error),
    /// The answer cannot be shown.
    #[error("cannot write the answer as JSON")]
    Json(#[from] serde_json::Error),
    /// A long-running part of our own ended.
    #[error(transparent)]
    Run(#[from] anyhow::Error),
}

impl CliError {
    /// From a call that reached a coordinator.
    pub fn of(status: &Status) -> Self {
        let kind = refusal_kind(status).unwrap_or_default().to_owned();
        let sentence = match status.message() {
            "" => format!("the coordinator gave no reason ({:?}, no {KIND_HEADER})", status.code()),
            sentence => sentence.to_owned(),
        };
        Self::Refused { kind, sentence }
    }

    /// The exit code's meaning.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Refused { kind, .. } if kind == kind::POLICY => Outcome::Refused,
            Self::TimedOut { .. } | Self::StillRuns { .. } => Outcome::TimedOut,
            Self::Straight(error) if error.is_refusal() => Outcome::Refused,
            _ => Outcome::Error,
        }
    }
}

/// Whether the call did not reach anybody, or nobody who could answer now.
pub fn is_away(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown)
        && refusal_kind(status).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use handover_proto::wire::refusal;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let all = [
            Outcome::Done,
            Outcome::Error,
            Outcome::Changes,
            Outcome::RolledBack,
            Outcome::Failed,
            Outcome::Refused,
            Outcome::TimedOut,
        ];
        assert_eq!(all.map(Outcome::code), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_rollout_has_an_outcome_only_once_it_has_ended() {
        let of = |state: &str| Outcome::of(&RolloutStatus { state: state.into(), ..RolloutStatus::default() });
        assert_eq!(of("done"), Some(Outcome::Done));
        assert_eq!(of("rolled-back"), Some(Outcome::RolledBack));
        assert_eq!(of("failed"), Some(Outcome::Failed));
        for running in ["running", "paused", "rolling-back"] {
            assert_eq!(of(running), None, "{running}");
        }
    }

    #[test]
    fn only_a_refusal_by_policy_exits_with_5() {
        let policy = refusal(Code::FailedPrecondition, kind::POLICY, "the floor is 2");
        assert_eq!(CliError::of(&policy).outcome(), Outcome::Refused);
        assert_eq!(CliError::of(&policy).to_string(), "the floor is 2");
        let invalid = refusal(Code::InvalidArgument, kind::INVALID, "line 3: …");
        assert_eq!(CliError::of(&invalid).outcome(), Outcome::Error);
    }

    #[test]
    fn a_refusal_is_not_mistaken_for_a_coordinator_that_is_away() {
        assert!(is_away(&Status::unavailable("tcp connect error")));
        assert!(!is_away(&refusal(Code::Unavailable, kind::STORE, "the store does not answer")));
        assert!(!is_away(&Status::not_found("no such rollout")));
    }
}
