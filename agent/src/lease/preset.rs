//! The part `[lease]` of the config: a preset, and single keys that go before it.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::settings::LeaseSettings;

/// Where the numbers come from that the config does not name (`SAFETY.md` §1.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Preset {
    /// Survives a change of etcd's leader unnoticed.
    #[default]
    Default,
    /// For long pieces of work.
    Patient,
    /// Only with a store close by.
    Quick,
}

impl Preset {
    fn settings(self) -> LeaseSettings {
        match self {
            Self::Default => LeaseSettings::default(),
            Self::Patient => LeaseSettings::patient(),
            Self::Quick => LeaseSettings::quick(),
        }
    }
}

/// Reads the table: what it does not name is as in its `preset`.
///
/// # Errors
/// An unknown preset or key, a value of the wrong kind.
pub(crate) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<LeaseSettings>, D::Error> {
    let mut named = toml::Table::deserialize(deserializer)?;
    let preset = named.remove("preset").map(Preset::deserialize).transpose();
    let preset = preset.map_err(|error| D::Error::custom(format!("in [lease], preset: {error}")))?;
    let mut whole = toml::Table::try_from(preset.unwrap_or_default().settings()).map_err(D::Error::custom)?;
    whole.extend(named);
    whole.try_into().map(Some).map_err(|error: toml::de::Error| D::Error::custom(format!("in [lease]: {error}")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct File {
        #[serde(default, deserialize_with = "read")]
        lease: Option<LeaseSettings>,
    }

    fn lease(text: &str) -> LeaseSettings {
        toml::from_str::<File>(text).expect("a config").lease.expect("a lease")
    }

    #[test]
    fn each_preset_is_taken_as_a_whole_and_without_one_the_default() {
        assert_eq!(lease("[lease]"), LeaseSettings::default());
        assert_eq!(lease("[lease]\npreset = \"default\""), LeaseSettings::default());
        assert_eq!(lease("[lease]\npreset = \"patient\""), LeaseSettings::patient());
        assert_eq!(lease("[lease]\npreset = \"quick\""), LeaseSettings::quick());
        assert_eq!(toml::from_str::<File>("").expect("a config").lease, None, "no scheduler");
    }

    #[test]
    fn single_keys_go_before_the_preset() {
        let text = "[lease]\npreset = \"patient\"\nc_unit = \"7s\"\nquarantine = \"40s\"\nenabled = false";
        let wanted = LeaseSettings {
            c_unit: Duration::from_secs(7),
            quarantine: Some(Duration::from_secs(40)),
            enabled: false,
            ..LeaseSettings::patient()
        };
        assert_eq!(lease(text), wanted);
    }

    #[test]
    fn an_unknown_preset_or_key_is_refused_by_name() {
        for (text, says) in [
            ("preset = \"slow\"", "slow"),
            ("preset = \"slow\"", "patient"),
            ("preset = 3", "preset"),
            ("tll = \"9s\"", "tll"),
            ("ttl = 9", "9s"),
        ] {
            let error = toml::from_str::<File>(&format!("[lease]\n{text}")).expect_err(text).to_string();
            assert!(error.contains("[lease]") && error.contains(says), "{text}: {error}");
        }
    }
}
