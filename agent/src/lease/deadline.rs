//! How long a holder may work (`SAFETY.md` §1.8): arithmetic on CLOCK_BOOTTIME, nothing else.

use std::time::Duration;

use super::settings::LeaseSettings;

/// A moment on CLOCK_BOOTTIME of this host, in nanoseconds since its boot. Worth nothing after another boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Boot(u64);

impl Boot {
    /// From the clock's own count of nanoseconds.
    pub fn from_ns(ns: u64) -> Self {
        Self(ns)
    }

    /// Nanoseconds since boot.
    pub fn ns(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since boot.
    pub fn ms(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Later by `span`.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Earlier by `span`, at the earliest the boot itself: too early is the safe side of a deadline.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Time from `earlier` to here; zero if it is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Until when a turn allows work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// No new unit of work from here on.
    pub soft: Boot,
    /// The kill, if the service has not acknowledged: work has provably stopped `c_kill` later, before etcd can expire
    /// the lease.
    pub hard: Boot,
}

impl Deadlines {
    /// From the last accepted renewal: `base` is the moment before its request was sent, `ttl` what the store answered.
    pub fn of(base: Boot, ttl: Duration, settings: &LeaseSettings) -> Self {
        // etcd's clock may run fast by rho, so it cannot have expired the lease before this.
        let e_low = base.plus(ttl.mul_f64(1.0 - settings.rho));
        let hard = e_low.minus(settings.c_kill);
        Self { soft: hard.minus(settings.c_unit), hard }
    }

    /// For a turn that an earlier agent process left behind and whose base nobody knows any more: its deadline lies
    /// somewhere ahead or has passed, so the service gets one attempt's time and then has to stop.
    pub fn provisional(adopted: Boot, settings: &LeaseSettings) -> Self {
        let soft = adopted.plus(settings.attempt);
        Self { soft, hard: soft.plus(settings.c_unit) }
    }

    /// The later of both, part by part: a deadline never moves back within a turn (I15).
    #[must_use]
    pub fn extended_by(self, other: Self) -> Self {
        Self { soft: self.soft.max(other.soft), hard: self.hard.max(other.hard) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Boot {
        Boot::from_ns(ms * 1_000_000)
    }

    #[test]
    fn the_default_preset_has_the_deadlines_of_the_table() {
        let deadlines = Deadlines::of(at(100_000), Duration::from_secs(10), &LeaseSettings::default());
        assert_eq!((deadlines.soft, deadlines.hard), (at(106_150), at(108_150)));
    }

    #[test]
    fn the_other_presets_have_the_deadlines_of_the_table() {
        let patient = Deadlines::of(at(100_000), Duration::from_secs(20), &LeaseSettings::patient());
        assert_eq!((patient.soft, patient.hard), (at(112_300), at(117_300)));
        let quick = Deadlines::of(at(100_000), Duration::from_secs(6), &LeaseSettings::quick());
        assert_eq!((quick.soft, quick.hard), (at(104_990), at(105_190)));
    }

    #[test]
    fn a_deadline_is_counted_from_the_sending_and_ends_before_the_store_can_expire_the_lease() {
        for preset in [LeaseSettings::default(), LeaseSettings::patient(), LeaseSettings::quick()] {
            let deadlines = Deadlines::of(at(1_000), preset.ttl, &preset);
            let fast_clock = at(1_000).plus(preset.ttl.mul_f64(1.0 - preset.rho));
            assert!(deadlines.soft < deadlines.hard && deadlines.hard.plus(preset.c_kill) <= fast_clock);
        }
    }

    #[test]
    fn an_older_renewal_never_moves_a_deadline_back() {
        let settings = LeaseSettings::default();
        let new = Deadlines::of(at(50_000), settings.ttl, &settings);
        let old = Deadlines::of(at(49_000), settings.ttl, &settings);
        assert_eq!(new.extended_by(old), new);
        assert_eq!(old.extended_by(new), new);
    }

    #[test]
    fn a_moment_never_wraps_around() {
        assert_eq!(at(1).minus(Duration::from_secs(5)), Boot::default());
        assert_eq!(Boot::from_ns(u64::MAX).plus(Duration::from_secs(1)), Boot::from_ns(u64::MAX));
        assert_eq!(at(1).since(at(2)), Duration::ZERO);
    }
}
