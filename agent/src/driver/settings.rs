//! The `[driver]` table of the agent's config.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use handover_proto::ids::{InstanceId, SlotId, Version};
use serde::Deserialize;

use super::memory::optional_size;
use super::template::{Template, Values};
use super::{ExecSettings, StartSpec, SystemdSettings};

/// What stands in `[driver]`; `kind` chooses the variant.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum DriverSettings {
    /// The agent runs the command itself.
    Process(ProcessSettings),
    /// Slots are units of systemd.
    Systemd(SystemdSettings),
    /// Commands start, stop and watch instances.
    Exec(ExecSettings),
}

impl DriverSettings {
    /// Time between the request to stop and SIGKILL.
    pub fn grace(&self) -> Duration {
        match self {
            Self::Process(settings) => settings.grace,
            Self::Systemd(settings) => settings.grace,
            Self::Exec(settings) => settings.grace,
        }
    }

    /// The directory that holds one directory per version.
    pub fn builds(&self) -> &Path {
        match self {
            Self::Process(settings) => &settings.builds,
            Self::Systemd(settings) => &settings.builds,
            Self::Exec(settings) => &settings.builds,
        }
    }

    /// Whether so many slots would get into each other's way.
    pub(crate) fn check(&self, slots: usize) -> Result<(), SettingsError> {
        match self {
            Self::Systemd(settings) if slots > 1 && !settings.is_template() => Err(SettingsError::SharedUnit { slots }),
            Self::Exec(settings) if slots > 1 => match settings.shared_command() {
                Some(field) => Err(SettingsError::SharedCommand { field, slots }),
                None => Ok(()),
            },
            Self::Process(_) | Self::Systemd(_) | Self::Exec(_) => Ok(()),
        }
    }
}

/// `kind = "process"`.
///
/// ```toml
/// [driver]
/// kind = "process"
/// builds = "/srv/billing/builds"
/// command = ["{builds}/{version}/billing", "--port", "{port}"]
/// grace = "30s"
/// memory_max = "512MiB"
/// [driver.env]
/// RUST_LOG = "info"
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Raw")]
pub struct ProcessSettings {
    /// Program and arguments, at least the program.
    pub command: Vec<Template>,
    /// Holds one directory per version; an absolute path.
    pub builds: PathBuf,
    /// Added to the process's environment.
    pub env: BTreeMap<String, Template>,
    /// From SIGTERM to SIGKILL.
    pub grace: Duration,
    /// An instance that uses more, with all its processes, is killed; in bytes. None: whatever the host has.
    pub memory_max: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    command: Vec<Template>,
    builds: PathBuf,
    #[serde(default)]
    env: BTreeMap<String, Template>,
    #[serde(with = "crate::duration", default = "default_grace")]
    grace: Duration,
    #[serde(default, deserialize_with = "optional_size")]
    memory_max: Option<u64>,
}

/// A `[driver]` table that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// There is no program.
    #[error("`command` is empty; name a program in it, such as [\"{{builds}}/{{version}}/billing\"]")]
    NoCommand,
    /// It would depend on the agent's working directory.
    #[error("`builds` = {builds:?} is not an absolute path; begin it with /")]
    RelativeBuilds {
        /// What was given.
        builds: PathBuf,
    },
    /// It is no name of a service unit.
    #[error("`unit` = {unit:?} is no name of a service unit, such as \"billing@{{slot}}.service\"")]
    Unit {
        /// What was given.
        unit: String,
    },
    /// Two slots cannot be one unit.
    #[error(
        "`unit` names one unit for {slots} slots; write {{slot}} into its name, such as \"billing@{{slot}}.service\""
    )]
    SharedUnit {
        /// How many slots there are.
        slots: usize,
    },
    /// Two slots cannot be one thing.
    #[error(
        "`{field}` is the same command for {slots} slots; write {{slot}} or {{port}} into it, or into a variable of [driver.env] \
         (a script that reads HANDOVER_SLOT is to be given {{slot}} as a word)"
    )]
    SharedCommand {
        /// Which.
        field: &'static str,
        /// How many slots there are.
        slots: usize,
    },
    /// A command of the `exec` driver is missing.
    #[error("`{field}` is empty; name a program in it, such as [\"docker\", \"inspect\", \"billing-{{slot}}\"]")]
    NoSlotCommand {
        /// Which.
        field: &'static str,
    },
    /// The status command asks after one version or instance.
    #[error(
        "`status` names {{version}} or {{instance}}; it has to tell of whatever runs in the slot: use {{slot}} alone"
    )]
    StatusOfOne,
    /// No time at all.
    #[error("`limit`, `kill_limit`, `status_limit`, `seen_within` and `every` must be longer than 0")]
    NoTime,
    /// The driver sets these itself.
    #[error("`env` sets {name}; names that begin with HANDOVER_ are the agent's own, choose another")]
    ReservedVariable {
        /// Which.
        name: String,
    },
}

/// Half a minute is what container and unit supervisors commonly allow, so services are written for it.
pub(super) fn default_grace() -> Duration {
    Duration::from_secs(30)
}

impl TryFrom<Raw> for ProcessSettings {
    type Error = SettingsError;

    fn try_from(raw: Raw) -> Result<Self, SettingsError> {
        if raw.command.is_empty() {
            return Err(SettingsError::NoCommand);
        }
        if !raw.builds.is_absolute() {
            return Err(SettingsError::RelativeBuilds { builds: raw.builds });
        }
        if let Some(name) = raw.env.keys().find(|name| name.starts_with("HANDOVER_")) {
            return Err(SettingsError::ReservedVariable { name: name.clone() });
        }
        let Raw { command, builds, env, grace, memory_max } = raw;
        Ok(Self { command, builds, env, grace, memory_max })
    }
}

/// Where and as what an instance is to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place<'a> {
    /// The slot.
    pub slot: &'a SlotId,
    /// The slot's port.
    pub port: u16,
    /// The version.
    pub version: &'a Version,
    /// The instance, recorded already.
    pub instance: &'a InstanceId,
    /// The agent's state directory; output goes to `output/{slot}.log` in it.
    pub state_dir: &'a Path,
}

impl Place<'_> {
    /// What placeholders stand for here.
    pub(super) fn values(&self, builds: &Path) -> Values {
        Values {
            port: self.port,
            version: self.version.clone(),
            slot: self.slot.clone(),
            builds: builds.to_owned(),
            instance: self.instance.clone(),
            state_dir: self.state_dir.to_owned(),
        }
    }
}

impl ProcessSettings {
    /// The start of one instance, with every placeholder filled in.
    pub fn start_spec(&self, place: &Place<'_>) -> StartSpec {
        let values = place.values(&self.builds);
        StartSpec {
            slot: place.slot.clone(),
            instance: place.instance.clone(),
            version: place.version.clone(),
            command: self.command.iter().map(|text| text.render(&values)).collect(),
            env: self.env.iter().map(|(name, text)| (name.clone(), text.render(&values))).collect(),
            directory: self.builds.join(place.version.as_str()),
            output: place.state_dir.join("output").join(format!("{}.log", place.slot)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        kind = "process"
        builds = "/srv/builds"
        command = ["{builds}/{version}/billing", "--port={port}"]
        grace = "5s"
        memory_max = "64MiB"
        env = { LISTEN = "127.0.0.1:{port}" }
    "#;

    fn parse(text: &str) -> Result<ProcessSettings, String> {
        match toml::from_str(text) {
            Ok(DriverSettings::Process(settings)) => Ok(settings),
            Ok(_) => Err("another driver".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_start_has_its_placeholders_filled_in() {
        let settings = parse(GOOD).expect("settings");
        assert_eq!((settings.grace, settings.memory_max), (Duration::from_secs(5), Some(64 << 20)));
        let (slot, version) = ("b".parse().expect("slot"), "1.5.0".parse().expect("version"));
        let instance = "00000000000000aa".parse().expect("id");
        let place =
            Place { slot: &slot, port: 8081, version: &version, instance: &instance, state_dir: Path::new("/var/h") };
        let spec = settings.start_spec(&place);
        assert_eq!(spec.command, ["/srv/builds/1.5.0/billing", "--port=8081"]);
        assert_eq!(spec.env, [("LISTEN".to_owned(), "127.0.0.1:8081".to_owned())]);
        assert_eq!(spec.directory, Path::new("/srv/builds/1.5.0"));
        assert_eq!(spec.output, Path::new("/var/h/output/b.log"));
    }

    #[test]
    fn each_mistake_is_refused_with_its_name() {
        for (from, to, expected) in [
            ("{port}", "{prot}", "unknown placeholder {prot}"),
            ("\"process\"", "\"nomad\"", "nomad"),
            ("grace = \"5s\"", "grace = 5", "write \"5s\""),
            ("64MiB", "64MB", "\"64MB\" is not a size"),
            ("\"64MiB\"", "64", "invalid type"),
            ("grace", "gracious", "gracious"),
            ("LISTEN", "HANDOVER_SLOT", "HANDOVER_SLOT"),
            ("/srv/builds", "builds", "not an absolute path"),
            ("[\"{builds}/{version}/billing\", \"--port={port}\"]", "[]", "`command` is empty"),
        ] {
            let error = parse(&GOOD.replace(from, to)).expect_err(to);
            assert!(error.contains(expected), "{to}: {error}");
        }
    }
}
