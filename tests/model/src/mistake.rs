//! Mistakes that can be planted into the rules (`SAFETY.md` §3.3), each with the smallest configuration that shows it and
//! the invariant that it breaks there.

use std::fmt;
use std::str::FromStr;

use crate::configs::{
    AGENT_RESTART, CLOCK_RATE, Config, DEPOSED_LEADER, EARLY_REVOKE, HAND_OVER, HUNG, PROCESSES, QUARANTINE_RATE,
    REGRANT, RESTORE, SHORT_GRANT, SLOW_ANSWERS, SUSPEND, UNDETECTED_PAUSE, UNKNOWN_OUTCOME,
};
use crate::invariant::Invariant;

macro_rules! mistakes {
    ($($(#[$doc:meta])* $name:ident $text:literal breaks $invariant:ident in $config:ident;)*) => {
        /// A mistake in somebody's rules.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Mistake { $($(#[$doc])* $name,)* }

        impl Mistake {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Its name on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What it breaks.
            pub fn breaks(self) -> Invariant {
                match self { $(Self::$name => Invariant::$invariant,)* }
            }

            /// Where it shows.
            pub fn config(self) -> &'static Config {
                match self { $(Self::$name => &$config,)* }
            }
        }
    };
}

mistakes! {
    /// A restarted service works on under the token of the dead process, whose COMMIT may still arrive.
    SameToken "same-token" breaks ExactlyOnce in PROCESSES;
    /// A renewal's deadline is counted from the answer.
    ReceiptTime "receipt-time" breaks I3 in SLOW_ANSWERS;
    /// An acknowledged keep-alive counts without the barrier.
    NoBarrier "no-barrier" breaks I3 in DEPOSED_LEADER;
    /// The barrier is read, but its raft term is not compared with the keep-alive's.
    NoTermCheck "no-term-check" breaks I3 in DEPOSED_LEADER;
    /// Deadlines follow the TTL that was asked for.
    RequestedTtl "requested-ttl" breaks I3 in SHORT_GRANT;
    /// A late answer to an abandoned keep-alive is taken for the answer to the newer one.
    LateReply "late-reply" breaks I3 in SLOW_ANSWERS;
    /// The taker does not wait, although nothing proves that the holder stopped.
    NoQuarantine "no-quarantine" breaks I3 in EARLY_REVOKE;
    /// The same, seen by the checker of I8.
    NoQuarantineAtAll "no-quarantine-at-all" breaks I8 in EARLY_REVOKE;
    /// The quarantine is counted from the time-stamp in the event, made by another machine's clock.
    EventStamp "event-stamp" breaks I3 in EARLY_REVOKE;
    /// T3 is sent before the service has acknowledged QUIESCED.
    EarlyHandOver "early-hand-over" breaks I5 in HAND_OVER;
    /// T3 does not compare the etcd lease of the successor's candidate key.
    NoLeaseCompare "no-lease-compare" breaks I4 in REGRANT;
    /// The token is made of the holder key's create revision.
    CreateRevision "create-revision" breaks I2 in HAND_OVER;
    /// The service starts to work before its install has returned.
    StartBeforeInstall "start-before-install" breaks I7 in HAND_OVER;
    /// The fence's check takes `FOR KEY SHARE`, which an install does not wait for.
    KeyShare "key-share" breaks I6 in UNDETECTED_PAUSE;
    /// The fence's check is a transaction of its own, before the one that writes.
    CheckOutside "check-outside" breaks I6 in PROCESSES;
    /// A service that was sent SIGTERM counts as stopped.
    SigtermIsStop "sigterm-is-stop" breaks I5 in HUNG;
    /// A dead main process counts as stopped, although a child of it lives.
    MainPidIsAll "main-pid-is-all" breaks I3 in PROCESSES;
    /// A transaction without an answer counts as failed.
    UnknownIsFailure "unknown-is-failure" breaks I3 in UNKNOWN_OUTCOME;
    /// A restarted agent counts the deadline of the lease that it finds from now.
    BaseFromNow "base-from-now" breaks I3 in AGENT_RESTART;
    /// Deadlines are counted on CLOCK_MONOTONIC, which stands still while the host is suspended.
    MonotonicClock "monotonic-clock" breaks I3 in SUSPEND;
    /// No allowance for clocks of different rates. Not in the list of §3.3; it shows that the margin is tight.
    NoRateMargin "no-rate-margin" breaks I3 in CLOCK_RATE;
    /// Holder and beat are written in two transactions. Not in the list; it proves the checker of I1.
    TwoWrites "two-writes" breaks I1 in HAND_OVER;
    /// The coordinator moves the lease itself. Not in the list; it proves the checker of I14.
    CoordinatorMoves "coordinator-moves" breaks I14 in HAND_OVER;
    /// A restored etcd is believed without a new era. Not in the list; it proves the checker of I12.
    NoEra "no-era" breaks I12 in RESTORE;
    /// An agent certifies that its service stopped, and writes nothing down. Not in the list.
    EmptyCertificate "empty-certificate" breaks I3 in EARLY_REVOKE;
    /// A taker waits a tick less than it should. Not in the list; it shows that the quarantine is no longer than needed.
    ShortQuarantine "short-quarantine" breaks I3 in QUARANTINE_RATE;
}

/// A name that no mistake has.
#[derive(Debug, PartialEq, Eq)]
pub struct NoSuchMistake(String);

impl fmt::Display for NoSuchMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Mistake::ALL.iter().map(|mistake| mistake.name()).collect();
        write!(f, "there is no mistake {:?}; there are: {}", self.0, names.join(", "))
    }
}

impl std::error::Error for NoSuchMistake {}

impl FromStr for Mistake {
    type Err = NoSuchMistake;
    fn from_str(name: &str) -> Result<Self, NoSuchMistake> {
        let found = Self::ALL.iter().find(|mistake| mistake.name() == name);
        found.copied().ok_or_else(|| NoSuchMistake(name.to_owned()))
    }
}
