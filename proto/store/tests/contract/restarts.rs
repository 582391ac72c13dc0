//! What a kill and a restart leave behind.

use std::time::Duration;

use anyhow::{Context, Result};
use handover_proto::txn::{Op, Txn};
use handover_store::client::{Change, StoreError, WatchItem};
use tokio::time::timeout;

use crate::site::{PATIENCE, Site, eventually};
use crate::{changes, put, put_with_lease, reading};

contract! {
    a_watch_resumes_over_kill_and_restart_without_missing_anything
    a_watch_from_the_past_is_told_it_even_after_a_restart
    a_restart_keeps_keys_revisions_and_leases
    every_acknowledged_write_survives_a_kill
}

async fn a_watch_resumes_over_kill_and_restart_without_missing_anything(mut site: Site) -> Result<()> {
    let store = site.store()?;
    let from = put(&store, "/w/0", "v").await?;
    let mut watch = store.watch("/w/", from);
    assert_eq!(changes(&mut watch).await?.0, from, "it follows before the kill");
    site.kill()?;
    let interrupted = timeout(PATIENCE, watch.next()).await.context("it must notice")?;
    assert!(matches!(interrupted, WatchItem::Interrupted(_)), "{interrupted:?}");
    site.run()?;
    // Written by another client while the watch may not be back yet.
    let other = site.store()?;
    let mut written = Vec::new();
    for n in 1..=5 {
        let key = format!("/w/{n}");
        written.push(eventually("a write after the restart", || async { put(&other, &key, "v").await.ok() }).await);
    }
    for expected in written {
        assert_eq!(changes(&mut watch).await?.0, expected);
    }
    Ok(())
}

async fn a_watch_from_the_past_is_told_it_even_after_a_restart(mut site: Site) -> Result<()> {
    let store = site.store()?;
    let from = put(&store, "/w/a", "1").await?;
    let deleted = store.txn(&Txn { then: vec![Op::Delete("/w/a".into())], ..Txn::default() }).await?.revision;
    site.kill()?;
    site.run()?;
    let mut watch = store.watch("/w/", from);
    let (revision, put) = changes(&mut watch).await?;
    assert_eq!((revision, put[0].value.as_ref().map(|entry| entry.value.as_slice())), (from, Some(b"1".as_slice())));
    assert_eq!(changes(&mut watch).await?, (deleted, vec![Change { key: "/w/a".into(), value: None }]));
    Ok(())
}

async fn a_restart_keeps_keys_revisions_and_leases(mut site: Site) -> Result<()> {
    let store = site.store()?;
    let lease = store.grant(Duration::from_secs(60)).await?.id;
    put(&store, "plain", "1").await?;
    put(&store, "plain", "2").await?;
    put_with_lease(&store, "bound", lease).await?;
    let gone = put(&store, "gone", "v").await?;
    let last = store.txn(&Txn { then: vec![Op::Delete("gone".into())], ..Txn::default() }).await?;
    assert_eq!(last.revision, gone + 1);
    let before = store.list("").await?;
    let term = store.renew(0, lease, &reading("bound"), Duration::from_secs(1)).await?.keep_alive.raft_term;
    site.kill()?;
    site.run()?;
    let after = eventually("the store is back", || async { store.list("").await.ok() }).await;
    assert_eq!(after, before);
    let renewal = store.renew(0, lease, &reading("bound"), Duration::from_secs(2)).await?;
    assert_eq!(renewal.ttl, Duration::from_secs(60));
    assert_eq!(renewal.keep_alive.cluster_id, before.cluster_id);
    assert!(renewal.keep_alive.raft_term > term, "a restart is a new term");
    assert_eq!(put(&store, "plain", "3").await?, last.revision + 1);
    store.revoke(lease).await?;
    assert_eq!(store.get("bound").await?, None, "the key is still bound to the lease");
    Ok(())
}

async fn every_acknowledged_write_survives_a_kill(mut site: Site) -> Result<()> {
    let store = site.store()?;
    let (acknowledge, mut acknowledged) = tokio::sync::watch::channel(0);
    let writer = tokio::spawn(async move {
        for n in 1.. {
            match put(&store, &format!("/n/{n:06}"), "v").await {
                Ok(_) => acknowledge.send_replace(n),
                Err(error) => return (n - 1, error),
            };
        }
        unreachable!("it ends with the store")
    });
    acknowledged.wait_for(|n| *n > 50).await?;
    site.kill()?;
    let (last, error) = writer.await?;
    assert!(matches!(error, StoreError::Unknown { .. } | StoreError::Unreachable { .. }), "{error}");
    site.run()?;
    let store = site.store()?;
    let found = eventually("the store is back", || async { store.list("/n/").await.ok() }).await.entries.len();
    assert!(found == last || found == last + 1, "{last} acknowledged, {found} found: at most the one in doubt is more");
    Ok(())
}
