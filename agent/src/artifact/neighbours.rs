//! Agents of one service that share a directory of versions: each leaves its mark there, so that none prunes what another one
//! is assigned and does not run yet.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use handover_proto::ids::{AgentId, Service, Version};
use serde::{Deserialize, Serialize};

use super::prune;
use crate::clock::boot_id;
use crate::durable::{self, DurableError};
use crate::report::chain;

/// The beginning of a mark's name, which no version has; service and agent follow.
const MARK: &str = ".handover-agent-";

/// An agent that uses the directory.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    /// Version of the form.
    v: u32,
    service: Service,
    agent: AgentId,
    /// Where it keeps what it is assigned.
    state_dir: PathBuf,
    /// Which start of which host this is: the directory may be shared by several.
    boot_id: String,
}

/// Says to others that this agent uses the directory, for as long as nobody takes its mark away.
///
/// # Errors
/// If the directory cannot be written.
pub fn mark(builds: &Path, service: &Service, agent: &AgentId, state_dir: &Path) -> Result<(), DurableError> {
    let path = builds.join(format!("{MARK}{service}-{agent}"));
    let io = |source| DurableError::Io { operation: "read the boot id for", path: path.clone(), source };
    let (service, agent) = (service.clone(), agent.clone());
    let mark = Mark { v: 1, service, agent, state_dir: state_dir.to_owned(), boot_id: boot_id().map_err(io)? };
    durable::save(&path, &mark)
}

/// The versions that other agents of this service know here. An error, in words, if one of them cannot be asked: then
/// nothing may be pruned.
pub(super) fn known(builds: &Path, service: &Service, us: &AgentId) -> Result<BTreeSet<Version>, String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", builds.display());
    let here = boot_id().map_err(|error| at(&error))?;
    let mut known = BTreeSet::new();
    for entry in fs::read_dir(builds).map_err(|error| at(&error))? {
        let entry = entry.map_err(|error| at(&error))?;
        let name = entry.file_name();
        // Aside files of a mark that is being written are no marks.
        if name.to_str().is_some_and(|name| name.starts_with(MARK) && !name.ends_with(".new")) {
            known.extend(of(&entry.path(), service, us, &here)?);
        }
    }
    Ok(known)
}

fn of(path: &Path, service: &Service, us: &AgentId, here: &str) -> Result<BTreeSet<Version>, String> {
    let Some(mark) = durable::load::<Mark>(path).map_err(|error| chain(&error))? else { return Ok(BTreeSet::new()) };
    if mark.service != *service || mark.agent == *us {
        return Ok(BTreeSet::new());
    }
    let remove = format!("remove {} if it does not use this directory any more", path.display());
    if mark.boot_id != here {
        return Err(format!(
            "agent {} uses it too, from another host or before the last boot, and cannot be asked what it needs; {remove}",
            mark.agent
        ));
    }
    let state = mark.state_dir.join("agent.json");
    if !state.exists() {
        return Err(format!("agent {} uses it too, and {} is not there; {remove}", mark.agent, state.display()));
    }
    prune::known_to_agent(&mark.state_dir).map_err(|error| format!("agent {}: {}", mark.agent, chain(&error)))
}
