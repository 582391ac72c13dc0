use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use super::super::state::{Op, Put, Stored, Transaction};
use super::*;

fn put(key: &str, lease: LeaseId) -> Request {
    let put = Put { key: key.into(), value: Some(b"v".to_vec()), lease: Some(lease), previous: false };
    Request::Txn(Transaction { then: vec![Op::Put(put)], ..Transaction::default() })
}

fn nothing() -> Request {
    Request::Txn(Transaction::default())
}

#[tokio::test]
async fn the_revision_is_announced_before_the_writer_is_answered() {
    let data = tempfile::tempdir().expect("a directory");
    let (engine, _writer) = Engine::start(data.path()).expect("an engine");
    let mut committed = engine.shared().committed();
    let (_, revision) = engine.write(put("k", 0)).await.expect("a put");
    assert_eq!(*committed.borrow_and_update(), revision, "it is known already, without waiting");
    assert_eq!(engine.shared().read(&nothing()).expect("a read").1, revision);
}

#[tokio::test]
async fn a_lease_ends_on_time_with_its_keys_although_nobody_asks_for_anything() {
    let data = tempfile::tempdir().expect("a directory");
    let (engine, _writer) = Engine::start(data.path()).expect("an engine");
    engine.write(Request::Grant { id: 7, ttl: Duration::from_secs(2) }).await.expect("a grant");
    let (_, put) = engine.write(put("k", 7)).await.expect("a put");
    let mut committed = engine.shared().committed();
    let granted = engine.shared().now();
    let ended = tokio::time::timeout(Duration::from_secs(10), committed.wait_for(|revision| *revision > put)).await;
    assert_eq!(*ended.expect("it must end").expect("the engine stands"), put + 1);
    let lived = engine.shared().now() - granted;
    assert!((1_900..2_500).contains(&lived.as_millis()), "{lived:?}");
    assert_eq!(engine.shared().keep_alive(7).0, None);
}

#[tokio::test]
async fn once_closed_it_reads_nothing_and_once_stopped_it_writes_nothing() {
    let data = tempfile::tempdir().expect("a directory");
    let (engine, writer) = Engine::start(data.path()).expect("an engine");
    engine.shared().read(&nothing()).expect("open");
    engine.close();
    engine.shared().closed().await;
    assert_eq!(engine.shared().read(&nothing()).expect_err("closed").code(), Code::Unavailable);
    engine.stop();
    writer.ended.await.expect("a last word").expect("an orderly end");
    writer.thread.expect("a thread of its own").join().expect("no panic");
    assert_eq!(engine.write(put("k", 0)).await.expect_err("stopped").code(), Code::Unavailable);
    let (engine, _writer) = Engine::start(data.path()).expect("the data is free again");
    assert_eq!(engine.shared().read(&nothing()).expect("a read").1, 1, "what was refused is not there");
}

/// A disk that fails when told to.
#[derive(Debug)]
struct Failing {
    medium: InMemoryBackend,
    fails: Arc<AtomicBool>,
}

impl StorageBackend for Failing {
    fn len(&self) -> io::Result<u64> {
        self.medium.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.medium.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.medium.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.fails.load(Ordering::SeqCst) { Err(io::Error::other("it burns")) } else { self.medium.sync_data() }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.medium.write(offset, data)
    }
}

#[test]
fn nothing_is_seen_of_a_write_that_the_disk_did_not_take() {
    let fails = Arc::new(AtomicBool::new(false));
    let disk = Disk::on(Failing { medium: InMemoryBackend::new(), fails: fails.clone() });
    let identity = Identity { cluster_id: 1, member_id: 2, raft_term: 1 };
    let shared = Shared::new(identity, State::restore(Stored::default(), Duration::ZERO));
    carry_out(&shared, &disk, &put("k", 0)).expect("the disk works").expect("a put");
    assert_eq!((shared.state().revision(), *shared.committed().borrow()), (2, 2));
    fails.store(true, Ordering::SeqCst);
    let error = carry_out(&shared, &disk, &put("k", 0)).expect_err("the disk fails");
    assert!(error.to_string().contains("it burns"), "{error}");
    assert_eq!((shared.state().revision(), *shared.committed().borrow()), (2, 2));
}
