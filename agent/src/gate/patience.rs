//! How long a request waits in all, and how often it is tried meanwhile.

use std::time::Duration;

use tokio::time::Instant;

use super::control::Reason;

/// Between two tries to connect: an agent tells of an end within milliseconds, so this is for a gate without one.
const RECONNECT: Duration = Duration::from_millis(100);

/// The same for an upstream that refuses, which is there: twice as long each time, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How much longer a request may wait in all, whatever for, from its first wait on.
#[derive(Debug, Default)]
pub(super) struct Patience {
    until: Option<Instant>,
    refusals: u32,
}

impl Patience {
    /// Whether it has begun to wait.
    pub(super) fn has_begun(&self) -> bool {
        self.until.is_some()
    }

    /// When all of its waits end, if one may take `time`.
    pub(super) fn until(&mut self, time: Duration) -> Instant {
        *self.until.get_or_insert_with(|| Instant::now() + time)
    }

    /// How long to wait until the next try.
    pub(super) fn pause(&mut self, why: Reason) -> Duration {
        if why != Reason::Refused {
            return RECONNECT;
        }
        self.refusals += 1;
        RECONNECT.saturating_mul(1 << (self.refusals - 1).min(8)).min(LONGEST_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_refuses_is_asked_ever_more_seldom_and_who_cannot_be_connected_to_in_an_even_pace() {
        let mut patience = Patience::default();
        let pauses = [(); 7].map(|()| patience.pause(Reason::Refused).as_millis());
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(patience.pause(Reason::Connect), RECONNECT);
    }

    #[test]
    fn all_waits_of_a_request_end_at_the_same_moment() {
        let mut patience = Patience::default();
        let until = patience.until(Duration::from_secs(10));
        assert_eq!(patience.until(Duration::from_secs(99)), until);
    }
}
