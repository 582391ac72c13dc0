//! Watches that stay connected.

use std::time::Duration;

use anyhow::Result;
use handover_proto::txn::{Op, Txn};
use handover_store::client::{Change, WatchItem};
use tokio::time::timeout;

use crate::site::Site;
use crate::{changes, entry, put, reset};

contract! {
    a_watch_shows_each_transaction_as_one_item_in_order
    a_watch_from_zero_begins_with_a_listing
    a_watch_from_a_compacted_revision_lists_again
    a_watch_far_behind_is_told_everything
    an_idle_watch_is_left_alone
}

async fn a_watch_shows_each_transaction_as_one_item_in_order(site: Site) -> Result<()> {
    let store = site.store()?;
    put(&store, "/w/b", "old").await?;
    let from = put(&store, "/elsewhere", "v").await? + 1;
    let mut watch = store.watch("/w/", from);
    let then = vec![Op::put("/w/a", "1"), Op::Delete("/w/b".into()), Op::put("/elsewhere", "1")];
    let first = store.txn(&Txn { then, ..Txn::default() }).await?.revision;
    put(&store, "/elsewhere", "2").await?;
    let second = put(&store, "/w/a", "2").await?;
    let (revision, seen) = changes(&mut watch).await?;
    assert_eq!(revision, first);
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].value.as_ref().map(|entry| entry.value.as_slice()), Some(b"1".as_slice()));
    assert_eq!(seen[1], Change { key: "/w/b".into(), value: None });
    let (revision, seen) = changes(&mut watch).await?;
    assert_eq!((revision, seen), (second, vec![Change { key: "/w/a".into(), value: store.get("/w/a").await? }]));
    Ok(())
}

async fn a_watch_from_zero_begins_with_a_listing(site: Site) -> Result<()> {
    let store = site.store()?;
    let revision = put(&store, "/w/a", "1").await?;
    let mut watch = store.watch("/w/", 0);
    let listing = reset(&mut watch).await?;
    assert_eq!((listing.revision, listing.entries.len()), (revision, 1));
    let next = put(&store, "/w/b", "1").await?;
    assert_eq!(changes(&mut watch).await?.0, next);
    Ok(())
}

async fn a_watch_from_a_compacted_revision_lists_again(site: Site) -> Result<()> {
    let store = site.store()?;
    let first = put(&store, "/w/a", "1").await?;
    let last = put(&store, "/w/a", "2").await?;
    let mut client = etcd_client::Client::connect([site.endpoint()], None).await?;
    client.compact(last, None).await?;
    let mut watch = store.watch("/w/", first);
    let listing = reset(&mut watch).await?;
    assert_eq!(listing.entries, [entry(&store, "/w/a").await?]);
    let next = put(&store, "/w/a", "3").await?;
    assert_eq!(changes(&mut watch).await?.0, next);
    Ok(())
}

async fn a_watch_far_behind_is_told_everything(site: Site) -> Result<()> {
    let store = site.store()?;
    let large = "x".repeat(100_000);
    let mut written = Vec::new();
    for _ in 0..60 {
        written.push(put(&store, "/w/a", &large).await?);
    }
    let mut watch = store.watch("/w/", written[0]);
    for revision in written {
        assert_eq!(changes(&mut watch).await?.0, revision);
    }
    assert_eq!(store.list("/w/").await?.entries[0].value.len(), large.len());
    Ok(())
}

async fn an_idle_watch_is_left_alone(site: Site) -> Result<()> {
    let store = site.store()?;
    let mut watch = store.watch("/w/", 0);
    reset(&mut watch).await?;
    let item = timeout(Duration::from_secs(7), watch.next()).await;
    assert!(item.is_err(), "it was told {item:?}");
    let revision = put(&store, "/w/a", "1").await?;
    assert!(matches!(watch.next().await, WatchItem::Changes { revision: told, .. } if told == revision));
    Ok(())
}
