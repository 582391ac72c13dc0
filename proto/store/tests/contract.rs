//! What Handover relies on, as functions over `Store`: each runs against the embedded store and, where the environment
//! names one, against a real etcd. The numbers M5 etc. are those of `SAFETY.md` §0.

mod site;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use handover_proto::txn::{Cmp, Op, Revision, Txn};
use handover_store::client::{Change, Entry, Listing, Store, StoreError, TxnReply, Watch, WatchItem};
use site::{PATIENCE, Site, eventually};
use tokio::time::timeout;

#[tokio::test]
async fn this_binary_becomes_a_store_when_the_environment_says_so() -> Result<()> {
    site::become_a_store().await
}

macro_rules! contract {
    ($($name:ident)*) => {
        mod embedded {
            $(#[tokio::test] async fn $name() -> anyhow::Result<()> { super::$name(super::Site::embedded()?).await })*
        }
        mod etcd {
            $(#[tokio::test] async fn $name() -> anyhow::Result<()> {
                match super::Site::etcd()? { Some(site) => super::$name(site).await, None => Ok(()) }
            })*
        }
    };
}

contract! {
    an_absent_key_reads_as_none_and_a_prefix_lists_its_own_keys_only
    two_keys_of_one_transaction_carry_the_same_revision
    a_transaction_that_is_replayed_fails_its_compare_and_reads_the_else_branch
    an_overwrite_keeps_the_create_revision_and_a_rebirth_does_not
    every_kind_of_compare_sees_presence_and_absence
    a_key_put_again_with_another_lease_outlives_the_first_lease
    a_put_with_a_dead_lease_aborts_the_whole_transaction
    the_ttl_of_a_grant_is_the_replys
    a_revoked_lease_takes_its_keys_along_and_may_be_revoked_again
    a_renewal_carries_the_barriers_reads_and_who_answered
    a_renewal_of_a_gone_lease_says_zero
    a_renewed_lease_outlives_its_ttl_and_an_expired_one_is_seen_by_watchers
    a_watch_shows_each_transaction_as_one_item_in_order
    a_watch_from_zero_begins_with_a_listing
    a_watch_resumes_over_kill_and_restart_without_missing_anything
    a_watch_from_a_compacted_revision_lists_again
    a_watch_from_the_past_is_told_it_even_after_a_restart
    a_watch_far_behind_is_told_everything
    an_idle_watch_is_left_alone
    a_restart_keeps_keys_revisions_and_leases
    every_acknowledged_write_survives_a_kill
    concurrent_compare_and_swap_loses_no_update
    a_transaction_beyond_the_limits_is_refused_and_does_nothing
    every_member_tells_its_status
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

async fn a_key_put_again_with_another_lease_outlives_the_first_lease(site: Site) -> Result<()> {
    let store = site.store()?;
    let (first, second) =
        (store.grant(Duration::from_secs(60)).await?.id, store.grant(Duration::from_secs(60)).await?.id);
    put_with_lease(&store, "beat", first).await?;
    put_with_lease(&store, "beat", second).await?;
    store.revoke(first).await?;
    assert_eq!(entry(&store, "beat").await?.lease, second);
    store.revoke(second).await?;
    assert_eq!(store.get("beat").await?, None);
    Ok(())
}

async fn a_put_with_a_dead_lease_aborts_the_whole_transaction(site: Site) -> Result<()> {
    let store = site.store()?;
    let lease = store.grant(Duration::from_secs(60)).await?.id;
    store.revoke(lease).await?;
    let before = put(&store, "holder", "a").await?;
    let then = vec![Op::put("holder", "b"), Op::put_with_lease("beat", "b", lease)];
    let error = store.txn(&Txn { then, ..Txn::default() }).await.expect_err("a dead lease");
    assert!(matches!(error, StoreError::LeaseGone { lease: Some(named), .. } if named == lease), "{error}");
    assert_eq!(entry(&store, "holder").await?.mod_revision, before);
    assert_eq!(store.list("").await?.revision, before);
    Ok(())
}

async fn the_ttl_of_a_grant_is_the_replys(site: Site) -> Result<()> {
    let store = site.store()?;
    assert_eq!(store.grant(Duration::from_secs(1)).await?.ttl, Duration::from_secs(2), "the shortest there is");
    assert_eq!(store.grant(Duration::from_millis(9_001)).await?.ttl, Duration::from_secs(10), "whole seconds, upwards");
    Ok(())
}

async fn a_revoked_lease_takes_its_keys_along_and_may_be_revoked_again(site: Site) -> Result<()> {
    let store = site.store()?;
    let lease = store.grant(Duration::from_secs(60)).await?.id;
    put_with_lease(&store, "a", lease).await?;
    put_with_lease(&store, "b", lease).await?;
    let mut watch = store.watch("", store.list("").await?.revision + 1);
    store.revoke(lease).await?;
    let (_, gone) = changes(&mut watch).await?;
    let mut keys: Vec<_> =
        gone.iter().filter(|change| change.value.is_none()).map(|change| change.key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["a", "b"], "both in one revision");
    store.revoke(lease).await?;
    Ok(())
}

async fn a_renewal_carries_the_barriers_reads_and_who_answered(site: Site) -> Result<()> {
    let store = site.store()?;
    let grant = store.grant(Duration::from_secs(10)).await?;
    put_with_lease(&store, "beat", grant.id).await?;
    let renewal = store.renew(0, grant.id, &reading("beat"), Duration::from_secs(1)).await?;
    assert_eq!(renewal.ttl, grant.ttl);
    assert_eq!(renewal.keep_alive, renewal.barrier.origin);
    assert_eq!(renewal.barrier.reads, [Some(entry(&store, "beat").await?)]);
    assert_ne!(renewal.keep_alive.member_id, 0);
    let writing = Txn { then: vec![Op::put("k", "v")], ..Txn::default() };
    let error = store.renew(0, grant.id, &writing, Duration::from_secs(1)).await.expect_err("a barrier only reads");
    assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    Ok(())
}

async fn a_renewal_of_a_gone_lease_says_zero(site: Site) -> Result<()> {
    let store = site.store()?;
    let lease = store.grant(Duration::from_secs(10)).await?.id;
    store.revoke(lease).await?;
    for gone in [lease, 12345] {
        let renewal = store.renew(0, gone, &reading("beat"), Duration::from_secs(1)).await?;
        assert_eq!(renewal.ttl, Duration::ZERO);
        assert_eq!(renewal.barrier.reads, [None]);
    }
    Ok(())
}

async fn a_renewed_lease_outlives_its_ttl_and_an_expired_one_is_seen_by_watchers(site: Site) -> Result<()> {
    let store = site.store()?;
    let (kept, left) = (store.grant(Duration::from_secs(2)).await?, store.grant(Duration::from_secs(2)).await?);
    let granted = Instant::now();
    put_with_lease(&store, "kept", kept.id).await?;
    let from = put_with_lease(&store, "left", left.id).await?.revision + 1;
    let mut watch = store.watch("", from);
    let mut ticks = tokio::time::interval(Duration::from_millis(300));
    let (revision, gone) = loop {
        tokio::select! {
            told = changes(&mut watch) => break told?,
            _ = ticks.tick() => {
                let renewal = store.renew(0, kept.id, &reading("kept"), Duration::from_secs(1)).await?;
                assert_eq!(renewal.ttl, kept.ttl);
            }
        }
    };
    assert!(granted.elapsed() >= left.ttl - Duration::from_millis(100), "not before its time: {:?}", granted.elapsed());
    assert_eq!(gone, [Change { key: "left".into(), value: None }]);
    assert!(revision >= from);
    assert_eq!(store.get("left").await?, None);
    entry(&store, "kept").await?;
    let late = store.renew(0, left.id, &reading("left"), Duration::from_secs(1)).await?;
    assert_eq!(late.ttl, Duration::ZERO, "a late renewal revives nothing");
    Ok(())
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

/// etcd tells all of it in one response, larger than gRPC's default limit.
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

/// etcd cuts connections that ping it more than once in 5 s: it took 4 s until a watch with pings of 1 s was cut.
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
