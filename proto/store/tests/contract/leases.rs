//! etcd leases: what M5 found, renewal, expiry.

use std::time::{Duration, Instant};

use anyhow::Result;
use handover_proto::txn::{Op, Txn};
use handover_store::client::{Change, StoreError};

use crate::site::Site;
use crate::{changes, entry, put, put_with_lease, reading};

contract! {
    a_key_put_again_with_another_lease_outlives_the_first_lease
    a_put_with_a_dead_lease_aborts_the_whole_transaction
    the_ttl_of_a_grant_is_the_replys
    a_revoked_lease_takes_its_keys_along_and_may_be_revoked_again
    a_renewal_carries_the_barriers_reads_and_who_answered
    a_renewal_of_a_gone_lease_says_zero
    a_renewed_lease_outlives_its_ttl_and_an_expired_one_is_seen_by_watchers
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
