//! `lease.json` of each slot: the record for scripts, replaced as a whole by a rename.
//!
//! Written by a task of its own, always the newest state: a disk that stalls (where the runtime directory is no tmpfs)
//! delays the file and nothing else. Not synced: after another boot it means nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use handover_proto::ids::{InstanceId, SlotId};
use tokio::sync::watch;

use super::clock::{ClockIdentity, boot_now};
use super::record::{LeaseRecord, Told};
use super::socket;
use super::status::Board;

/// Names the socket to an instance.
pub(crate) const SOCKET_VARIABLE: &str = "HANDOVER_LEASE_SOCKET";
/// Names the file to an instance.
pub(crate) const FILE_VARIABLE: &str = "HANDOVER_LEASE_FILE";

/// Writes the files whenever `board` changes, until its sender is gone.
pub(super) async fn keep(mut board: watch::Receiver<Board>, runtime_dir: PathBuf, clock: ClockIdentity) {
    let mut written: BTreeMap<SlotId, LeaseRecord> = BTreeMap::new();
    loop {
        let wanted = records(&board.borrow_and_update(), &clock);
        let (dir, before) = (runtime_dir.clone(), written);
        let done = tokio::task::spawn_blocking(move || write_all(&dir, wanted, before)).await;
        written = done.unwrap_or_default();
        if board.changed().await.is_err() {
            return;
        }
    }
}

fn records(board: &Board, clock: &ClockIdentity) -> BTreeMap<SlotId, LeaseRecord> {
    let Ok(now) = boot_now() else { return BTreeMap::new() };
    // While the agent does not know, what stands in the file stands until its deadline.
    let known = board.iter().filter(|(_, (_, published))| published.told != Told::Unknown);
    known.map(|(id, (slot, published))| (slot.clone(), published.record(id, clock, now))).collect()
}

/// Writes what is new, removes what is gone, and returns what stands in the files.
fn write_all(
    dir: &Path,
    wanted: BTreeMap<SlotId, LeaseRecord>,
    mut written: BTreeMap<SlotId, LeaseRecord>,
) -> BTreeMap<SlotId, LeaseRecord> {
    for slot in written.keys().filter(|slot| !wanted.contains_key(*slot)).cloned().collect::<Vec<_>>() {
        let path = path(dir, &slot);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), error = %error, "cannot remove a lease.json");
            }
            Ok(()) | Err(_) => drop(written.remove(&slot)),
        }
    }
    for (slot, record) in wanted {
        let same =
            |old: &LeaseRecord| (&old.instance, old.seq, old.state) == (&record.instance, record.seq, record.state);
        if written.get(&slot).is_some_and(same) {
            continue;
        }
        match write(&path(dir, &slot), &record) {
            Ok(()) => drop(written.insert(slot, record)),
            Err(error) => tracing::warn!(slot = %slot, error = %error, "cannot write lease.json"),
        }
    }
    written
}

/// Where an instance finds its records: variables of its environment.
pub(crate) fn for_children(dir: &Path, slot: &SlotId) -> [(String, String); 2] {
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    [(SOCKET_VARIABLE.to_owned(), text(dir.join(socket::NAME))), (FILE_VARIABLE.to_owned(), text(path(dir, slot)))]
}

/// Before `instance` starts: what the slot's last instance was told is not for this one, which may read the file before
/// this agent knows what to write.
///
/// # Errors
/// If a file that does not name `instance` stays.
pub(crate) fn make_way(dir: &Path, slot: &SlotId, instance: &InstanceId) -> io::Result<()> {
    let path = path(dir, slot);
    let record = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<LeaseRecord>(&bytes).ok());
    if record.is_some_and(|record| record.instance == *instance) {
        return Ok(());
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn path(dir: &Path, slot: &SlotId) -> PathBuf {
    dir.join(slot.as_str()).join("lease.json")
}

fn write(path: &Path, record: &LeaseRecord) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let aside = path.with_extension("json.new");
    fs::write(&aside, serde_json::to_vec(record)?)?;
    fs::rename(&aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"v":1,"instance":"00000000000000aa","state":"ACTIVE","token":"48","seq":3,"op":null,"boot_id":"b",
        "time_ns":"","soft_deadline_boot_ns":9,"hard_deadline_boot_ns":9,"remaining_soft_ms":1,"remaining_hard_ms":1,"reason":""}"#;

    #[test]
    fn a_new_instance_finds_nothing_that_its_predecessor_was_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let slot: SlotId = "a".parse().expect("a slot");
        let [old, new]: [InstanceId; 2] =
            ["00000000000000aa", "00000000000000bb"].map(|text| text.parse().expect("an id"));
        make_way(dir.path(), &slot, &new).expect("nothing is there");
        let file = path(dir.path(), &slot);
        fs::create_dir_all(file.parent().expect("a directory")).expect("made");
        for text in [RECORD, "{"] {
            fs::write(&file, text).expect("written");
            if text == RECORD {
                make_way(dir.path(), &slot, &old).expect("it is its own");
                assert!(file.exists());
            }
            make_way(dir.path(), &slot, &new).expect("removed");
            assert!(!file.exists(), "{text}");
        }
    }
}
