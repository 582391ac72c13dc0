//! A host's clock: its own zero, its own rate, and the pauses that it does not show.

use handover_agent::lease::deadline::Boot;

/// CLOCK_BOOTTIME of a host, over the run's true time in microseconds.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    /// Nanoseconds of this clock per true microsecond, divided by a thousand.
    pub(crate) rate: f64,
    at_us: u64,
    at_ns: u64,
    stands: bool,
}

impl Clock {
    pub(crate) fn new(zero_ns: u64, rate: f64) -> Self {
        Self { rate, at_us: 0, at_ns: zero_ns, stands: false }
    }

    pub(crate) fn ns(&self, now_us: u64) -> u64 {
        let run = if self.stands { 0 } else { now_us.saturating_sub(self.at_us) };
        self.at_ns + (run as f64 * self.rate * 1000.0) as u64
    }

    pub(crate) fn boot(&self, now_us: u64) -> Boot {
        Boot::from_ns(self.ns(now_us))
    }

    /// True microseconds until the clock shows `ns`, rounded up; 0: it has.
    pub(crate) fn until(&self, ns: u64, now_us: u64) -> u64 {
        let left = ns.saturating_sub(self.ns(now_us));
        if left == 0 { 0 } else { (left as f64 / self.rate / 1000.0) as u64 + 1 }
    }

    /// A pause that this clock does not show begins or ends.
    pub(crate) fn stand(&mut self, stands: bool, now_us: u64) {
        (self.at_ns, self.at_us) = (self.ns(now_us), now_us);
        self.stands = stands;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_runs_at_its_rate_and_hides_a_pause() {
        let mut clock = Clock::new(5_000, 2.0);
        assert_eq!((clock.ns(0), clock.ns(10)), (5_000, 25_000));
        assert_eq!(clock.until(25_000, 0), 11);
        clock.stand(true, 10);
        assert_eq!(clock.ns(1_000_000), 25_000);
        clock.stand(false, 1_000_000);
        assert_eq!(clock.ns(1_000_001), 27_000);
    }
}
