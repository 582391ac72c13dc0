//! Keys, transactions and their limits.

use std::time::Duration;

use anyhow::{Context, Result};
use handover_proto::txn::{Cmp, Op, Txn};
use handover_store::client::{Store, StoreError};

use crate::site::Site;
use crate::{entry, put, put_with_lease};

contract! {
    an_absent_key_reads_as_none_and_a_prefix_lists_its_own_keys_only
    two_keys_of_one_transaction_carry_the_same_revision
    a_transaction_that_is_replayed_fails_its_compare_and_reads_the_else_branch
    an_overwrite_keeps_the_create_revision_and_a_rebirth_does_not
    every_kind_of_compare_sees_presence_and_absence
    concurrent_compare_and_swap_loses_no_update
    a_transaction_beyond_the_limits_is_refused_and_does_nothing
    every_member_tells_its_status
}

async fn an_absent_key_reads_as_none_and_a_prefix_lists_its_own_keys_only(site: Site) -> Result<()> {
    let store = site.store()?;
    assert_eq!(store.get("/a/1").await?, None);
    assert_eq!(store.list("/a/").await?.entries, []);
    for key in ["/a/2", "/a/1", "/b/1", "/a"] {
        put(&store, key, "v").await?;
    }
    let listing = store.list("/a/").await?;
    assert_eq!(listing.entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["/a/1", "/a/2"]);
    assert_eq!(listing.revision, entry(&store, "/a").await?.mod_revision, "the picture is of the last write");
    assert_eq!(store.list("").await?.entries.len(), 4);
    Ok(())
}

async fn two_keys_of_one_transaction_carry_the_same_revision(site: Site) -> Result<()> {
    let store = site.store()?;
    let lease = store.grant(Duration::from_secs(60)).await?.id;
    let then = vec![Op::put("holder", "a"), Op::put_with_lease("beat", "a", lease), Op::Get("holder".into())];
    let reply = store.txn(&Txn { then, ..Txn::default() }).await?;
    let (holder, beat) = (entry(&store, "holder").await?, entry(&store, "beat").await?);
    assert_eq!((holder.mod_revision, beat.mod_revision), (reply.revision, reply.revision));
    assert_eq!((holder.lease, beat.lease), (0, lease));
    assert_eq!(reply.reads, [Some(holder)], "a read in a transaction sees the writes before it");
    Ok(())
}

async fn a_transaction_that_is_replayed_fails_its_compare_and_reads_the_else_branch(site: Site) -> Result<()> {
    let store = site.store()?;
    let before = put(&store, "k", "1").await?;
    let txn = Txn {
        cmp: vec![Cmp::ModRevision("k".into(), before)],
        then: vec![Op::put("k", "2")],
        or_else: vec![Op::Get("k".into()), Op::Get("absent".into())],
    };
    let first = store.txn(&txn).await?;
    assert!(first.succeeded && first.reads.is_empty());
    let again = store.txn(&txn).await?;
    assert!(!again.succeeded);
    assert_eq!(again.reads, [Some(entry(&store, "k").await?), None]);
    assert_eq!(again.revision, first.revision, "nothing was written");
    Ok(())
}

async fn an_overwrite_keeps_the_create_revision_and_a_rebirth_does_not(site: Site) -> Result<()> {
    let store = site.store()?;
    let created = put(&store, "k", "1").await?;
    let written = put(&store, "k", "2").await?;
    let found = entry(&store, "k").await?;
    assert_eq!((found.create_revision, found.mod_revision), (created, written));
    store.txn(&Txn { then: vec![Op::Delete("k".into())], ..Txn::default() }).await?;
    assert_eq!(store.get("k").await?, None);
    let reborn = put(&store, "k", "3").await?;
    assert_eq!(entry(&store, "k").await?.create_revision, reborn);
    Ok(())
}

async fn every_kind_of_compare_sees_presence_and_absence(site: Site) -> Result<()> {
    let store = site.store()?;
    let lease = store.grant(Duration::from_secs(60)).await?.id;
    let revision = put_with_lease(&store, "k", lease).await?.revision;
    let cases = [
        (Cmp::ModRevision("k".into(), revision), true),
        (Cmp::ModRevision("k".into(), 0), false),
        (Cmp::ModRevision("absent".into(), 0), true),
        (Cmp::ModRevision("absent".into(), revision), false),
        (Cmp::CreateRevision("k".into(), revision), true),
        (Cmp::CreateRevision("absent".into(), 0), true),
        (Cmp::Lease("k".into(), lease), true),
        (Cmp::Lease("k".into(), 0), false),
        (Cmp::Lease("absent".into(), 0), true),
        (Cmp::Value("k".into(), b"v".to_vec()), true),
        (Cmp::Value("k".into(), b"w".to_vec()), false),
        (Cmp::Value("absent".into(), Vec::new()), false),
    ];
    for (cmp, holds) in cases {
        let reply = store.txn(&Txn { cmp: vec![cmp.clone()], ..Txn::default() }).await?;
        assert_eq!(reply.succeeded, holds, "{cmp:?}");
    }
    Ok(())
}

async fn concurrent_compare_and_swap_loses_no_update(site: Site) -> Result<()> {
    const TASKS: u32 = 8;
    const EACH: u32 = 10;
    let store = site.store()?;
    put(&store, "n", "0").await?;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..TASKS {
        let store = store.clone();
        tasks.spawn(async move {
            let mut done = 0;
            while done < EACH {
                let found = entry(&store, "n").await?;
                let n: u32 = std::str::from_utf8(&found.value)?.parse()?;
                let cmp = vec![Cmp::ModRevision("n".into(), found.mod_revision)];
                let txn = Txn { cmp, then: vec![Op::put("n", (n + 1).to_string())], ..Txn::default() };
                done += u32::from(store.txn(&txn).await?.succeeded);
            }
            anyhow::Ok(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    assert_eq!(entry(&store, "n").await?.value, (TASKS * EACH).to_string().into_bytes());
    Ok(())
}

async fn a_transaction_beyond_the_limits_is_refused_and_does_nothing(site: Site) -> Result<()> {
    let store = site.store()?;
    let before = put(&store, "k", "v").await?;
    let puts =
        |count: usize| Txn { then: (0..count).map(|n| Op::put(format!("/many/{n}"), "v")).collect(), ..Txn::default() };
    let beyond = [
        ("too many operations", puts(129)),
        ("duplicate key", Txn { then: vec![Op::put("a", "1"), Op::put("a", "2")], ..Txn::default() }),
        ("duplicate key", Txn { then: vec![Op::put("a", "1"), Op::Delete("a".into())], ..Txn::default() }),
        ("too large", Txn { then: vec![Op::put("a", vec![b'x'; 1_600_000])], ..Txn::default() }),
        ("key is not provided", Txn { then: vec![Op::put("", "1")], ..Txn::default() }),
    ];
    for (words, txn) in beyond {
        let error = store.txn(&txn).await.expect_err(words);
        assert!(matches!(&error, StoreError::Refused { message, .. } if message.contains(words)), "{words}: {error}");
    }
    assert_eq!(store.list("").await?.revision, before);
    assert_eq!(store.txn(&puts(128)).await?.revision, before + 1, "128 are allowed");
    let large = Txn { then: vec![Op::put("a", vec![b'x'; 1_500_000])], ..Txn::default() };
    assert_eq!(store.txn(&large).await?.revision, before + 2);
    Ok(())
}

async fn every_member_tells_its_status(site: Site) -> Result<()> {
    let silent = "http://127.0.0.1:1".to_owned();
    let store = Store::connect(&[site.endpoint(), silent.clone()])?;
    let mut all = store.status().await.into_iter();
    let (endpoint, status) = all.next().context("the first")?;
    let status = status?;
    assert_eq!(endpoint, site.endpoint());
    assert_eq!(status.leader, status.member_id, "a lone member leads");
    assert!(status.raft_term > 0 && !status.version.is_empty());
    let (endpoint, error) = all.next().context("the second")?;
    assert_eq!(endpoint, silent);
    let error = error.expect_err("nobody is there");
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
    Ok(())
}
