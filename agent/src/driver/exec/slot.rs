//! The commands of one slot, for one instance.

use std::path::{Path, PathBuf};
use std::time::Duration;

use handover_proto::ids::{InstanceId, SlotId, Version};
use serde::{Deserialize, Serialize};

use super::judge::{Said, said};
use super::settings::ExecSettings;
use crate::driver::command::{self, Leavings};
use crate::driver::{ExitStatus, Owner, Template, Values};
use crate::durable::{self, DurableError};
use crate::duration::render;

/// What runs in a slot: its commands need these, also when the agent's state file is lost. Recorded just before its start
/// command is run, and forgotten when it has ended: what others run there is never taken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Occupant {
    /// Version of the form; 0: of before there were versions.
    #[serde(default)]
    pub(super) v: u32,
    pub(super) instance: InstanceId,
    pub(super) version: Version,
    pub(super) port: u16,
    /// What its status command calls it, once that is known.
    #[serde(default)]
    pub(super) name: Option<String>,
}

impl Occupant {
    /// Nothing calls it by a name yet.
    pub(super) fn new(instance: InstanceId, version: Version, port: u16) -> Self {
        Self { v: 1, instance, version, port, name: None }
    }
}

/// One slot with its commands filled in.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) id: SlotId,
    pub(super) occupant: Occupant,
    settings: ExecSettings,
    directory: PathBuf,
    env: Vec<(String, String)>,
    values: Values,
}

impl Slot {
    /// `variables` are those of this start alone.
    pub(super) fn of(
        settings: &ExecSettings,
        owner: &Owner,
        id: &SlotId,
        occupant: &Occupant,
        variables: Vec<(String, String)>,
    ) -> Self {
        let values = Values {
            port: occupant.port,
            version: occupant.version.clone(),
            slot: id.clone(),
            builds: settings.builds.clone(),
            instance: occupant.instance.clone(),
            state_dir: owner.state_dir.clone(),
        };
        let mut env = settings.variables(&values);
        env.extend(variables);
        let marks = owner.marks_of(&occupant.instance, id, &occupant.version);
        env.extend(marks.map(|(name, value)| (name.to_owned(), value)));
        let version = settings.builds.join(occupant.version.as_str());
        // A version may be taken away while something of it still runs; stopping that must work all the same.
        let directory = if version.is_dir() { version } else { PathBuf::from("/") };
        Self { id: id.clone(), occupant: occupant.clone(), settings: settings.clone(), directory, env, values }
    }

    pub(super) async fn start(&self) -> Result<(), String> {
        let output = self.values.state_dir.join("output").join(format!("{}.log", self.id));
        self.order("start", &self.settings.start, self.settings.limit, Leavings::Keep(&output)).await
    }

    pub(super) async fn stop(&self) -> Result<(), String> {
        self.order("stop", &self.settings.stop, self.settings.limit, Leavings::Kill).await
    }

    pub(super) async fn kill(&self) -> Result<(), String> {
        self.order("kill", &self.settings.kill, self.settings.kill_limit, Leavings::Kill).await
    }

    pub(super) async fn status(&self) -> Said {
        self.ask(self.settings.limit).await
    }

    /// The same for an agent that has just started: it does nothing else before it knows.
    pub(super) async fn status_at_start(&self) -> Said {
        self.ask(self.settings.status_limit.min(self.settings.limit)).await
    }

    async fn ask(&self, limit: Duration) -> Said {
        match self.run("status", &self.settings.status, limit, Leavings::Kill).await {
            Ok((status, line)) => said(status, line),
            Err(why) => Said::Unknown(why),
        }
    }

    async fn order(
        &self,
        field: &str,
        words: &[Template],
        limit: Duration,
        leavings: Leavings<'_>,
    ) -> Result<(), String> {
        match self.run(field, words, limit, leavings).await? {
            (ExitStatus::Code(0), _) => Ok(()),
            (status, line) if line.is_empty() => Err(format!("the {field} command ended with {status}")),
            (status, line) => Err(format!("the {field} command ended with {status}: {line}")),
        }
    }

    /// A command that takes too long is killed, with its process group.
    async fn run(
        &self,
        field: &str,
        words: &[Template],
        limit: Duration,
        leavings: Leavings<'_>,
    ) -> Result<(ExitStatus, String), String> {
        let words: Vec<String> = words.iter().map(|word| word.render(&self.values)).collect();
        let ran = tokio::time::timeout(limit, command::run(&words, &self.directory, &self.env, leavings)).await;
        let ran = ran.map_err(|_| format!("the {field} command did not end within {}", render(limit)))?;
        ran.map_err(|error| format!("the {field} command cannot be run: {error}"))
    }
}

/// Where a slot's occupant is recorded.
fn file(state_dir: &Path, slot: &SlotId) -> PathBuf {
    state_dir.join("exec").join(format!("{slot}.json"))
}

/// Records what is about to be started.
pub(super) fn record(state_dir: &Path, slot: &SlotId, occupant: &Occupant) -> Result<(), DurableError> {
    let file = file(state_dir, slot);
    if let Some(parent) = file.parent() {
        let path = parent.to_owned();
        let failed = |source| DurableError::Io { operation: "make the directory", path, source };
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    durable::save(&file, occupant)
}

/// What runs there, as far as is known.
pub(super) fn recorded(state_dir: &Path, slot: &SlotId) -> Result<Option<Occupant>, DurableError> {
    durable::load(&file(state_dir, slot))
}

/// It has ended.
pub(super) fn forget(state_dir: &Path, slot: &SlotId) -> Result<(), DurableError> {
    durable::remove(&file(state_dir, slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_before_there_were_names_is_read() {
        let old = r#"{"instance": "00000000000000aa", "version": "1.5.0", "port": 8081}"#;
        let occupant: Occupant = serde_json::from_str(old).expect("an occupant");
        assert_eq!((occupant.v, occupant.name, occupant.version.as_str()), (0, None, "1.5.0"));
    }

    #[test]
    fn what_is_forgotten_is_gone_and_may_be_forgotten_twice() {
        let dir = tempfile::tempdir().expect("a directory");
        let slot: SlotId = "a".parse().expect("slot");
        let version = "1.5.0".parse().expect("version");
        let occupant = Occupant::new(InstanceId::random(), version, 8081);
        record(dir.path(), &slot, &occupant).expect("recorded");
        assert_eq!(recorded(dir.path(), &slot).expect("read"), Some(occupant));
        forget(dir.path(), &slot).expect("forgotten");
        forget(dir.path(), &slot).expect("forgotten already");
        assert_eq!(recorded(dir.path(), &slot).expect("read"), None);
    }
}
