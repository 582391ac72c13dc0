//! The connections of one instance over time: from counts to a line of the drain ledger. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::core::observed::{Boot, Kind, Ledger, Line};

/// For this long nothing may be seen before nothing is believed: a connection that the balancer began just before it was
/// told is on its way for a round trip.
const QUIET: Duration = Duration::from_millis(250);

/// What has been seen of one instance's connections.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tracked {
    /// Who is connected, and since when that is known.
    peers: BTreeMap<SocketAddr, Boot>,
    /// Since when nobody is.
    none_since: Option<Boot>,
    /// When that was counted last.
    at: Boot,
    /// Why it could not be counted.
    trouble: Option<String>,
}

impl Tracked {
    /// Takes a count in.
    pub fn take(&mut self, counted: Result<BTreeSet<SocketAddr>, String>, now: Boot) {
        self.at = now;
        match counted {
            Ok(peers) => {
                let known = std::mem::take(&mut self.peers);
                self.peers = peers.into_iter().map(|it| (it, known.get(&it).copied().unwrap_or(now))).collect();
                self.none_since = self.peers.is_empty().then(|| self.none_since.unwrap_or(now));
                self.trouble = None;
            }
            Err(trouble) => (self.none_since, self.trouble) = (None, Some(trouble)),
        }
    }

    /// The ledger. `cut_off`: since when every balancer says that it sends nothing.
    pub fn ledger(&self, cut_off: Option<Boot>) -> Ledger {
        let count = u64::try_from(self.peers.len()).unwrap_or(u64::MAX);
        let oldest = self.peers.values().min().map_or(Duration::ZERO, |since| self.at.saturating_sub(*since));
        let quiet = |since: Option<Boot>| since.is_some_and(|since| since + QUIET <= self.at);
        let line = match &self.trouble {
            Some(trouble) => Line::unknown(Kind::Sockets, trouble.clone()),
            None if count == 0 && !(quiet(self.none_since) && quiet(cut_off)) => {
                Line::unknown(Kind::Sockets, "none, if none comes in the next moment".to_owned())
            }
            None => Line::counted(Kind::Sockets, count, oldest),
        };
        Ledger { lines: vec![line] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Boot {
        Duration::from_millis(10_000 + ms)
    }

    fn peers(ports: &[u16]) -> Result<BTreeSet<SocketAddr>, String> {
        Ok(ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect())
    }

    #[test]
    fn connections_are_counted_with_the_age_of_the_oldest() {
        let mut it = Tracked::default();
        it.take(peers(&[1, 2]), at(0));
        it.take(peers(&[2, 3, 4]), at(700));
        let ledger = it.ledger(Some(at(0)));
        assert!(!ledger.is_drained());
        assert_eq!((ledger.lines[0].count, ledger.lines[0].oldest), (3, Duration::from_millis(700)));
    }

    #[test]
    fn none_is_believed_only_after_a_quiet_moment_in_which_no_balancer_sends() {
        let mut it = Tracked::default();
        it.take(peers(&[]), at(0));
        assert!(!it.ledger(Some(at(0))).is_drained(), "one may be on its way");
        it.take(peers(&[]), at(250));
        assert!(it.ledger(Some(at(0))).is_drained());
        assert!(!it.ledger(None).is_drained(), "idle, but it may be sent something");
        assert!(!it.ledger(Some(at(100))).is_drained(), "cut off a moment ago");
        it.take(peers(&[9]), at(300));
        it.take(peers(&[]), at(400));
        assert!(!it.ledger(Some(at(0))).is_drained(), "the quiet begins again");
    }

    #[test]
    fn what_cannot_be_counted_is_never_nothing() {
        let mut it = Tracked::default();
        it.take(peers(&[]), at(0));
        it.take(Err("sockets: no such namespace".into()), at(1000));
        let ledger = it.ledger(Some(at(0)));
        assert!(!ledger.is_drained() && ledger.sentence().contains("no such namespace"), "{ledger:?}");
        it.take(peers(&[]), at(2000));
        assert!(!it.ledger(Some(at(0))).is_drained(), "nothing is known of the time between");
    }
}
