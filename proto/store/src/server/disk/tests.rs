use std::sync::Arc;

use super::super::state::{Event, Kv};
use super::*;

fn kv(key: &str, modified: Revision) -> Kv {
    Kv { key: key.into(), value: b"v".to_vec(), created: modified, modified, version: 1, lease: 0 }
}

/// One put of `key`.
fn putting(key: &str, revision: Revision, floor: Revision) -> Effects {
    let events = vec![Event { kv: Arc::new(kv(key, revision)), deleted: false, previous: None }];
    Effects { revision, events, granted: None, ended: None, floor }
}

impl Disk {
    /// One on a medium of the test's own.
    pub(in crate::server) fn on(medium: impl redb::StorageBackend) -> Self {
        let database = redb::Builder::new().create_with_backend(medium).expect("a database");
        let lock = tempfile::tempfile().expect("a file");
        let disk = Self { database, path: "medium".into(), _lock: lock };
        let identity = Identity { cluster_id: 1, member_id: 2, raft_term: 1 };
        disk.in_transaction(|write| put_identity(write, identity)).expect("a write");
        disk
    }
}

fn open(directory: &Path) -> (Disk, Identity, Stored) {
    Disk::open(directory).expect("a store")
}

#[test]
fn what_was_written_is_loaded_again() {
    let data = tempfile::tempdir().expect("a directory");
    let (disk, ..) = open(data.path());
    disk.write(&putting("a", 2, 0)).expect("a write");
    disk.write(&Effects { granted: Some((7, Duration::from_secs(9))), ..putting("b", 3, 0) }).expect("a write");
    disk.write(&Effects { granted: Some((8, Duration::from_secs(9))), ..putting("c", 4, 0) }).expect("a write");
    let previous = Some(Arc::new(kv("a", 2)));
    let gone = Event { kv: Arc::new(Kv { key: "a".into(), modified: 5, ..Kv::default() }), deleted: true, previous };
    disk.write(&Effects { events: vec![gone.clone()], ended: Some(8), ..putting("", 5, 0) }).expect("a write");
    drop(disk);
    let (_, _, stored) = open(data.path());
    assert_eq!((stored.revision, stored.keys), (5, vec![kv("b", 3), kv("c", 4)]));
    assert_eq!(stored.leases, [(7, Duration::from_secs(9))]);
    assert_eq!(stored.history.last(), Some(&(5, vec![gone])));
    assert_eq!(stored.history.len(), 4);
}

#[test]
fn history_below_the_floor_is_gone_from_the_disk() {
    let data = tempfile::tempdir().expect("a directory");
    let (disk, ..) = open(data.path());
    for revision in 2..=6 {
        disk.write(&putting("a", revision, 0)).expect("a write");
    }
    disk.write(&putting("a", 7, 5)).expect("a write");
    drop(disk);
    let (_, _, stored) = open(data.path());
    assert_eq!(stored.floor, 5);
    assert_eq!(stored.history.iter().map(|(revision, _)| *revision).collect::<Vec<_>>(), [5, 6, 7]);
}

#[test]
fn a_first_start_that_was_killed_half_way_is_begun_again() {
    let data = tempfile::tempdir().expect("a directory");
    fs::write(data.path().join(NEW_FILE), b"half of it").expect("a left-over");
    let (_disk, identity, stored) = open(data.path());
    assert_eq!((identity.raft_term, stored.revision), (1, 0));
    assert!(!data.path().join(NEW_FILE).exists());
}

#[test]
fn a_store_that_is_open_is_in_use_until_it_is_dropped() {
    let data = tempfile::tempdir().expect("a directory");
    let first = open(data.path());
    let second = Disk::open(data.path()).map(|_| ());
    assert!(matches!(second, Err(DiskError::InUse { .. })), "{second:?}");
    drop(first);
    open(data.path());
}

#[test]
fn the_ids_stay_and_the_term_grows_with_each_start() {
    let (data, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let first = open(data.path()).1;
    let second = open(data.path()).1;
    assert_eq!(second, Identity { raft_term: first.raft_term + 1, ..first });
    let foreign = open(other.path()).1;
    assert!(foreign.cluster_id != first.cluster_id && foreign.member_id != first.member_id);
}

#[test]
fn a_store_of_another_format_is_refused_and_left_alone() {
    let data = tempfile::tempdir().expect("a directory");
    let (disk, ..) = open(data.path());
    let raise = |write: &WriteTransaction| {
        write.open_table(META)?.insert("format", FORMAT + 1)?;
        Ok(())
    };
    disk.in_transaction(raise).expect("a write");
    drop(disk);
    for _ in 0..2 {
        let error = Disk::open(data.path()).map(|_| ()).expect_err("an unknown format").to_string();
        assert!(error.contains("its format is 2, not 1"), "{error}");
    }
}

#[test]
fn a_new_directory_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let data = tempfile::tempdir().expect("a directory");
    let below = data.path().join("new").join("store");
    open(&below);
    assert_eq!(fs::metadata(&below).expect("it is there").permissions().mode() & 0o777, 0o700);
}
