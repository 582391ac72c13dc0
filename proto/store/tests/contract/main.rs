//! What Handover relies on, as functions over `Store`: each runs against the embedded store and, where the environment
//! names one, against a real etcd. The numbers M5 etc. are those of `SAFETY.md` §0.

#![allow(clippy::expect_used, clippy::panic, reason = "these are tests, also where clippy cannot see it")]

#[macro_use]
#[path = "../site/mod.rs"]
mod site;

mod keys;
mod leases;
mod restarts;
mod watches;

use anyhow::{Context, Result};
use handover_proto::txn::{Op, Revision, Txn};
use handover_store::client::{Change, Entry, Listing, Store, StoreError, TxnReply, Watch, WatchItem};
use site::PATIENCE;
use tokio::time::timeout;

#[tokio::test]
async fn this_binary_becomes_a_store_when_the_environment_says_so() -> Result<()> {
    site::become_a_store().await
}

async fn put(store: &Store, key: &str, value: &str) -> Result<Revision, StoreError> {
    Ok(store.txn(&Txn { then: vec![Op::put(key, value)], ..Txn::default() }).await?.revision)
}

async fn put_with_lease(store: &Store, key: &str, lease: i64) -> Result<TxnReply, StoreError> {
    store.txn(&Txn { then: vec![Op::put_with_lease(key, "v", lease)], ..Txn::default() }).await
}

async fn entry(store: &Store, key: &str) -> Result<Entry> {
    store.get(key).await?.with_context(|| format!("{key} is absent"))
}

fn reading(key: &str) -> Txn {
    Txn { then: vec![Op::Get(key.to_owned())], ..Txn::default() }
}

/// The next item that is news, within patience.
async fn news(watch: &mut Watch) -> Result<WatchItem> {
    loop {
        match timeout(PATIENCE, watch.next()).await.context("the watch says nothing")? {
            WatchItem::Interrupted(_) => {}
            WatchItem::Changes { changes, .. } if changes.is_empty() => {}
            item => return Ok(item),
        }
    }
}

async fn changes(watch: &mut Watch) -> Result<(Revision, Vec<Change>)> {
    match news(watch).await? {
        WatchItem::Changes { revision, changes } => Ok((revision, changes)),
        other => anyhow::bail!("expected changes, not {other:?}"),
    }
}

async fn reset(watch: &mut Watch) -> Result<Listing> {
    match news(watch).await? {
        WatchItem::Reset(listing) => Ok(listing),
        other => anyhow::bail!("expected a listing, not {other:?}"),
    }
}
