//! What a store with several members does when one of them is dead, silent or out of reach. The members here are two
//! stores that know nothing of each other, so that one can see which of them answered.

#![allow(clippy::expect_used, clippy::panic, reason = "these are tests, also where clippy cannot see it")]

mod site;

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use handover_proto::txn::{Op, Txn};
use handover_store::client::{Store, StoreError, WatchItem};
use site::{PATIENCE, Site};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::time::timeout;

/// One call's limit (2 s), and some room for a machine that is busy with other tests.
const ONE_LIMIT: Duration = Duration::from_millis(3_500);

#[tokio::test]
async fn this_binary_becomes_a_store_when_the_environment_says_so() -> Result<()> {
    site::become_a_store().await
}

fn two() -> Result<(Site, Site, Store)> {
    let (first, second) = (Site::embedded()?, Site::embedded()?);
    let store = Store::connect(&[first.endpoint(), second.endpoint()])?;
    Ok((first, second, store))
}

fn writing(key: &str) -> Txn {
    Txn { then: vec![Op::put(key, "v")], ..Txn::default() }
}

async fn cluster(site: &Site) -> Result<u64> {
    Ok(site.store()?.list("").await?.cluster_id)
}

#[tokio::test]
async fn it_stays_with_a_member_that_answers() -> Result<()> {
    let (first, _second, store) = two()?;
    for _ in 0..10 {
        assert_eq!(store.list("").await?.cluster_id, cluster(&first).await?);
    }
    assert_eq!(store.members(), 2);
    Ok(())
}

#[tokio::test]
async fn a_write_skips_a_member_that_refuses_connections() -> Result<()> {
    let (mut first, second, store) = two()?;
    first.kill()?;
    let reply = store.txn(&writing("k")).await?;
    assert_eq!(reply.origin.cluster_id, cluster(&second).await?);
    Ok(())
}

#[tokio::test]
async fn a_read_leaves_a_silent_member_after_one_limit_and_stays_away() -> Result<()> {
    let (first, second, store) = two()?;
    store.get("k").await?;
    first.freeze()?;
    let started = Instant::now();
    assert_eq!(store.list("").await?.cluster_id, cluster(&second).await?);
    assert!(started.elapsed() < ONE_LIMIT, "{:?}", started.elapsed());
    let started = Instant::now();
    store.get("k").await?;
    assert!(started.elapsed() < Duration::from_secs(1), "it does not ask the silent one again");
    Ok(())
}

#[tokio::test]
async fn a_write_to_a_silent_member_is_unknown_and_never_sent_to_the_next() -> Result<()> {
    let (first, second, store) = two()?;
    store.txn(&writing("before")).await?;
    first.freeze()?;
    let started = Instant::now();
    let error = store.txn(&writing("k")).await.expect_err("nobody answers");
    assert!(started.elapsed() < ONE_LIMIT, "{:?}", started.elapsed());
    assert!(matches!(&error, StoreError::Unknown { endpoint, .. } if *endpoint == first.endpoint()), "{error}");
    assert!(error.to_string().contains("read the keys back"), "{error}");
    assert_eq!(second.store()?.get("k").await?, None, "it was not repeated there");
    assert_eq!(store.txn(&writing("next")).await?.origin.cluster_id, cluster(&second).await?);
    Ok(())
}

#[tokio::test]
async fn a_write_in_flight_when_its_member_dies_is_unknown() -> Result<()> {
    let (mut first, second, store) = two()?;
    store.txn(&writing("before")).await?;
    first.freeze()?;
    let write = writing("k");
    let mut in_flight = std::pin::pin!(store.txn(&write));
    let early = timeout(Duration::from_millis(300), &mut in_flight).await;
    assert!(early.is_err(), "it is in flight, and not answered: {early:?}");
    first.kill()?;
    let error = in_flight.await.expect_err("its member died");
    assert!(matches!(error, StoreError::Unknown { .. }), "{error}");
    assert_eq!(second.store()?.get("k").await?, None);
    Ok(())
}

#[tokio::test]
async fn a_renewal_asks_only_its_member_and_keeps_its_limit() -> Result<()> {
    let (first, second, store) = two()?;
    first.freeze()?;
    let barrier = Txn { then: vec![Op::Get("k".into())], ..Txn::default() };
    let limit = Duration::from_millis(300);
    let started = Instant::now();
    let error = store.renew(0, 7, &barrier, limit).await.expect_err("it is silent");
    assert!(started.elapsed() < limit + Duration::from_millis(700), "{:?}", started.elapsed());
    assert!(matches!(&error, StoreError::Unknown { endpoint, .. } if *endpoint == first.endpoint()), "{error}");
    let renewal = store.renew(1, 7, &barrier, PATIENCE).await?;
    assert_eq!(renewal.keep_alive.cluster_id, cluster(&second).await?);
    assert_eq!(renewal.ttl, Duration::ZERO, "that store never granted it");
    Ok(())
}

#[tokio::test]
async fn a_watch_leaves_a_silent_member_and_notices_another_store() -> Result<()> {
    let (first, second, store) = two()?;
    let mut watch = store.watch("", 0);
    let WatchItem::Reset(listing) = watch.next().await else { panic!("it begins with a listing") };
    assert_eq!(listing.cluster_id, cluster(&first).await?);
    store.txn(&writing("k")).await?;
    assert!(matches!(watch.next().await, WatchItem::Changes { .. }), "it follows before the freeze");
    let other = cluster(&second).await?;
    for n in 0..5 {
        // Ahead of the first, so that its number alone does not give it away.
        second.store()?.txn(&writing(&format!("other/{n}"))).await?;
    }
    first.freeze()?;
    let frozen = Instant::now();
    let item = timeout(PATIENCE, watch.next()).await.context("it must notice")?;
    assert!(matches!(item, WatchItem::Interrupted(_)), "{item:?}");
    assert!(frozen.elapsed() < Duration::from_secs(5), "{:?}", frozen.elapsed());
    loop {
        match timeout(PATIENCE, watch.next()).await.context("it must go on")? {
            WatchItem::Interrupted(_) => {}
            WatchItem::Reset(listing) => break assert_eq!(listing.cluster_id, other),
            WatchItem::Changes { .. } => panic!("another store cannot go on where the first one was"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_watch_ahead_of_a_store_that_went_back_lists_again() -> Result<()> {
    let site = Site::embedded()?;
    let store = site.store()?;
    let revision = store.txn(&writing("k")).await?.revision;
    let mut watch = store.watch("", revision + 1_000);
    let WatchItem::Reset(listing) = timeout(PATIENCE, watch.next()).await? else { panic!("there is no such future") };
    assert_eq!(listing.revision, revision);
    Ok(())
}

#[tokio::test]
async fn a_lone_member_is_used_again_once_it_answers_again() -> Result<()> {
    let site = Site::embedded()?;
    let store = site.store()?;
    site.freeze()?;
    let error = store.get("k").await.expect_err("it is silent");
    assert!(matches!(error, StoreError::Unreachable { .. }), "{error}");
    site.thaw()?;
    store.get("k").await?;
    Ok(())
}

#[tokio::test]
async fn nobody_there_is_said_at_once_with_all_the_names() -> Result<()> {
    let endpoints = ["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()];
    let store = Store::connect(&endpoints)?;
    let started = Instant::now();
    for error in [
        store.txn(&writing("k")).await.map(|_| ()).expect_err("nobody"),
        store.get("k").await.map(|_| ()).expect_err("nobody"),
        store.grant(Duration::from_secs(9)).await.map(|_| ()).expect_err("nobody"),
    ] {
        assert!(matches!(&error, StoreError::Unreachable { endpoints, .. } if endpoints == "127.0.0.1:1, 127.0.0.1:2"));
        assert!(error.to_string().contains("refused"), "{error}");
    }
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    Ok(())
}

/// A way to `target` on which every connection made before `silent` turns true goes silent without an end, as behind a
/// firewall that forgot it. Later ones work.
async fn forgetful_way(target: String, silent: watch::Receiver<bool>) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (target, mut silent, forgets) = (target.clone(), silent.clone(), !*silent.borrow());
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(target).await?;
                tokio::select! {
                    copied = tokio::io::copy_bidirectional(&mut near, &mut far) => copied.map(|_| ()),
                    () = turned(&mut silent), if forgets => std::future::pending().await,
                }
            });
        }
    });
    Ok(address)
}

async fn turned(silent: &mut watch::Receiver<bool>) {
    silent.wait_for(|silent| *silent).await.map(drop).expect("the test holds the sender");
}

#[tokio::test]
async fn a_connection_that_fell_silent_is_replaced_by_a_new_one() -> Result<()> {
    let site = Site::embedded()?;
    let (forget, silent) = watch::channel(false);
    let way = forgetful_way(site.endpoint().trim_start_matches("http://").to_owned(), silent).await?;
    let store = Store::connect(&[way.to_string()])?;
    store.txn(&writing("before")).await?;
    forget.send_replace(true);
    let error = store.txn(&writing("lost")).await.expect_err("nobody hears it");
    assert!(matches!(error, StoreError::Unknown { .. }), "{error}");
    let started = Instant::now();
    store.txn(&writing("after")).await?;
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    Ok(())
}

/// A port whose accept queue is full: the kernel drops further attempts to connect.
fn black_hole() -> Result<(SocketAddr, TcpListener, Vec<TcpStream>)> {
    let socket = TcpSocket::new_v4()?;
    socket.bind("127.0.0.1:0".parse()?)?;
    let listener = socket.listen(0)?;
    let address = listener.local_addr()?;
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
        queued.push(stream);
        anyhow::ensure!(queued.len() < 100, "the queue never fills");
    }
    Ok((address, listener, queued))
}

#[tokio::test]
async fn a_write_skips_a_member_that_cannot_be_reached() -> Result<()> {
    let (address, _listener, _queued) = black_hole()?;
    let site = Site::embedded()?;
    let store = Store::connect(&[address.to_string(), site.endpoint()])?;
    let started = Instant::now();
    store.txn(&writing("k")).await?;
    assert!(started.elapsed() < Duration::from_millis(1_500), "{:?}", started.elapsed());
    Ok(())
}
