//! The crowd, straight at billing: every kind is answered, an orderly end is told from a loss, and a planted fault is found.

use std::time::{Duration, Instant};

use handover_tests::load::crowd::{Counts, Crowd, CrowdReceipt, CrowdSpec, Kind};
use nix::sys::signal::Signal;

use crate::agent::nobody;
use crate::cutter::{Cut, Cutter};
use crate::process::{Billing, Place, until};

fn start(place: &Place) -> Billing {
    Billing::start(place, &nobody(&place.path("")), &[])
}

async fn every_kind(crowd: &Crowd, what: &str, met: impl Fn(Kind, &Counts) -> bool) {
    let missing = || Kind::ALL.into_iter().find(|kind| !met(*kind, &crowd.receipt().of(*kind)));
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Some(kind) = missing() {
        assert!(Instant::now() < deadline, "never {what} for {kind:?}:\n{}", crowd.receipt());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Stopping waits for clients, and their answers for this thread's proxy, if there is one.
async fn stop(crowd: Crowd) -> CrowdReceipt {
    tokio::task::spawn_blocking(|| crowd.stop()).await.expect("a thread").expect("a receipt")
}

fn accounted(receipt: &CrowdReceipt) {
    for (kind, counts) in &receipt.kinds {
        let ended = counts.answered + counts.returned + counts.lost;
        assert_eq!(counts.sent, ended, "every request of {kind:?} has one end:\n{receipt}");
    }
}

#[tokio::test]
async fn every_kind_is_answered_and_nothing_is_lost() {
    let place = Place::new();
    let billing = start(&place);
    let spec = CrowdSpec { pauses: 0.3, ..CrowdSpec::small(billing.address) };
    let crowd = Crowd::start(spec).expect("a crowd");
    every_kind(&crowd, "answered", |kind, counts| match kind {
        Kind::Events => counts.pushed > 10,
        Kind::Upload | Kind::Download | Kind::Idle => counts.answered >= 3,
        _ => counts.answered > 20,
    })
    .await;
    let receipt = stop(crowd).await;
    accounted(&receipt);
    assert!(receipt.is_clean(), "{receipt}");
    assert_eq!(receipt.sum(|c| c.announced + c.idle + c.returned), 0, "nobody was sent away:\n{receipt}");
    for kind in [Kind::KeepAlive, Kind::Upload, Kind::WebSocket, Kind::GrpcStream, Kind::Http2] {
        let clients = (CrowdSpec::full(billing.address).clients[&kind] / 8).max(1) as u64;
        assert_eq!(receipt.of(kind).opened, clients, "one connection for each client of {kind:?}:\n{receipt}");
    }
}

#[tokio::test]
async fn an_instance_that_is_told_to_stop_ends_everything_in_good_order() {
    let place = Place::new();
    let mut billing = start(&place);
    let spec = CrowdSpec { pauses: 0.3, ..CrowdSpec::small(billing.address) };
    // HTTP/1.1 without a gate: a request may meet the closing of its idle connection. That is the gate's to prevent.
    let racing = [Kind::KeepAlive, Kind::Idle, Kind::Upload, Kind::Download];
    let streams = [Kind::Http2, Kind::GrpcUnary, Kind::GrpcStream, Kind::WebSocket, Kind::Events];
    let crowd = Crowd::start(spec.without(&racing)).expect("a crowd");
    every_kind(&crowd, "opened", |kind, counts| counts.answered + counts.pushed > 1 || racing.contains(&kind)).await;
    billing.signal(Signal::SIGTERM);
    assert_eq!(billing.wait().code(), Some(0));
    until("ends", || streams.iter().all(|kind| crowd.receipt().of(*kind).announced > 0)).await;
    let receipt = stop(crowd).await;
    accounted(&receipt);
    assert_eq!(receipt.sum(|counts| counts.dropped), 0, "{receipt}");
    // Nobody listens there any more: that is lost, and nothing else.
    let others: Vec<_> = receipt.losses.iter().filter(|loss| !loss.detail.contains("connecting: ")).collect();
    assert!(others.is_empty(), "{others:?}");
}

/// Cuts again and again until every kind has lost something, and shows how.
async fn cut_until_all_have_lost(how: Cut) -> CrowdReceipt {
    let place = Place::new();
    let billing = start(&place);
    let cutter = Cutter::start(billing.address, how).await;
    let spec = CrowdSpec { pauses: 0.05, ..CrowdSpec::small(cutter.address) };
    let crowd = Crowd::start(spec).expect("a crowd");
    let begun = |counts: &Counts| counts.answered + counts.pushed > 0;
    every_kind(&crowd, "answered", |_, counts| begun(counts)).await;
    assert!(crowd.receipt().is_clean(), "before the first cut:\n{}", crowd.receipt());
    let deadline = Instant::now() + Duration::from_secs(60);
    let found = |counts: &Counts| counts.lost > 0 && counts.dropped > 0;
    while !Kind::ALL.into_iter().all(|kind| found(&crowd.receipt().of(kind))) {
        assert!(Instant::now() < deadline, "a kind of loss is not seen:\n{}", crowd.receipt());
        cutter.cut();
        // Time for clients to come back and to have something under way.
        tokio::time::sleep(Duration::from_millis(rand::random_range(50..250))).await;
    }
    let receipt = stop(crowd).await;
    accounted(&receipt);
    receipt
}

#[tokio::test]
async fn connections_that_are_reset_are_counted_as_lost_for_every_kind() {
    let receipt = cut_until_all_have_lost(Cut::Reset).await;
    assert_eq!(receipt.sum(|counts| counts.announced), 0, "{receipt}");
}

#[tokio::test]
async fn connections_that_end_in_the_middle_are_counted_as_lost_for_every_kind() {
    let receipt = cut_until_all_have_lost(Cut::Fin).await;
    assert_eq!(receipt.sum(|counts| counts.announced), 0, "{receipt}");
    assert!(
        receipt.of(Kind::Idle).idle + receipt.of(Kind::KeepAlive).idle > 0,
        "some had nothing under way:\n{receipt}"
    );
}
