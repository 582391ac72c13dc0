//! Work that outlives its request: how much there is, and what becomes of it when the instance is told to stop.

use handover_proto::ids::InstanceId;
use handover_tests::billing::ledger::{Ledger, Writer};
use handover_tests::billing::traffic::jobs;
use hyper::StatusCode;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::agent::nobody;
use crate::process::{Billing, Place, until};

/// By the ledger's word; it is opened as a foreign checker would.
fn balance(place: &Place, what: impl Fn(&mut Ledger) -> i64) -> i64 {
    let writer = Writer { instance: InstanceId::random(), version: "0.0.0".parse().expect("a version") };
    let patience = std::time::Duration::from_secs(5);
    what(&mut Ledger::open(&place.path("ledger.db").into(), writer, patience).expect("the ledger"))
}

fn lost(place: &Place) -> i64 {
    balance(place, |ledger| jobs::lost(ledger).expect("balances"))
}

async fn with_a_job(place: &Place, ms: u64, flags: &[&str]) -> Billing {
    let billing = Billing::start(place, &nobody(&place.path("")), flags);
    let (status, _) = billing.post(&format!("/jobs?ms={ms}"), &json!(null), None).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    billing
}

#[tokio::test]
async fn a_job_is_shown_until_its_end_is_in_the_ledger() {
    let place = Place::new();
    let billing = with_a_job(&place, 300, &[]).await;
    assert_eq!(billing.get("/jobs").await.1["in_flight"], 1);
    assert_eq!(lost(&place), 1, "not finished yet");
    let began = std::time::Instant::now();
    while billing.get("/jobs").await.1["in_flight"] != 0 {
        assert!(began.elapsed().as_secs() < 30, "the job does not end");
    }
    assert_eq!(lost(&place), 0);
    assert_eq!(balance(&place, |ledger| ledger.balance(jobs::FINISHED).expect("balance")), 1);
}

#[tokio::test]
async fn an_instance_that_is_stopped_too_early_loses_its_job_visibly() {
    let place = Place::new();
    let mut billing = with_a_job(&place, 600_000, &[]).await;
    billing.signal(Signal::SIGTERM);
    assert_eq!(billing.wait().code(), Some(0), "it does not wait for jobs unless it is told to");
    assert_eq!(lost(&place), 1);
}

#[tokio::test]
async fn jobs_are_finished_as_far_as_the_instance_is_told() {
    let place = Place::new();
    let mut billing = with_a_job(&place, 500, &["--finish-jobs", "30s"]).await;
    let mut other = with_a_job(&place, 600_000, &["--finish-jobs", "100ms"]).await;
    billing.signal(Signal::SIGTERM);
    other.signal(Signal::SIGTERM);
    assert_eq!((billing.wait().code(), other.wait().code()), (Some(0), Some(0)));
    assert_eq!(lost(&place), 1, "the one that takes longer than it is given");
}

#[tokio::test]
async fn a_job_of_a_killed_instance_is_lost() {
    let place = Place::new();
    let mut billing = with_a_job(&place, 600_000, &["--finish-jobs", "30s"]).await;
    billing.signal(Signal::SIGKILL);
    billing.wait();
    until("the loss to show", || lost(&place) == 1).await;
}
