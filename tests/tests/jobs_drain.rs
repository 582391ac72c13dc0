//! The drain ledger's line *jobs* on real processes: an instance is not stopped while it has work that no request shows, nor
//! while it cannot say how much. The counter-test stops it too early, and the loss is found.
#![allow(clippy::expect_used, clippy::panic)]

use std::time::Duration;

use handover_proto::assignment::{AtDeadline, DrainPolicy};
use handover_tests::switch::{Jobs, Site};
use serde_json::Value;

/// The instance that has the traffic next, so that the other can be stopped.
fn site_with_a_job(jobs: Jobs) -> Site {
    let mut site = Site::start("", jobs).expect("a site");
    site.switch().expect("switched");
    site.settled().expect("settled");
    site.start_a_job().expect("a job");
    site
}

fn waits_for(status: &Value, kind: &str, words: &str) -> bool {
    let blocker = &status["blocker"];
    blocker["kind"] == kind && blocker["waiting_for"].as_str().is_some_and(|why| why.contains(words))
}

#[test]
fn an_instance_with_a_job_is_stopped_when_the_job_has_ended_and_not_before() {
    let mut site = site_with_a_job(Jobs::default());
    site.stop_idle().expect("to stop");
    site.wait_for("the job to hold the drain", |status| waits_for(status, "drain", "1 jobs")).expect("a reason");
    let lines = site.status().expect("a status")["slots"][0]["instance"]["drain"]["lines"].clone();
    let jobs = lines.as_array().and_then(|lines| lines.iter().find(|line| line["kind"] == "jobs"));
    assert_eq!(jobs.map(|line| line["count"].clone()), Some(1.into()), "{lines}");
    site.settled().expect("stopped");
    assert_eq!(site.lost_jobs().expect("the ledger"), 0);
}

#[test]
fn a_drain_that_does_not_ask_for_jobs_loses_one_and_it_is_counted() {
    let mut site = site_with_a_job(Jobs { policy: "deadline = \"1ms\"\nat_deadline = \"cut\"", ..Jobs::default() });
    site.stop_idle().expect("to stop");
    site.settled().expect("stopped");
    assert_eq!(site.lost_jobs().expect("the ledger"), 1);
}

#[test]
fn jobs_that_cannot_be_counted_hold_the_drain_with_a_reason_of_their_own() {
    let mut site = Site::start("", Jobs { path: "/no-jobs", ..Jobs::default() }).expect("a site");
    site.switch().expect("switched");
    site.settled().expect("settled");
    // The assignment's policy would cut at once what may be cut.
    site.set_drain(DrainPolicy { deadline_ms: 1, at_deadline: AtDeadline::Cut, over_all: false });
    site.stop_idle().expect("to stop");
    site.wait_for("a reason", |status| waits_for(status, "uncounted", "jobs that are not known (jobs: 404"))
        .expect("the reason");
    let end = std::time::Instant::now() + Duration::from_secs(1);
    while std::time::Instant::now() < end {
        assert!(!site.status().expect("a status")["slots"][0]["instance"].is_null(), "it was stopped all the same");
        std::thread::sleep(Duration::from_millis(20));
    }
}
