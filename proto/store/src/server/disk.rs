//! What the embedded store keeps on disk: one redb file, each write in it one durable redb transaction.

#[cfg(test)]
mod tests;

use std::fs;
use std::io::ErrorKind;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcd_client::proto::{PbKeyValue, PbWatchResponse};
use handover_proto::txn::{LeaseId, Revision};
use prost::Message;
use redb::{Database, DatabaseError, ReadableTable, StorageError, TableDefinition, WriteTransaction};

use super::state::{Effects, Stored};
use super::wire::{event_from_wire, event_to_wire, kv_from_wire, kv_to_wire};

const FILE: &str = "store.redb";
/// What a first start writes to until it is complete, so that one that was killed is not taken for a damaged store.
const NEW_FILE: &str = "store.redb.new";
const LOCK_FILE: &str = "lock";
/// Raised when the meaning of what is below changes; an unknown one is refused.
const FORMAT: u64 = 1;

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const KEYS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("keys");
/// TTL in seconds.
const LEASES: TableDefinition<LeaseId, u64> = TableDefinition::new("leases");
const HISTORY: TableDefinition<Revision, &[u8]> = TableDefinition::new("history");

/// The data directory cannot be used, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Another server has it.
    #[error("the store in {path} is in use by another process; use that one, or stop it first")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// What is there is not a store that we can read.
    #[error(
        "the store in {path} is damaged or not a store of this version: {reason}; restore the file from a backup, or move it away to \
         begin with an empty store (leases, assignments and journals in it are then lost)"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The operating system refused.
    #[error("cannot {action} {path}: {reason}; check free space, permissions and the disk")]
    Io {
        /// What we were doing.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
}

/// Which store this is: random per data directory, so that a foreign or a new one is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) cluster_id: u64,
    pub(crate) member_id: u64,
    /// One more at every start.
    pub(crate) raft_term: u64,
}

/// The open, locked file.
pub(crate) struct Disk {
    database: Database,
    path: PathBuf,
    /// Locked, which keeps others out, until it is closed.
    _lock: fs::File,
}

/// The file of a store in `directory`.
pub(crate) fn file(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

impl Disk {
    /// Opens (or begins) the store in `directory`, and keeps others out until it is dropped.
    pub(crate) fn open(directory: &Path) -> Result<(Self, Identity, Stored), DiskError> {
        let path = file(directory);
        create_directory(directory)?;
        let lock = lock(directory, &path)?;
        let (disk, identity) = if path.exists() {
            let disk = Self { database: open_database(&path)?, path, _lock: lock };
            let identity = disk.start().map_err(|error| disk.damaged(&error))?;
            (disk, identity)
        } else {
            Self::begin(directory, path, lock)?
        };
        let stored = disk.load().map_err(|error| disk.damaged(&error))?;
        Ok((disk, identity, stored))
    }

    /// A new store, which is there as a whole or not at all.
    fn begin(directory: &Path, path: PathBuf, lock: fs::File) -> Result<(Self, Identity), DiskError> {
        let new = directory.join(NEW_FILE);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(io("remove", &new, &error)),
            _ => {}
        }
        let disk = Self { database: open_database(&new)?, path, _lock: lock };
        let identity = Identity { cluster_id: rand::random(), member_id: rand::random(), raft_term: 1 };
        let written = disk.in_transaction(|write| put_identity(write, identity));
        written.map_err(|error| io("write to", &new, &error))?;
        fs::rename(&new, &disk.path).map_err(|error| io("name", &disk.path, &error))?;
        // The name must survive a power cut too.
        let synced = fs::File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(|error| io("sync", directory, &error))?;
        Ok((disk, identity))
    }

    /// Makes the effects durable; when this returns they survive a power cut.
    pub(crate) fn write(&self, effects: &Effects) -> Result<(), DiskError> {
        self.in_transaction(|write| put_effects(write, effects)).map_err(|error| io("write to", &self.path, &error))
    }

    fn damaged(&self, error: &dyn std::error::Error) -> DiskError {
        DiskError::Damaged { path: self.path.clone(), reason: error.to_string() }
    }

    fn in_transaction<T>(
        &self,
        body: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        // redb's default durability: `commit` returns after fsync.
        let write = self.database.begin_write()?;
        let result = body(&write)?;
        write.commit()?;
        Ok(result)
    }

    /// A store that was there begins a new term.
    fn start(&self) -> Result<Identity, redb::Error> {
        self.in_transaction(|write| {
            let meta = write.open_table(META)?;
            let get = |name| Ok::<_, redb::Error>(meta.get(name)?.map(|value| value.value()));
            let missing = |name| redb::Error::Corrupted(format!("it has no {name}"));
            let format = get("format")?.ok_or_else(|| missing("format number"))?;
            if format != FORMAT {
                return Err(redb::Error::Corrupted(format!("its format is {format}, not {FORMAT}")));
            }
            let identity = Identity {
                cluster_id: get("cluster_id")?.ok_or_else(|| missing("cluster id"))?,
                member_id: get("member_id")?.ok_or_else(|| missing("member id"))?,
                raft_term: get("raft_term")?.ok_or_else(|| missing("term"))? + 1,
            };
            drop(meta);
            put_identity(write, identity)?;
            Ok(identity)
        })
    }

    fn load(&self) -> Result<Stored, redb::Error> {
        use redb::ReadableDatabase;
        let read = self.database.begin_read()?;
        let meta = read.open_table(META)?;
        let number = |name| Ok::<_, redb::Error>(meta.get(name)?.map_or(0, |value| value.value().cast_signed()));
        let mut stored = Stored { revision: number("revision")?, floor: number("floor")?, ..Stored::default() };
        for row in read.open_table(KEYS)?.iter()? {
            let kv = PbKeyValue::decode(row?.1.value()).map_err(corrupted)?;
            stored.keys.push(kv_from_wire(kv));
        }
        for row in read.open_table(LEASES)?.iter()? {
            let (id, ttl) = row?;
            stored.leases.push((id.value(), Duration::from_secs(ttl.value())));
        }
        for row in read.open_table(HISTORY)?.iter()? {
            let (revision, events) = row?;
            let events = PbWatchResponse::decode(events.value()).map_err(corrupted)?.events;
            stored.history.push((revision.value(), events.into_iter().filter_map(event_from_wire).collect()));
        }
        Ok(stored)
    }
}

fn put_identity(write: &WriteTransaction, identity: Identity) -> Result<(), redb::Error> {
    let mut meta = write.open_table(META)?;
    meta.insert("format", FORMAT)?;
    meta.insert("cluster_id", identity.cluster_id)?;
    meta.insert("member_id", identity.member_id)?;
    meta.insert("raft_term", identity.raft_term)?;
    // A table is there once it was opened for writing: loading counts on that.
    write.open_table(KEYS)?;
    write.open_table(LEASES)?;
    write.open_table(HISTORY)?;
    Ok(())
}

fn put_effects(write: &WriteTransaction, effects: &Effects) -> Result<(), redb::Error> {
    let mut meta = write.open_table(META)?;
    meta.insert("revision", effects.revision.cast_unsigned())?;
    meta.insert("floor", effects.floor.cast_unsigned())?;
    let mut keys = write.open_table(KEYS)?;
    for event in &effects.events {
        if event.deleted {
            keys.remove(event.kv.key.as_slice())?;
        } else {
            keys.insert(event.kv.key.as_slice(), kv_to_wire(&event.kv).encode_to_vec().as_slice())?;
        }
    }
    let mut leases = write.open_table(LEASES)?;
    if let Some((id, ttl)) = effects.granted {
        leases.insert(id, ttl.as_secs())?;
    }
    if let Some(id) = effects.ended {
        leases.remove(id)?;
    }
    let mut history = write.open_table(HISTORY)?;
    history.retain_in(..effects.floor, |_, _| false)?;
    if !effects.events.is_empty() {
        let events = effects.events.iter().map(|event| event_to_wire(event, true)).collect();
        let row = PbWatchResponse { events, ..PbWatchResponse::default() };
        history.insert(effects.revision, row.encode_to_vec().as_slice())?;
    }
    Ok(())
}

fn create_directory(directory: &Path) -> Result<(), DiskError> {
    use std::os::unix::fs::DirBuilderExt;
    // What is in it lets one act as any agent: nobody else's business.
    let created = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    created.map_err(|error| io("create the directory", directory, &error))
}

fn lock(directory: &Path, store: &Path) -> Result<fs::File, DiskError> {
    let path = directory.join(LOCK_FILE);
    let lock = fs::File::create(&path).map_err(|error| io("create", &path, &error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(DiskError::InUse { path: store.to_owned() }),
        Err(fs::TryLockError::Error(error)) => Err(io("lock", &path, &error)),
    }
}

fn open_database(path: &Path) -> Result<Database, DiskError> {
    let damaged = |reason| DiskError::Damaged { path: path.to_owned(), reason };
    // Met with a damaged page, redb panics in places.
    let opened = catch_unwind(|| {
        let mut database = Database::create(path)?;
        // After an orderly end redb would trust its pages; after any other it has checked them already.
        let whole = database.check_integrity()?;
        Ok((database, whole))
    });
    match opened {
        Ok(Ok((database, true))) => Ok(database),
        Ok(Ok((database, false))) => {
            tracing::error!(path = %path.display(), "the store's file was damaged and is repaired: its last writes may be lost");
            Ok(database)
        }
        Ok(Err(DatabaseError::DatabaseAlreadyOpen)) => Err(DiskError::InUse { path: path.to_owned() }),
        Ok(Err(DatabaseError::Storage(StorageError::Io(error)))) if error.kind() != ErrorKind::InvalidData => {
            Err(io("open", path, &error))
        }
        Ok(Err(error)) => Err(damaged(error.to_string())),
        Err(_) => Err(damaged("a page makes no sense".to_owned())),
    }
}

fn io(action: &'static str, path: &Path, error: &dyn std::error::Error) -> DiskError {
    DiskError::Io { action, path: path.to_owned(), reason: error.to_string() }
}

fn corrupted(error: prost::DecodeError) -> redb::Error {
    redb::Error::Corrupted(error.to_string())
}
