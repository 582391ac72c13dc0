//! How long nobody may work, per cause: the table of `SAFETY.md` §1.9 for the default preset, and what a site of real
//! processes on a busy machine adds.

use std::time::Duration;

/// The machine's part: eight processes and the load share two cores.
pub(super) const MACHINE: Duration = Duration::from_secs(3);
/// §1.9: the holder's host is lost and etcd's version is not known to be good.
pub const HOST_LOST: Duration = Duration::from_secs(22 + MACHINE.as_secs());
/// §1.9: the service died; somebody else is told at once. It may have to be started anew to find a place.
pub const APP_GONE: Duration = Duration::from_secs(1 + MACHINE.as_secs());
/// §1.9: stall (10 s) + 1 s, counted from the last unit.
pub const APP_HANGS: Duration = Duration::from_secs(11 + MACHINE.as_secs());
/// Ending every descendant of a service takes rounds over the process table.
pub const CLEARING: Duration = Duration::from_secs(3);
/// F8: once etcd answers again, it elects a leader (1 to 2 s) and the holder renews or takes its turn anew.
pub const QUORUM_BACK: Duration = Duration::from_secs(3 + MACHINE.as_secs());
/// How old a snapshot is that etcd is restored from: long enough for a turn.
pub const LOST_HISTORY: Duration = Duration::from_secs(3);
/// Once the era is raised, a whole deadline is waited out, and then the lease is taken up as after a loss.
pub const RESTORED: Duration = HOST_LOST;
/// A service that starts anew is ready, and its gate knows it.
pub const TRAFFIC_BACK: Duration = Duration::from_secs(5);
/// One that hangs is killed only after the stall.
pub const TRAFFIC_BACK_AFTER_STALL: Duration = Duration::from_secs(16);
/// Whoever lied about QUIESCED works on until its own deadline at most.
pub const LIE: Duration = Duration::from_secs(9);
/// What is not started again in this schedule.
pub const FOR_EVER: Duration = Duration::from_secs(3600);
