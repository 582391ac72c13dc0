//! The embedded store as a process: whom it refuses, and how it ends.

#![allow(clippy::expect_used, clippy::panic, reason = "these are tests, also where clippy cannot see it")]

mod site;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use handover_proto::txn::{Op, Txn};
use handover_store::client::{StoreError, WatchItem};
use handover_store::server::{DiskError, ServerError, ServerOptions, serve};
use nix::sys::signal::Signal;
use site::{PATIENCE, Site};

#[tokio::test]
async fn this_binary_becomes_a_store_when_the_environment_says_so() -> Result<()> {
    site::become_a_store().await
}

/// What `serve` says to this data directory; it must not come up.
async fn refusal(data: &Path, listen: &str) -> Result<ServerError> {
    let options = ServerOptions { data: data.to_owned(), listen: listen.parse()? };
    let up = |address: SocketAddr| panic!("it came up on {address}");
    let end = tokio::time::timeout(PATIENCE, serve(options, up, std::future::pending())).await?;
    end.err().context("it ended without an error")
}

fn put(key: &str) -> Txn {
    Txn { then: vec![Op::put(key, "v".repeat(2_000))], ..Txn::default() }
}

#[tokio::test]
async fn it_refuses_to_listen_beyond_loopback() -> Result<()> {
    let data = tempfile::tempdir()?;
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:2790"] {
        let error = refusal(data.path(), address).await?;
        assert!(matches!(error, ServerError::NotLoopback(_)), "{error}");
        assert!(error.to_string().contains("use etcd"), "{error}");
    }
    assert_eq!(fs::read_dir(data.path())?.count(), 0, "and touches nothing");
    Ok(())
}

#[tokio::test]
async fn a_second_server_on_the_same_data_is_refused_and_the_first_goes_on() -> Result<()> {
    let site = Site::embedded()?;
    let store = site.store()?;
    store.txn(&put("k")).await?;
    let error = refusal(site.data(), "127.0.0.1:0").await?;
    assert!(matches!(error, ServerError::Disk(DiskError::InUse { .. })), "{error}");
    assert!(error.to_string().contains(&site.data().display().to_string()), "{error}");
    store.txn(&put("k")).await?;
    Ok(())
}

#[tokio::test]
async fn a_taken_port_is_refused_before_the_data_is_touched() -> Result<()> {
    let (site, data) = (Site::embedded()?, tempfile::tempdir()?);
    let taken = site.endpoint().trim_start_matches("http://").to_owned();
    let error = refusal(data.path(), &taken).await?;
    assert!(matches!(error, ServerError::Listen { .. }), "{error}");
    assert!(error.to_string().contains(&taken), "{error}");
    assert_eq!(fs::read_dir(data.path())?.count(), 0);
    Ok(())
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_made_is_named() -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    let error = refusal(&file.path().join("below"), "127.0.0.1:0").await?;
    assert!(matches!(error, ServerError::Disk(DiskError::Io { .. })), "{error}");
    assert!(error.to_string().contains("below"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_database_damaged_after_a_kill_is_refused_with_the_file_and_a_way_out() -> Result<()> {
    damage(Site::kill).await
}

#[tokio::test]
async fn a_database_damaged_after_an_orderly_end_is_refused_with_the_file_and_a_way_out() -> Result<()> {
    damage(|site| {
        site.signal(Signal::SIGTERM)?;
        anyhow::ensure!(site.wait()?.success(), "an orderly end");
        Ok(())
    })
    .await
}

async fn damage(end: impl FnOnce(&mut Site) -> Result<()>) -> Result<()> {
    let mut site = Site::embedded()?;
    let store = site.store()?;
    for n in 0..50 {
        store.txn(&put(&n.to_string())).await?;
    }
    end(&mut site)?;
    let file = site.data().join("store.redb");
    let whole = fs::read(&file)?;
    let zeroed = |from: usize, to: usize| [&whole[..from], &vec![0; to - from], &whole[to..]].concat();
    let cases = [
        ("empty but there", Vec::new()),
        ("its first page only", whole[..4096].to_vec()),
        ("half", whole[..whole.len() / 2].to_vec()),
        ("all but the last byte", whole[..whole.len() - 1].to_vec()),
        ("text", b"this is not a database, but it is long enough to be one".repeat(500)),
        ("no head", zeroed(0, 512)),
        ("no pages", zeroed(4096, whole.len())),
        ("zeroes in the middle", zeroed(whole.len() / 2, whole.len() / 2 + 4096)),
        ("zeroes at a quarter", zeroed(whole.len() / 4, whole.len() / 4 + 20_000)),
    ];
    for (case, bytes) in cases {
        fs::write(&file, &bytes)?;
        let error = refusal(site.data(), "127.0.0.1:0").await.with_context(|| case.to_owned())?;
        assert!(matches!(error, ServerError::Disk(DiskError::Damaged { .. })), "{case}: {error}");
        let text = error.to_string();
        assert!(text.contains(&file.display().to_string()) && text.contains("restore"), "{case}: {text}");
    }
    fs::write(&file, &whole)?;
    site.run()?;
    assert_eq!(store.list("").await?.entries.len(), 50, "the backup works");
    Ok(())
}

#[tokio::test]
async fn a_full_disk_ends_it_and_loses_nothing_that_was_acknowledged() -> Result<()> {
    let mut site = Site::embedded_with_limit(4096)?;
    let store = site.store()?;
    let mut acknowledged = 0;
    let error = loop {
        match store.txn(&put(&format!("{acknowledged:06}"))).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(acknowledged > 0, "it worked before");
    assert!(matches!(error, StoreError::Unknown { .. }), "{error}");
    assert!(!site.wait()?.success(), "it ends with an error");
    site.lift_limit();
    site.run()?;
    let found = store.list("").await?.entries.len();
    assert!(found == acknowledged || found == acknowledged + 1, "{acknowledged} acknowledged, {found} found");
    Ok(())
}

#[tokio::test]
async fn another_data_directory_is_another_cluster() -> Result<()> {
    let (one, other) = (Site::embedded()?, Site::embedded()?);
    let (one, other) = (one.store()?.list("").await?, other.store()?.list("").await?);
    assert_ne!(one.cluster_id, other.cluster_id);
    Ok(())
}

#[tokio::test]
async fn it_ends_when_told_although_a_watch_is_open_and_says_so_to_the_watcher() -> Result<()> {
    let mut site = Site::embedded()?;
    let store = site.store()?;
    let mut watch = store.watch("", 0);
    assert!(matches!(watch.next().await, WatchItem::Reset(_)));
    store.txn(&put("k")).await?;
    assert!(matches!(watch.next().await, WatchItem::Changes { .. }), "it follows");
    let told = Instant::now();
    site.signal(Signal::SIGTERM)?;
    let interrupted = tokio::time::timeout(PATIENCE, watch.next()).await?;
    assert!(matches!(interrupted, WatchItem::Interrupted(_)), "{interrupted:?}");
    assert!(site.wait()?.success());
    assert!(told.elapsed() < Duration::from_secs(3), "{:?}", told.elapsed());
    site.run()?;
    assert!(store.get("k").await?.is_some());
    Ok(())
}

#[tokio::test]
async fn a_client_that_does_not_hang_up_cannot_keep_it_from_ending() -> Result<()> {
    let mut site = Site::embedded()?;
    let store = site.store()?;
    store.txn(&put("k")).await?;
    site.signal(Signal::SIGTERM)?;
    // Blocks this test's only thread, and with it the connection.
    assert!(site.wait()?.success());
    Ok(())
}

#[tokio::test]
async fn its_status_says_that_it_is_the_embedded_one() -> Result<()> {
    let site = Site::embedded()?;
    let (_, status) = site.store()?.status().await.pop().context("one member")?;
    let status = status?;
    assert!(status.is_embedded(), "{}", status.version);
    assert!(status.db_size_bytes > 0);
    Ok(())
}
