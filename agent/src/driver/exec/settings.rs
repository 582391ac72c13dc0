//! `[driver]` with `kind = "exec"`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::driver::settings::default_grace;
use crate::driver::{SettingsError, Template, Values};

/// Commands of the operator's start, stop and watch each slot: for Docker Compose, podman and whatever else.
///
/// ```toml
/// [driver]
/// kind = "exec"
/// builds = "/builds/billing"
/// start = ["docker", "run", "-d", "--rm", "--name", "billing-{slot}", "-p", "{port}:8080", "billing:{version}"]
/// stop = ["docker", "stop", "--time", "25", "billing-{slot}"]
/// kill = ["docker", "kill", "billing-{slot}"]
/// status = ["/etc/handover/container-status", "billing-{slot}"]
/// limit = "60s"
/// kill_limit = "5s"
/// status_limit = "2s"
/// seen_within = "1s"
/// every = "1s"
/// stopped_is_proof = false
/// grace = "30s"
/// ```
///
/// They run in the version's directory, with the agent's marks and `env` as variables. `start` and `stop` end with code 0
/// when it is done. `status` ends with 0 when the slot's instance runs, and says on its last line which one it is; with 3
/// when nothing runs there; any other end, and none within `limit`, means that it cannot tell.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Raw")]
pub struct ExecSettings {
    /// Starts the slot's instance, and ends.
    pub start: Vec<Template>,
    /// Asks it to end.
    pub stop: Vec<Template>,
    /// Ends it at once; `stop` if the config has none.
    pub kill: Vec<Template>,
    /// Says whether it runs.
    pub status: Vec<Template>,
    /// Holds one directory per version; an absolute path.
    pub builds: PathBuf,
    /// Added to the commands' variables.
    pub env: BTreeMap<String, Template>,
    /// How long start, stop and status may take.
    pub limit: Duration,
    /// How long kill may take.
    pub kill_limit: Duration,
    /// How long each status may take while the agent starts: it does nothing else before it knows what runs.
    pub status_limit: Duration,
    /// How long after the end of the start command status may say that nothing runs yet.
    pub seen_within: Duration,
    /// Between two looks at the status.
    pub every: Duration,
    /// The operator's word that no process of an instance is left once `status` says that it has stopped.
    pub stopped_is_proof: bool,
    /// From the order to stop to the kill.
    pub grace: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    start: Vec<Template>,
    stop: Vec<Template>,
    #[serde(default)]
    kill: Vec<Template>,
    status: Vec<Template>,
    builds: PathBuf,
    #[serde(default)]
    env: BTreeMap<String, Template>,
    #[serde(with = "crate::duration", default = "default_limit")]
    limit: Duration,
    #[serde(with = "crate::duration", default = "default_kill_limit")]
    kill_limit: Duration,
    #[serde(with = "crate::duration", default = "default_status_limit")]
    status_limit: Duration,
    #[serde(with = "crate::duration", default = "default_seen_within")]
    seen_within: Duration,
    #[serde(with = "crate::duration", default = "default_every")]
    every: Duration,
    #[serde(default)]
    stopped_is_proof: bool,
    #[serde(with = "crate::duration", default = "default_grace")]
    grace: Duration,
}

/// A container's image may have to be unpacked first.
fn default_limit() -> Duration {
    Duration::from_secs(60)
}

/// A kill that takes longer has not worked.
fn default_kill_limit() -> Duration {
    Duration::from_secs(10)
}

/// A lease that is held is not renewed meanwhile.
fn default_status_limit() -> Duration {
    Duration::from_secs(2)
}

/// A start command ends when it is done; what it started is seen at once, or has ended.
fn default_seen_within() -> Duration {
    Duration::from_secs(1)
}

/// As often as a report goes out.
fn default_every() -> Duration {
    Duration::from_secs(1)
}

impl TryFrom<Raw> for ExecSettings {
    type Error = SettingsError;

    fn try_from(raw: Raw) -> Result<Self, SettingsError> {
        for (field, command) in [("start", &raw.start), ("stop", &raw.stop), ("status", &raw.status)] {
            if command.is_empty() {
                return Err(SettingsError::NoSlotCommand { field });
            }
        }
        // It is asked before anything is known of what runs, and must find whatever runs in the slot.
        let asks = |word: &Template| ["{version}", "{instance}"].iter().any(|name| word.to_string().contains(name));
        if raw.status.iter().any(asks) {
            return Err(SettingsError::StatusOfOne);
        }
        if !raw.builds.is_absolute() {
            return Err(SettingsError::RelativeBuilds { builds: raw.builds });
        }
        if let Some(name) = raw.env.keys().find(|name| name.starts_with("HANDOVER_")) {
            return Err(SettingsError::ReservedVariable { name: name.clone() });
        }
        let times = [raw.limit, raw.kill_limit, raw.status_limit, raw.seen_within, raw.every];
        if times.iter().any(Duration::is_zero) {
            return Err(SettingsError::NoTime);
        }
        Ok(Self {
            kill: if raw.kill.is_empty() { raw.stop.clone() } else { raw.kill },
            start: raw.start,
            stop: raw.stop,
            status: raw.status,
            builds: raw.builds,
            env: raw.env,
            limit: raw.limit,
            kill_limit: raw.kill_limit,
            status_limit: raw.status_limit,
            seen_within: raw.seen_within,
            every: raw.every,
            stopped_is_proof: raw.stopped_is_proof,
            grace: raw.grace,
        })
    }
}

impl ExecSettings {
    /// How long a kill may take until it is seen.
    pub(crate) fn kill_time(&self) -> Duration {
        self.kill_limit.saturating_add(self.every)
    }

    /// A command that could not tell one slot from another. A variable of the config may tell it.
    pub(crate) fn shared_command(&self) -> Option<&'static str> {
        let differs = |word: &Template| {
            let word = word.to_string();
            ["{slot}", "{port}", "HANDOVER_SLOT"].iter().any(|name| word.contains(name))
        };
        if self.env.values().any(differs) {
            return None;
        }
        let commands = [("start", &self.start), ("stop", &self.stop), ("kill", &self.kill), ("status", &self.status)];
        commands.into_iter().find(|(_, words)| !words.iter().any(differs)).map(|(field, _)| field)
    }

    /// What the config adds to the variables of commands.
    pub(super) fn variables(&self, values: &Values) -> Vec<(String, String)> {
        self.env.iter().map(|(name, text)| (name.clone(), text.render(values))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::DriverSettings;

    const GOOD: &str = r#"
        kind = "exec"
        start = ["up", "{slot}", "{version}"]
        stop = ["down", "{slot}"]
        status = ["look", "{slot}"]
        builds = "/builds/billing"
        env = { PORT = "{port}" }
    "#;

    fn parse(text: &str) -> Result<ExecSettings, String> {
        match toml::from_str(text) {
            Ok(DriverSettings::Exec(settings)) => Ok(settings),
            Ok(_) => Err("another driver".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn without_a_kill_command_stop_has_to_do_and_nothing_is_a_proof() {
        let settings = parse(GOOD).expect("settings");
        assert_eq!(settings.kill, settings.stop);
        assert!(!settings.stopped_is_proof);
        let settings = parse(&format!("{GOOD}\nkill = [\"off\"]\nstopped_is_proof = true")).expect("settings");
        assert_ne!(settings.kill, settings.stop);
        assert!(settings.stopped_is_proof);
    }

    #[test]
    fn each_mistake_is_refused_with_its_name() {
        for (from, to, expected) in [
            ("[\"down\", \"{slot}\"]", "[]", "`stop` is empty"),
            ("[\"look\", \"{slot}\"]", "[\"look\", \"{version}\"]", "`status`"),
            ("[\"look\", \"{slot}\"]", "[\"look\", \"x{instance}\"]", "`status`"),
            ("/builds/billing", "builds", "not an absolute path"),
            ("PORT", "HANDOVER_SLOT", "HANDOVER_SLOT"),
            ("builds =", "seen_within = \"0s\"\nbuilds =", "longer than 0"),
            ("builds =", "every = \"0s\"\nbuilds =", "longer than 0"),
            ("start =", "begin =", "begin"),
        ] {
            let error = parse(&GOOD.replacen(from, to, 1)).expect_err(to);
            assert!(error.contains(expected), "{to}: {error}");
        }
    }
}
