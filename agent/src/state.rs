//! The agent's state file: what must survive its own death. Written before it is acted on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use handover_proto::ids::{InstanceId, SlotId, Version};
use handover_proto::lifecycle::Lifecycle;
use handover_proto::numbers::Serial;
use serde::{Deserialize, Serialize};

use crate::core::accept::Accepted;
use crate::driver::ProcessRecord;
use crate::durable::{self, DurableError};

/// What the state file holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Version of the form.
    pub v: u32,
    /// Random, made with the file: proves to the store that a name is ours.
    pub state_dir_id: String,
    /// The assignment that is acted on.
    pub accepted: Option<Accepted>,
    /// The last serial that was reached.
    pub reached: Serial,
    /// What was started, by slot.
    pub instances: BTreeMap<SlotId, InstanceRecord>,
    /// The versions that were started last, the latest at the end: these are not pruned.
    #[serde(default)]
    pub started: Vec<Version>,
}

/// The candidate, the current version and the one before it.
const STARTED_KEPT: usize = 3;

impl State {
    /// A version is about to be started.
    pub fn note_start(&mut self, version: &Version) {
        self.started.retain(|other| other != version);
        self.started.push(version.clone());
        self.started.drain(..self.started.len().saturating_sub(STARTED_KEPT));
    }
}

/// One instance, as it must be known again after the agent's restart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceRecord {
    /// Minted and recorded before the process is started.
    pub instance: InstanceId,
    /// What it runs.
    pub version: Version,
    /// Its process; none if the agent died between recording the id and starting the process.
    pub process: Option<ProcessRecord>,
    /// Where it stood.
    pub lifecycle: Option<Lifecycle>,
    /// Whether its readiness held: the last known value, until the probes have spoken (`SAFETY.md` R9).
    pub ready: bool,
}

/// The file, with its present content.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
    /// What it holds.
    pub state: State,
    /// Why the accepted assignment cannot be read by this agent.
    pub unreadable: Option<String>,
}

impl StateFile {
    /// Opens or begins the state file in `dir`.
    ///
    /// # Errors
    /// If it cannot be read: a damaged file is never replaced by an empty one, since that would forget what runs.
    pub fn open(dir: &Path) -> Result<Self, DurableError> {
        let path = dir.join("agent.json");
        let found: Option<State> = durable::load(&path)?;
        let mut unreadable = None;
        if let Some(mut state) = found {
            if let Some(accepted) = &mut state.accepted {
                // It was parsed when it was accepted; a newer agent may have understood what this one does not.
                match serde_json::from_str(&accepted.text) {
                    Ok(parsed) => accepted.parsed = Some(parsed),
                    Err(error) => unreadable = Some(error.to_string()),
                }
            }
            return Ok(Self { path, state, unreadable });
        }
        let state = State {
            v: 1,
            state_dir_id: InstanceId::random().to_string(),
            accepted: None,
            reached: Serial::default(),
            instances: BTreeMap::new(),
            started: Vec::new(),
        };
        let file = Self { path, state, unreadable };
        file.save()?;
        Ok(file)
    }

    /// Makes the present content durable.
    ///
    /// # Errors
    /// If the disk refuses; the old content is then still there whole.
    pub fn save(&self) -> Result<(), DurableError> {
        durable::save(&self.path, &self.state)
    }

    /// Changes the content and makes it durable; on failure the content in memory is as before too.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn change(&mut self, change: impl FnOnce(&mut State)) -> Result<(), DurableError> {
        let before = self.state.clone();
        change(&mut self.state);
        if self.state == before {
            return Ok(());
        }
        self.save().inspect_err(|_| self.state = before)
    }
}
