//! The lease's numbers, and the rules that they must keep among themselves (`SAFETY.md` §1.8, K1 to K3).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::deadline::{Boot, Deadlines};

/// A taker waits this much beyond the TTL: etcd expires late by up to a scan of 0.2 s (measured).
const QUARANTINE_SLACK: Duration = Duration::from_millis(250);
/// Below this, the time that was measured for a change of the store's leader on a quiet host is hardly enough on a busy one.
const THIN_MARGIN: Duration = Duration::from_millis(500);
/// A healthy service answers every second; this many seconds in which nothing is heard are no hiccup.
const STALL: Duration = Duration::from_secs(10);
/// Nor are so many of its longest units.
const STALL_UNITS: u32 = 5;
/// K2: etcd's smallest TTL and the renewal's attempts leave no room below this.
const MIN_TTL: Duration = Duration::from_secs(6);

/// The part `[lease]` of the agent's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LeaseSettings {
    /// Whether the service has a scheduler lease at all.
    pub enabled: bool,
    /// TTL of the etcd leases: T. Whole seconds.
    #[serde(with = "crate::duration")]
    pub ttl: Duration,
    /// From one renewal to the next: i.
    #[serde(with = "crate::duration")]
    pub interval: Duration,
    /// Limit of one renewal, both calls together: a.
    #[serde(with = "crate::duration")]
    pub attempt: Duration,
    /// Longest piece of work that the service cannot abort.
    #[serde(with = "crate::duration")]
    pub c_unit: Duration,
    /// From the kill to the end of the last process.
    #[serde(with = "crate::duration")]
    pub c_kill: Duration,
    /// How far two clocks may run apart, as a part of one. 0.085: chrony may slew by 83 333 ppm.
    pub rho: f64,
    /// Longest gap between renewals while the store changes its leader: G. 4.3 s is the worst that was measured.
    #[serde(with = "crate::duration")]
    pub failover_gap: Duration,
    /// A holder's service that shows no sign of life for so long is killed; at least three of its units. None: the longer
    /// of 10 s and five units.
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    pub stall: Option<Duration>,
    /// Wait before a take-over without proof of stop. Only longer than T·(1 + rho) + 0.25 s can be asked for.
    #[serde(with = "optional_duration", skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Duration>,
    /// Whether the agent calls the service, or the service asks the agent.
    pub service: ServiceSide,
    /// Where the service takes its calls.
    pub call_path: String,
}

/// Who begins the talk between agent and service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceSide {
    /// The agent posts each record to the service's `call_path`, and the answer acknowledges it.
    #[default]
    Call,
    /// The service reads records on `lease.sock` and acknowledges each by `POST /v1/ack`. The agent never calls; every
    /// limit holds the same.
    Pull,
}

impl Default for LeaseSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            ttl: Duration::from_secs(10),
            interval: Duration::from_secs(1),
            attempt: Duration::from_secs(1),
            c_unit: Duration::from_secs(2),
            c_kill: Duration::from_secs(1),
            rho: 0.085,
            failover_gap: Duration::from_millis(4300),
            stall: None,
            quarantine: None,
            service: ServiceSide::Call,
            call_path: "/handover/lease".to_owned(),
        }
    }
}

/// Numbers that contradict each other: with them the agent refuses to hold.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SettingsError {
    /// K1.
    #[error(
        "lease: a holder may work for {soft:?} after its last renewal, which is less than interval {interval:?} + \
         failover_gap {gap:?}: a change of the store's leader would stop it (K1); raise ttl, or lower c_unit or c_kill"
    )]
    TooTight {
        /// D_soft − base.
        soft: Duration,
        /// i.
        interval: Duration,
        /// G.
        gap: Duration,
    },
    /// K2.
    #[error("lease: ttl {0:?} must be a whole number of seconds and at least {MIN_TTL:?} (K2)")]
    Ttl(Duration),
    /// K3.
    #[error(
        "lease: interval {interval:?} + attempt {attempt:?} is more than half of the {soft:?} for which a holder may \
         work after its last renewal (K3): a second attempt would come too late; lower them, or raise ttl"
    )]
    NoSecondTry {
        /// D_soft − base.
        soft: Duration,
        /// i.
        interval: Duration,
        /// a.
        attempt: Duration,
    },
    /// The quarantine's floor.
    #[error(
        "lease: quarantine {wanted:?} is shorter than ttl * (1 + rho) + 0.25 s = {floor:?}; leave it out or raise it"
    )]
    Quarantine {
        /// As configured.
        wanted: Duration,
        /// As it must be at least.
        floor: Duration,
    },
    /// A pause of the service's own would be taken for its end.
    #[error(
        "lease: stall {stall:?} is not longer than three units of c_unit {c_unit:?} and three calls of interval + attempt \
         ({calls:?}): a service that works would be killed; leave it out or raise it"
    )]
    Stall {
        /// As configured.
        stall: Duration,
        /// The longest unit.
        c_unit: Duration,
        /// Three calls.
        calls: Duration,
    },
    /// A number that cannot be meant.
    #[error("lease: {0}")]
    Nonsense(&'static str),
}

impl LeaseSettings {
    /// For services with long pieces of work.
    pub fn patient() -> Self {
        Self {
            ttl: Duration::from_secs(20),
            interval: Duration::from_secs(2),
            attempt: Duration::from_millis(1500),
            c_unit: Duration::from_secs(5),
            ..Self::default()
        }
    }

    /// Only with a store on the same host or close by: the margin over a change of leader is thin.
    pub fn quick() -> Self {
        Self {
            ttl: Duration::from_secs(6),
            interval: Duration::from_millis(500),
            attempt: Duration::from_millis(500),
            c_unit: Duration::from_millis(200),
            c_kill: Duration::from_millis(300),
            ..Self::default()
        }
    }

    /// Checks K1 to K3 and that the numbers can be meant.
    ///
    /// # Errors
    /// [`SettingsError`] with every number that takes part.
    pub fn check(&self) -> Result<(), SettingsError> {
        if !(0.001..0.5).contains(&self.rho) {
            return Err(SettingsError::Nonsense("rho must lie between 0.001 and 0.5; leave it out for 0.085"));
        }
        if self.interval.is_zero() || self.attempt.is_zero() || self.c_kill.is_zero() {
            return Err(SettingsError::Nonsense("interval, attempt and c_kill must be longer than 0"));
        }
        if !self.call_path.starts_with('/') {
            return Err(SettingsError::Nonsense("call_path must begin with \"/\", such as \"/handover/lease\""));
        }
        if self.ttl < MIN_TTL || self.ttl.subsec_nanos() != 0 {
            return Err(SettingsError::Ttl(self.ttl));
        }
        let (soft, interval) = (self.soft_span(), self.interval);
        if soft < interval + self.failover_gap {
            return Err(SettingsError::TooTight { soft, interval, gap: self.failover_gap });
        }
        if interval + self.attempt > soft / 2 {
            return Err(SettingsError::NoSecondTry { soft, interval, attempt: self.attempt });
        }
        let calls = 3 * (interval + self.attempt);
        if let Some(stall) = self.stall.filter(|stall| *stall <= calls.max(3 * self.c_unit)) {
            return Err(SettingsError::Stall { stall, c_unit: self.c_unit, calls });
        }
        let floor = self.quarantine_floor(self.ttl);
        match self.quarantine {
            Some(wanted) if wanted < floor => Err(SettingsError::Quarantine { wanted, floor }),
            Some(_) | None => Ok(()),
        }
    }

    /// How long a holder's agent may take to come back: (D_soft − base) − i.
    pub(super) fn restart_limit(&self) -> Duration {
        self.soft_span().saturating_sub(self.interval)
    }

    /// What is allowed and still to be known: a margin that a slow store uses up.
    pub fn warning(&self) -> Option<String> {
        let (soft, needed) = (self.soft_span(), self.interval + self.failover_gap);
        let margin = soft.saturating_sub(needed);
        (margin < THIN_MARGIN).then(|| {
            format!(
                "lease: a holder may work for {soft:?} after its last renewal; interval + failover_gap is {needed:?}, so a \
                 store that takes {margin:?} longer than measured stops the scheduler for a moment; use such numbers, and \
                 the preset \"quick\", only with a store close by"
            )
        })
    }

    /// How long a holder's service may show no sign of life; `c_unit` as the service declared it, if it did.
    pub fn stall_of(&self, c_unit: Option<Duration>) -> Duration {
        let unit = self.c_unit.max(c_unit.unwrap_or_default());
        self.stall.map_or(STALL.max(STALL_UNITS * unit), |stall| stall.max(3 * unit))
    }

    /// How long a taker waits after the beat of a holder with this TTL was seen absent, without proof of stop (§1.9).
    pub fn quarantine_of(&self, holder_ttl: Duration) -> Duration {
        self.quarantine_floor(holder_ttl.max(self.ttl)).max(self.quarantine.unwrap_or_default())
    }

    /// rho in millionths, as it stands in the store.
    pub fn rho_ppm(&self) -> u32 {
        // Between 0.001 and 0.5, by `check`.
        (self.rho * 1e6).round() as u32
    }

    /// T·(1 + rho) + 0.25 s: covers a revocation with a whole deadline still running at the holder.
    fn quarantine_floor(&self, ttl: Duration) -> Duration {
        ttl.mul_f64(1.0 + self.rho) + QUARANTINE_SLACK
    }

    /// D_soft − base.
    fn soft_span(&self) -> Duration {
        // Far enough from the boot that nothing is cut off at its zero, if ttl is shorter than c_unit + c_kill.
        let base = Boot::from_ns(u64::MAX / 2);
        Deadlines::of(base, self.ttl, self).soft.since(base)
    }
}

mod optional_duration {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => crate::duration::serialize(value, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        crate::duration::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn the_presets_keep_their_own_rules() {
        for preset in [LeaseSettings::default(), LeaseSettings::patient(), LeaseSettings::quick()] {
            preset.check().expect("a preset");
        }
    }

    #[test]
    fn a_ttl_that_a_leader_change_would_outlast_is_refused_with_all_numbers() {
        let settings = LeaseSettings { ttl: secs(9), ..LeaseSettings::default() };
        let error = settings.check().expect_err("K1").to_string();
        assert!(error.contains("5.235s") && error.contains("1s") && error.contains("4.3s") && error.contains("K1"));
    }

    #[test]
    fn a_ttl_must_be_whole_seconds_and_not_short() {
        for ttl in [secs(5), Duration::from_millis(10_500)] {
            let settings = LeaseSettings { ttl, ..LeaseSettings::default() };
            assert_eq!(settings.check(), Err(SettingsError::Ttl(ttl)));
        }
    }

    #[test]
    fn there_must_be_time_for_a_second_attempt() {
        let settings = LeaseSettings { attempt: Duration::from_millis(2100), ..LeaseSettings::default() };
        assert!(matches!(settings.check(), Err(SettingsError::NoSecondTry { .. })));
    }

    #[test]
    fn a_thin_margin_is_allowed_with_a_warning_that_names_it() {
        assert_eq!((LeaseSettings::default().warning(), LeaseSettings::patient().warning()), (None, None));
        let warning = LeaseSettings::quick().warning().expect("quick is thin");
        assert!(warning.contains("190ms") && warning.contains("4.99s") && warning.contains("4.8s"), "{warning}");
    }

    #[test]
    fn a_stall_that_a_working_service_could_reach_is_refused() {
        let with = |stall| LeaseSettings { stall: Some(stall), ..LeaseSettings::default() };
        assert!(matches!(with(secs(6)).check(), Err(SettingsError::Stall { .. })));
        with(secs(7)).check().expect("longer than three calls and three units");
        assert_eq!((with(secs(7)).stall_of(None), with(secs(7)).stall_of(Some(secs(4)))), (secs(7), secs(12)));
        assert_eq!(LeaseSettings::default().stall_of(None), secs(10));
        assert_eq!(LeaseSettings::default().stall_of(Some(secs(4))), secs(20));
    }

    #[test]
    fn the_quarantine_can_be_raised_but_not_lowered() {
        let with = |quarantine| LeaseSettings { quarantine: Some(quarantine), ..LeaseSettings::default() };
        assert!(matches!(with(secs(11)).check(), Err(SettingsError::Quarantine { .. })));
        with(secs(12)).check().expect("longer is allowed");
        assert_eq!(with(secs(12)).quarantine_of(secs(10)), secs(12));
        assert_eq!(LeaseSettings::default().quarantine_of(secs(10)), Duration::from_millis(11_100));
        assert!(LeaseSettings::default().quarantine_of(secs(20)) > secs(21), "the holder's own TTL counts, if longer");
    }

    #[test]
    fn the_longest_ttl_that_a_holder_key_can_name_is_waited_for_and_ends_no_thread() {
        // As `Held` is read from the store.
        let longest = secs(9_000_000_000);
        assert!(LeaseSettings { rho: 0.5, ..LeaseSettings::default() }.quarantine_of(longest) > longest);
    }

    #[test]
    fn work_longer_than_the_ttl_is_refused_and_does_not_wrap() {
        let settings = LeaseSettings { c_unit: secs(60), ..LeaseSettings::default() };
        assert!(matches!(settings.check(), Err(SettingsError::TooTight { soft: Duration::ZERO, .. })));
    }

    #[test]
    fn config_text_is_read_and_unknown_keys_are_refused() {
        let settings: LeaseSettings = toml::from_str("ttl = \"20s\"\nquarantine = \"30s\"").expect("a config");
        assert_eq!((settings.ttl, settings.quarantine), (secs(20), Some(secs(30))));
        assert_eq!(toml::from_str::<LeaseSettings>("").expect("empty"), LeaseSettings::default());
        toml::from_str::<LeaseSettings>("tll = \"20s\"").expect_err("a slip of the pen");
        let pull: LeaseSettings = toml::from_str("service = \"pull\"").expect("a config");
        assert_eq!((pull.service, LeaseSettings::default().service), (ServiceSide::Pull, ServiceSide::Call));
        toml::from_str::<LeaseSettings>("service = \"push\"").expect_err("neither");
    }
}
