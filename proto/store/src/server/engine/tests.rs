use super::super::state::{Op, Put, Transaction};
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
    writer.thread.join().expect("no panic");
    assert_eq!(engine.write(put("k", 0)).await.expect_err("stopped").code(), Code::Unavailable);
    let (engine, _writer) = Engine::start(data.path()).expect("the data is free again");
    assert_eq!(engine.shared().read(&nothing()).expect("a read").1, 1, "what was refused is not there");
}
