//! The planted mistakes (`SAFETY.md` §3.3). Those of the decision code are planted in the agent and in the protocol
//! themselves, behind their feature `mutants`, which no shipped build has; those of what is modelled here (the service,
//! the database, the client's streams, the host's clock) are planted in the models.

use handover_proto::planted::{self, Mistake as Real};

/// A mistake in something that is modelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slip {
    /// The client reads from the member that it asked, and not linearizably.
    NoBarrier,
    /// A keep-alive stream is used on: a late reply is taken for the one to a newer request.
    LateReply,
    /// The service begins its first unit before its token is installed, and does not check.
    StartBeforeInstall,
    /// The check takes the fence row with `FOR KEY SHARE`, which an install does not wait for.
    CheckWithKeyShare,
    /// The agent reports an instance as gone once it has sent SIGTERM.
    SigtermIsStopped,
    /// The deadlines are read from CLOCK_MONOTONIC, which a suspend stops.
    Monotonic,
}

/// One planted mistake, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mistake {
    slip: Option<Slip>,
    real: Option<Real>,
}

/// Every mistake with its name.
pub const ALL: [(&str, Mistake); 17] = [
    ("same-token-for-a-new-process", Mistake::real(Real::SameTokenForNewProcess)),
    ("counts-from-the-receipt", Mistake::real(Real::CountsFromReceipt)),
    ("no-barrier", Mistake::slip(Slip::NoBarrier)),
    ("no-term-check", Mistake::real(Real::NoTermCheck)),
    ("requested-ttl", Mistake::real(Real::RequestedTtl)),
    ("late-reply", Mistake::slip(Slip::LateReply)),
    ("no-quarantine", Mistake::real(Real::NoQuarantine)),
    ("quarantine-from-the-event", Mistake::real(Real::QuarantineFromEvent)),
    ("hand-over-before-quiesced", Mistake::real(Real::HandOverBeforeQuiesced)),
    ("successor-not-compared", Mistake::real(Real::SuccessorNotCompared)),
    ("create-revision-as-token", Mistake::real(Real::CreateRevisionToken)),
    ("start-before-install", Mistake::slip(Slip::StartBeforeInstall)),
    ("check-with-key-share", Mistake::slip(Slip::CheckWithKeyShare)),
    ("sigterm-is-stopped", Mistake::slip(Slip::SigtermIsStopped)),
    ("unknown-is-failure", Mistake::real(Real::UnknownIsFailure)),
    ("base-from-the-restart", Mistake::real(Real::BaseFromRestart)),
    ("monotonic-clock", Mistake::slip(Slip::Monotonic)),
];

impl Mistake {
    /// Nothing is planted.
    pub const NONE: Self = Self { slip: None, real: None };

    const fn slip(slip: Slip) -> Self {
        Self { slip: Some(slip), real: None }
    }

    const fn real(real: Real) -> Self {
        Self { slip: None, real: Some(real) }
    }

    /// The mistake of this name.
    pub fn named(name: &str) -> Option<Self> {
        ALL.iter().find(|(known, _)| *known == name).map(|(_, mistake)| *mistake)
    }

    pub(crate) fn is(self, slip: Slip) -> bool {
        self.slip == Some(slip)
    }

    /// Plants it for this thread until the guard is dropped.
    ///
    /// # Errors
    /// If it belongs into the decision code and this build has no feature `mutants`.
    pub fn plant(self) -> Result<Planted, &'static str> {
        if self.real.is_some() && !planted::plant(self.real) {
            return Err("this build has no planted mistakes: build with `--features mutants`");
        }
        Ok(Planted(()))
    }
}

/// A mistake is planted on this thread as long as this lives.
#[derive(Debug)]
pub struct Planted(());

impl Drop for Planted {
    fn drop(&mut self) {
        planted::plant(None);
    }
}
