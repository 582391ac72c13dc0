//! systemd's watchdog (`WatchdogSec=` in the agent's unit): the agent says that it lives as long as its main loop turns and
//! its lease keeper decides. A hanging agent is then restarted while its deadlines still stand (K5).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use handover_proto::wire::Report;
use tokio::sync::watch;

use crate::notify::ServiceManager;

/// Said so often within one period: a single one may come late.
const SAID_IN_A_PERIOD: u32 = 3;

/// After how much silence this process is restarted; none: nobody watches it.
pub(crate) fn period() -> Option<Duration> {
    let var = |name| std::env::var(name).ok();
    period_of(var("WATCHDOG_USEC").as_deref(), var("WATCHDOG_PID").as_deref(), std::process::id())
}

/// `sd_watchdog_enabled(3)`: the variables may have been meant for somebody else.
fn period_of(usec: Option<&str>, pid: Option<&str>, me: u32) -> Option<Duration> {
    let ours = pid.is_none_or(|pid| pid.parse() == Ok(me));
    usec?.parse().ok().filter(|usec| ours && *usec > 0).map(Duration::from_micros)
}

/// Says so for as long as both go on; never ends. `laps` counts the keeper's decisions; none: there is no keeper.
pub(crate) async fn keep_telling(mut reports: watch::Receiver<Report>, laps: Option<Arc<AtomicU64>>) {
    let Some(period) = period() else { return };
    let manager = ServiceManager::of_environment();
    let mut seen = 0;
    loop {
        tokio::time::sleep(period / SAID_IN_A_PERIOD).await;
        let now = laps.as_ref().map(|laps| laps.load(Ordering::Relaxed));
        let decides = now.is_none_or(|now| now != std::mem::replace(&mut seen, now));
        let turns = reports.has_changed().unwrap_or(false);
        if !(turns && decides) {
            tracing::warn!(turns, decides, "the agent does not get on; its watchdog hears nothing");
            continue;
        }
        reports.mark_unchanged();
        manager.alive();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_period_is_taken_from_variables_that_are_meant_for_this_process() {
        let three = Some(Duration::from_secs(3));
        assert_eq!(period_of(Some("3000000"), None, 7), three);
        assert_eq!(period_of(Some("3000000"), Some("7"), 7), three);
        assert_eq!(period_of(Some("3000000"), Some("8"), 7), None);
        assert_eq!(
            (period_of(None, None, 7), period_of(Some("0"), None, 7), period_of(Some("x"), None, 7)),
            (None, None, None)
        );
    }
}
