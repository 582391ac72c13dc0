//! What systemd itself says of a unit: when it began to start, when it was up, when it was told to stop, when it was gone.
//! These are the service's own times, whoever has asked for them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::booted::BootedHost;

/// In the order in which a unit goes through them, beginning with its start.
const NAMES: [&str; 4] = ["InactiveExit", "ActiveEnter", "ActiveExit", "InactiveEnter"];

/// The last start and the last stop of a unit, in microseconds of the machine's monotonic clock; 0: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamps {
    began: u64,
    up: u64,
    told: u64,
    gone: u64,
}

impl Stamps {
    /// Of a unit on a host.
    pub(super) fn of(host: &BootedHost, unit: &str) -> Result<Self> {
        let properties = NAMES.map(|name| format!("{name}TimestampMonotonic")).join(",");
        Self::read(&host.must(&["systemctl", "show", &format!("--property={properties}"), unit])?)
            .with_context(|| format!("the times of {unit} on {}", host.name()))
    }

    fn read(text: &str) -> Result<Self> {
        let stamp = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("TimestampMonotonic="));
            line.with_context(|| format!("systemd does not say {name}"))?.parse::<u64>().context("no number")
        };
        let [began, up, told, gone] = NAMES.map(stamp);
        Ok(Self { began: began?, up: up?, told: told?, gone: gone? })
    }

    /// From the moment at which systemd began to start it until it had said READY=1.
    pub(super) fn start(&self) -> Result<Duration> {
        ensure!(self.began > 0 && self.up >= self.began, "it has not been started since it began to: {self:?}");
        Ok(Duration::from_micros(self.up - self.began))
    }

    /// From SIGTERM until nothing of it was left.
    pub(super) fn stop(&self) -> Result<Duration> {
        ensure!(self.told > 0 && self.gone >= self.told, "it has not been stopped since it was told to: {self:?}");
        Ok(Duration::from_micros(self.gone - self.told))
    }
}

/// The unit's own start, asked for by nobody but `systemctl`; so many times. It is stopped before and afterwards.
pub(super) fn alone(host: &BootedHost, unit: &str, times: usize) -> Result<Vec<Duration>> {
    let round = |_| {
        host.must(&["systemctl", "start", unit])?;
        // Before its stop: systemd forgets a unit that nobody needs.
        let stamps = Stamps::of(host, unit)?;
        host.must(&["systemctl", "stop", unit])?;
        stamps.start()
    };
    (0..times).map(round).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = "InactiveExitTimestampMonotonic=5000\nActiveEnterTimestampMonotonic=7500\n\
        ActiveExitTimestampMonotonic=4000\nInactiveEnterTimestampMonotonic=4900\n";

    #[test]
    fn a_restarted_unit_tells_its_last_start_and_the_stop_before_it() {
        let stamps = Stamps::read(SHOWN).expect("all four");
        assert_eq!(stamps.start().expect("up"), Duration::from_micros(2500));
        assert_eq!(stamps.stop().expect("gone"), Duration::from_micros(900));
    }

    #[test]
    fn a_start_that_has_not_come_up_is_no_number() {
        let starting = Stamps::read(&SHOWN.replace("=7500", "=3000")).expect("all four");
        assert!(starting.start().is_err());
        let fresh = Stamps { began: 0, up: 0, told: 0, gone: 0 };
        assert!(fresh.start().is_err() && fresh.stop().is_err());
        assert!(Stamps::read("ActiveEnterTimestampMonotonic=1\n").is_err());
    }
}
