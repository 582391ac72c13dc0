//! One look: asks the service, within a time, and says what was seen.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustix::io::Errno;
use tokio::time::Instant;

use super::condition::Reading;
use super::settings::{Check, ProbeSettings};
use super::{exec, http, tcp};
use crate::driver::Values;
use crate::duration::render;

/// Where an instance is to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its address, mostly loopback.
    pub host: IpAddr,
    /// What an exec probe's placeholders stand for; its port is asked unless the probe names another.
    pub values: Values,
}

impl Target {
    pub(super) fn address(&self, port: Option<u16>) -> SocketAddr {
        SocketAddr::new(self.host, port.unwrap_or(self.values.port))
    }
}

/// One look of a probe, for whoever keeps no condition.
pub(crate) async fn look_once(probe: &ProbeSettings, target: &Target) -> Reading {
    look(&probe.check, target, probe.timeout).await
}

/// Looks once. Dropping the future ends what it started.
pub(super) async fn look(check: &Check, target: &Target, limit: Duration) -> Reading {
    let asked = async {
        match check {
            Check::Http(check) => http::look(check, target).await,
            Check::Tcp(check) => tcp::look(check, target).await,
            Check::Exec(check) => exec::look(check, target).await,
        }
    };
    let began = Instant::now();
    match tokio::time::timeout(limit, asked).await {
        Ok(reading) => reading,
        Err(_) => no_answer(began.elapsed(), limit),
    }
}

/// Who was late? If the limit was noticed long after it had passed, this agent did not run meanwhile (stopped, starved,
/// suspended), and an answer may have been missed.
fn no_answer(elapsed: Duration, limit: Duration) -> Reading {
    let overrun = elapsed.saturating_sub(limit);
    // A busy host wakes us some milliseconds late; a tenth of a second is more than that.
    if overrun > Duration::from_millis(100).max(limit / 2) {
        Reading::NotTaken(format!("the agent itself was {} late", render(overrun)))
    } else {
        Reading::Bad(format!("no answer within {}", render(limit)))
    }
}

/// What a failed call says: if this host has run out of something, nothing about the service.
pub(super) fn failed(what: &str, error: &io::Error) -> Reading {
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::AGAIN, Errno::ADDRNOTAVAIL];
    let text = format!("{what}: {error}");
    match error.raw_os_error() {
        Some(number) if ours.iter().any(|errno| errno.raw_os_error() == number) => Reading::NotTaken(text),
        _ => Reading::Bad(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_agent_is_told_apart_from_a_silent_service() {
        let ms = Duration::from_millis;
        assert_eq!(no_answer(ms(500), ms(500)), Reading::Bad("no answer within 500ms".to_owned()));
        assert_eq!(no_answer(ms(600), ms(500)), Reading::Bad("no answer within 500ms".to_owned()));
        let late = Reading::NotTaken("the agent itself was 3s late".to_owned());
        assert_eq!(no_answer(ms(3500), ms(500)), late);
        assert!(matches!(no_answer(ms(115), ms(10)), Reading::NotTaken(_)));
        assert!(matches!(no_answer(ms(80), ms(10)), Reading::Bad(_)), "a small limit is no excuse for impatience");
    }

    #[test]
    fn a_host_that_ran_out_of_something_says_nothing_of_the_service() {
        let reading = |errno: Errno| failed("cannot connect", &io::Error::from(errno));
        assert!(matches!(reading(Errno::MFILE), Reading::NotTaken(_)));
        assert!(matches!(reading(Errno::CONNREFUSED), Reading::Bad(_)));
        assert!(matches!(failed("cannot connect", &io::Error::other("x")), Reading::Bad(_)));
    }
}
