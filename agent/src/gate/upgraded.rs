//! When to close a connection that speaks another protocol since its `Upgrade`. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What becomes of upgraded connections, `[gate.upgraded]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UpgradedSettings {
    /// What the drain of their upstream does to them.
    pub at_drain: AtDrain,
    /// The same for answers to gRPC calls, which may be streams without end; they end with the status UNAVAILABLE. By default
    /// the drain waits for them, as for every request: the gate cannot tell a stream from a call that takes long.
    pub grpc: AtDrain,
    /// With `move-at-deadline`: how long after the beginning of the drain they are closed. With `close_grace` it ends before
    /// a rollout's drain deadline (30 s, if the spec does not say otherwise), so that the drain ends well.
    #[serde(with = "crate::duration")]
    pub deadline: Duration,
    /// How long a client that was told may take to close; then it is cut off. Clients answer a Close frame at once; this is
    /// for what they were just sending.
    #[serde(with = "crate::duration")]
    pub close_grace: Duration,
    /// How long nothing may pass in either direction. An hour, as other proxies have it: an idle WebSocket is cheap, and who
    /// wants to know sooner sends pings.
    #[serde(with = "crate::duration")]
    pub idle_time: Duration,
    /// The same once one side has ended and the other has not, which mostly is a peer that has vanished.
    #[serde(with = "crate::duration")]
    pub half_closed_time: Duration,
}

/// What the drain of an upstream does to the upgraded connections through it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AtDrain {
    /// Nothing: the drain waits for them, until the rollout's own deadline and policy.
    Finish,
    /// They are closed when the drain begins.
    Close,
    /// They are closed some time after the drain began, [`UpgradedSettings::deadline`].
    #[default]
    MoveAtDeadline,
}

impl Default for UpgradedSettings {
    fn default() -> Self {
        Self {
            at_drain: AtDrain::default(),
            grpc: AtDrain::Finish,
            deadline: Duration::from_secs(20),
            close_grace: Duration::from_secs(5),
            idle_time: Duration::from_secs(3600),
            half_closed_time: Duration::from_secs(60),
        }
    }
}

/// What is known of one. All times are since the gate's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tunnel {
    /// When a byte last passed.
    pub moved: Duration,
    /// Whether one side has ended.
    pub half_closed: bool,
    /// Since when its upstream is drained.
    pub drained_since: Option<Duration>,
    /// When the process ends whatever is left, if it is stopping.
    pub ends_at: Option<Duration>,
    /// Since when it is being closed.
    pub closing_since: Option<Duration>,
}

/// What to do with it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Leave it alone and look again then.
    KeepUntil(Duration),
    /// Tell its client that it has to go.
    Close,
    /// Cut it off.
    Cut(&'static str),
}

impl Tunnel {
    /// The decision.
    pub fn fate(&self, settings: &UpgradedSettings, now: Duration) -> Fate {
        if let Some(since) = self.closing_since {
            let until = since + settings.close_grace;
            return if now < until { Fate::KeepUntil(until) } else { Fate::Cut("its client did not close it in time") };
        }
        let idle = self.moved + if self.half_closed { settings.half_closed_time } else { settings.idle_time };
        if now >= idle {
            return Fate::Cut("nothing has passed through it for the idle time");
        }
        let close = match (self.close_at(settings), self.last_moment(settings)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        match close {
            Some(at) if now >= at => Fate::Close,
            at => Fate::KeepUntil(at.map_or(idle, |at| at.min(idle))),
        }
    }

    fn close_at(&self, settings: &UpgradedSettings) -> Option<Duration> {
        match settings.at_drain {
            AtDrain::Finish => None,
            AtDrain::Close => self.drained_since,
            AtDrain::MoveAtDeadline => self.drained_since.map(|since| since + settings.deadline),
        }
    }

    /// Whatever the policy: nobody is cut off by the end of the process without having been told.
    fn last_moment(&self, settings: &UpgradedSettings) -> Option<Duration> {
        self.ends_at.map(|end| end.saturating_sub(settings.close_grace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn fate(at_drain: AtDrain, tunnel: Tunnel, now: u64) -> Fate {
        let settings = UpgradedSettings {
            at_drain,
            grpc: AtDrain::Finish,
            deadline: S(20),
            close_grace: S(5),
            idle_time: S(1000),
            half_closed_time: S(60),
        };
        tunnel.fate(&settings, S(now))
    }

    #[test]
    fn each_policy_closes_at_its_own_time_after_the_drain_began() {
        let drained = Tunnel { drained_since: Some(S(100)), ..Tunnel::default() };
        assert_eq!(fate(AtDrain::Close, drained, 100), Fate::Close);
        assert_eq!(fate(AtDrain::MoveAtDeadline, drained, 119), Fate::KeepUntil(S(120)));
        assert_eq!(fate(AtDrain::MoveAtDeadline, drained, 120), Fate::Close);
        assert_eq!(fate(AtDrain::Finish, drained, 999), Fate::KeepUntil(S(1000)));
        for policy in [AtDrain::Close, AtDrain::MoveAtDeadline, AtDrain::Finish] {
            assert_eq!(fate(policy, Tunnel::default(), 500), Fate::KeepUntil(S(1000)), "no drain");
        }
    }

    #[test]
    fn one_that_was_told_is_cut_off_after_the_grace() {
        let told = Tunnel { closing_since: Some(S(100)), ..Tunnel::default() };
        assert_eq!(fate(AtDrain::Close, told, 104), Fate::KeepUntil(S(105)));
        assert!(matches!(fate(AtDrain::Close, told, 105), Fate::Cut(_)));
    }

    #[test]
    fn before_the_process_ends_everyone_is_told_whatever_the_policy() {
        let ending = Tunnel { ends_at: Some(S(130)), drained_since: Some(S(100)), ..Tunnel::default() };
        assert_eq!(fate(AtDrain::Finish, ending, 124), Fate::KeepUntil(S(125)));
        assert_eq!(fate(AtDrain::Finish, ending, 125), Fate::Close);
        assert_eq!(fate(AtDrain::MoveAtDeadline, ending, 119), Fate::KeepUntil(S(120)));
    }

    #[test]
    fn one_without_traffic_is_cut_off_after_the_idle_time() {
        let idle = Tunnel { moved: S(50), ..Tunnel::default() };
        assert_eq!(fate(AtDrain::Close, idle, 1049), Fate::KeepUntil(S(1050)));
        assert!(matches!(fate(AtDrain::Close, idle, 1050), Fate::Cut(_)));
        let half = Tunnel { half_closed: true, ..idle };
        assert_eq!(fate(AtDrain::Close, half, 109), Fate::KeepUntil(S(110)));
        assert!(matches!(fate(AtDrain::Close, half, 110), Fate::Cut(_)), "sooner when one side is gone");
    }
}
