//! The election over the embedded store.

#![allow(clippy::expect_used, clippy::panic, reason = "a test may")]

mod site;

use handover::serve::{Election, LEADER_TTL, Leadership};
use handover_proto::txn::{Op, Txn};
use site::{Site, leader, mandate, until};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

struct Candidate {
    leadership: watch::Receiver<Leadership>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

fn stand(site: &Site, endpoint: &str) -> Candidate {
    let (out, leadership) = watch::channel(Leadership::Unknown);
    let election = Election::new(site.store.clone(), &site.keys, leader(endpoint), site.follow().subscribe(), out);
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(election.run(async {
        // A sender that is gone stops it as well.
        let _ = stopped.await;
    }));
    Candidate { leadership, stop: Some(stop), task }
}

#[tokio::test]
async fn one_leads_and_the_other_knows_it_by_name() {
    let site = Site::start().await;
    let mut first = stand(&site, "127.0.0.1:1");
    mandate(&mut first.leadership).await;
    let mut second = stand(&site, "127.0.0.1:2");
    until(&mut second.leadership, "following", |who| matches!(who, Leadership::Following(_))).await;
    assert_eq!(*second.leadership.borrow(), Leadership::Following(leader("127.0.0.1:1")));
}

#[tokio::test]
async fn one_that_stops_in_order_is_followed_at_once_with_a_higher_term() {
    let site = Site::start().await;
    let mut first = stand(&site, "127.0.0.1:1");
    let old = mandate(&mut first.leadership).await;
    let mut second = stand(&site, "127.0.0.1:2");
    until(&mut second.leadership, "following", |who| *who != Leadership::Unknown).await;
    let stopped = Instant::now();
    drop(first.stop.take());
    first.task.await.expect("it ended");
    let new = mandate(&mut second.leadership).await;
    assert!(new.term > old.term);
    assert!(stopped.elapsed() < LEADER_TTL / 2, "no waiting for the lease: {:?}", stopped.elapsed());
}

#[tokio::test]
async fn one_that_dies_is_followed_within_its_ttl() {
    let site = Site::start().await;
    let mut first = stand(&site, "127.0.0.1:1");
    let old = mandate(&mut first.leadership).await;
    let mut second = stand(&site, "127.0.0.1:2");
    until(&mut second.leadership, "following", |who| *who != Leadership::Unknown).await;
    let died = Instant::now();
    first.task.abort();
    let new = mandate(&mut second.leadership).await;
    assert!(new.term > old.term);
    // Expiry is looked for every half second, and a bit more on a busy machine.
    let late = LEADER_TTL + std::time::Duration::from_secs(2);
    assert!(died.elapsed() < late, "{:?}", died.elapsed());
}

#[tokio::test]
async fn one_that_comes_back_at_its_own_address_does_not_wait_for_itself() {
    let site = Site::start().await;
    let mut first = stand(&site, "127.0.0.1:1");
    let old = mandate(&mut first.leadership).await;
    first.task.abort();
    let back = Instant::now();
    let mut again = stand(&site, "127.0.0.1:1");
    let new = mandate(&mut again.leadership).await;
    assert!(new.term > old.term);
    assert!(back.elapsed() < LEADER_TTL / 2, "{:?}", back.elapsed());
}

#[tokio::test]
async fn one_whose_key_is_deleted_steps_down_and_stands_again() {
    let site = Site::start().await;
    let mut only = stand(&site, "127.0.0.1:1");
    let old = mandate(&mut only.leadership).await;
    let delete = Txn { then: vec![Op::Delete(site.keys.leader())], ..Txn::default() };
    site.store.txn(&delete).await.expect("deleted");
    until(&mut only.leadership, "not the old mandate", |who| who.mandate() != Some(&old)).await;
    let new = mandate(&mut only.leadership).await;
    assert!(new.term > old.term);
}

#[tokio::test]
async fn a_leader_renews_and_goes_on_leading() {
    let site = Site::start().await;
    let mut only = stand(&site, "127.0.0.1:1");
    let held = mandate(&mut only.leadership).await;
    // Longer than the lease lives without renewals; the claim is that nothing changes, so time has to pass.
    let changed = tokio::time::timeout(LEADER_TTL + LEADER_TTL / 2, only.leadership.changed()).await;
    assert!(changed.is_err(), "{:?}", only.leadership.borrow());
    assert_eq!(only.leadership.borrow().mandate(), Some(&held));
}
