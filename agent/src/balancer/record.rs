//! What this agent has set at balancers and must undo: durable, so that whoever finds a drain of a dead agent's lifts it
//! (`SAFETY.md` R11), and leaves an operator's alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::durable::{self, DurableError};

/// What of one server line is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ours {
    /// Its drain: we set it, or were about to.
    #[serde(default)]
    pub drain: bool,
    /// Its weight.
    #[serde(default)]
    pub weight: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    v: u32,
    /// By balancer and server line.
    ours: BTreeMap<String, Ours>,
}

/// The file. Cheap to clone; every clone is the same file.
#[derive(Debug, Clone)]
pub struct Record {
    path: PathBuf,
    content: Arc<Mutex<Content>>,
}

impl Record {
    /// Opens `balancers.json` in the agent's state directory.
    ///
    /// # Errors
    /// If it is there and cannot be read: forgetting it would leave a server drained for ever.
    pub fn open(state_dir: &Path) -> Result<Self, DurableError> {
        let path = state_dir.join("balancers.json");
        let content = durable::load(&path)?.unwrap_or(Content { v: 1, ours: BTreeMap::new() });
        Ok(Self { path, content: Arc::new(Mutex::new(content)) })
    }

    /// What is ours there.
    pub fn of(&self, line: &str) -> Ours {
        let content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        content.ours.get(line).copied().unwrap_or_default()
    }

    /// The lines that are ours and begin with this.
    pub fn lines(&self, kind: &str) -> Vec<String> {
        let content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        content.ours.keys().filter(|line| line.starts_with(kind)).cloned().collect()
    }

    /// Remembers it, durably, before anything is done about it.
    ///
    /// # Errors
    /// If the disk refuses; then nothing has changed, here either.
    pub fn set(&self, line: &str, ours: Ours) -> Result<(), DurableError> {
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = content.clone();
        if ours == Ours::default() {
            next.ours.remove(line);
        } else {
            next.ours.insert(line.to_owned(), ours);
        }
        if next != *content {
            durable::save(&self.path, &next)?;
            *content = next;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_is_known_to_the_next_agent_until_it_is_undone() {
        let dir = tempfile::tempdir().expect("a directory");
        let line = "haproxy /run/admin.sock billing/app-01";
        let drained = Ours { drain: true, weight: false };
        Record::open(dir.path()).expect("a new file").set(line, drained).expect("saved");
        let next = Record::open(dir.path()).expect("the same file");
        assert_eq!((next.of(line), next.of("another")), (drained, Ours::default()));
        next.set(line, Ours::default()).expect("saved");
        assert_eq!(Record::open(dir.path()).expect("the same file").of(line), Ours::default());
    }

    #[test]
    fn what_the_disk_refuses_is_not_remembered_either() {
        let dir = tempfile::tempdir().expect("a directory");
        let record = Record::open(&dir.path().join("missing")).expect("no file yet");
        record.set("x", Ours { drain: true, weight: false }).expect_err("no such directory");
        assert_eq!(record.of("x"), Ours::default());
    }
}
