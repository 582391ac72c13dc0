//! `[driver]` with `kind = "systemd"`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use handover_proto::ids::SlotId;
use serde::Deserialize;

use crate::driver::settings::default_grace;
use crate::driver::{Place, SettingsError, Template};

/// Stands for the slot's name in a unit's.
const SLOT: &str = "{slot}";

/// Slots are units of the operator's, which the agent starts and stops over D-Bus.
///
/// ```toml
/// [driver]
/// kind = "systemd"
/// unit = "billing@{slot}.service"
/// builds = "/builds/billing"
/// grace = "30s"
/// [driver.env]
/// PORT = "{port}"
/// ```
///
/// The unit finds its program under the link `current@{slot}` in `builds` (`current` if the unit's name has no slot in it),
/// and its variables in `slots/{slot}.env` of the agent's runtime directory, which it must name as `EnvironmentFile=`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Raw")]
pub struct SystemdSettings {
    unit: String,
    /// Holds one directory per version; an absolute path.
    pub builds: PathBuf,
    /// Added to the unit's variables.
    pub env: BTreeMap<String, Template>,
    /// From the order to stop to SIGKILL. The unit's `TimeoutStopSec=` must not be shorter.
    pub grace: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    unit: String,
    builds: PathBuf,
    #[serde(default)]
    env: BTreeMap<String, Template>,
    #[serde(with = "crate::duration", default = "default_grace")]
    grace: Duration,
}

impl TryFrom<Raw> for SystemdSettings {
    type Error = SettingsError;

    fn try_from(raw: Raw) -> Result<Self, SettingsError> {
        let plain = raw.unit.replacen(SLOT, "", 1);
        let named = plain.strip_suffix(".service").is_some_and(|name| !name.is_empty());
        if !named || plain.contains(['{', '}', '/', ' ']) {
            return Err(SettingsError::Unit { unit: raw.unit });
        }
        if !raw.builds.is_absolute() {
            return Err(SettingsError::RelativeBuilds { builds: raw.builds });
        }
        if let Some(name) = raw.env.keys().find(|name| name.starts_with("HANDOVER_")) {
            return Err(SettingsError::ReservedVariable { name: name.clone() });
        }
        Ok(Self { unit: raw.unit, builds: raw.builds, env: raw.env, grace: raw.grace })
    }
}

impl SystemdSettings {
    /// The unit of a slot.
    pub fn unit(&self, slot: &SlotId) -> String {
        self.unit.replace(SLOT, slot.as_str())
    }

    /// Whether each slot has a unit of its own.
    pub fn is_template(&self) -> bool {
        self.unit.contains(SLOT)
    }

    /// The link by which the unit finds its version.
    pub(super) fn link(&self, slot: &SlotId) -> PathBuf {
        let name = if self.is_template() { format!("current@{slot}") } else { "current".to_owned() };
        self.builds.join(name)
    }

    /// What the config adds to the variables of a start.
    pub(super) fn variables(&self, place: &Place<'_>) -> Vec<(String, String)> {
        let values = place.values(&self.builds);
        self.env.iter().map(|(name, text)| (name.clone(), text.render(&values))).collect()
    }
}

/// Where the unit of a slot finds its variables.
pub(super) fn variables_file(runtime_dir: &Path, slot: &SlotId) -> PathBuf {
    runtime_dir.join("slots").join(format!("{slot}.env"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::DriverSettings;

    const GOOD: &str = r#"
        kind = "systemd"
        unit = "billing@{slot}.service"
        builds = "/builds/billing"
        grace = "5s"
        env = { PORT = "{port}" }
    "#;

    fn parse(text: &str) -> Result<SystemdSettings, String> {
        match toml::from_str(text) {
            Ok(DriverSettings::Systemd(settings)) => Ok(settings),
            Ok(_) => Err("another driver".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn each_slot_has_its_unit_its_link_and_its_variables() {
        let settings = parse(GOOD).expect("settings");
        let slot = "b".parse().expect("slot");
        assert_eq!(settings.unit(&slot), "billing@b.service");
        assert_eq!(settings.link(&slot), Path::new("/builds/billing/current@b"));
        let (version, instance) = ("1.5.0".parse().expect("version"), "00000000000000aa".parse().expect("id"));
        let place =
            Place { slot: &slot, port: 8081, version: &version, instance: &instance, state_dir: Path::new("/var/h") };
        assert_eq!(settings.variables(&place), [("PORT".to_owned(), "8081".to_owned())]);
    }

    #[test]
    fn a_single_unit_has_one_link() {
        let settings = parse(&GOOD.replace("@{slot}", "")).expect("settings");
        assert!(!settings.is_template());
        assert_eq!(settings.link(&"a".parse().expect("slot")), Path::new("/builds/billing/current"));
    }

    #[test]
    fn each_mistake_is_refused_with_its_name() {
        for (from, to, expected) in [
            ("billing@{slot}.service", "billing@{slot}", "is no name of a service unit"),
            ("billing@{slot}.service", "billing@{port}.service", "is no name of a service unit"),
            ("billing@{slot}.service", ".service", "is no name of a service unit"),
            ("/builds/billing", "builds", "not an absolute path"),
            ("PORT", "HANDOVER_SLOT", "HANDOVER_SLOT"),
            ("grace", "gracious", "gracious"),
        ] {
            let error = parse(&GOOD.replace(from, to)).expect_err(to);
            assert!(error.contains(expected), "{to}: {error}");
        }
    }
}
