//! The service's obligations A1 to A5 and A8, each seen from outside: in the ledger and in the activity file.

use std::time::Duration;

use handover_tests::billing::activity::{Event, UnitEnd, Why};
use handover_tests::billing::contract::{Answer, Told};
use handover_tests::clock::BootNs;
use handover_tests::receipt::{fence, rows::What, ticks};
use hyper::StatusCode;
use nix::sys::signal::Signal;

use crate::agent::{FakeAgent, Pulls, active, lasting, nobody, record};
use crate::process::{Billing, Place, is_unit_start, until};

fn unit_ended(end: UnitEnd) -> impl Fn(&handover_tests::billing::activity::Line) -> bool {
    move |line| matches!(line.event, Event::UnitEnd { end: found, .. } if found == end)
}

fn inactive(why: Why) -> impl Fn(&handover_tests::billing::activity::Line) -> bool {
    move |line| line.event == Event::Inactive { why }
}

#[tokio::test]
async fn it_starts_stopped_and_installs_the_token_before_its_first_unit() {
    let place = Place::new();
    let agent = FakeAgent::start(place.path("agent.sock"));
    let billing = Billing::start(&place, &agent.socket, &[]);
    let (status, ready) = billing.get("/ready").await;
    assert_eq!((status, &ready["holding"]), (StatusCode::OK, &serde_json::Value::Null));
    assert_eq!((place.ledger().commits.len(), agent.pulled()), (0, 0), "nothing before ACTIVE");

    let ack = billing.push(&active(&billing.instance, 1, 48)).await;
    assert_eq!((ack.state, ack.token.map(String::from).as_deref()), (Answer::Started, Some("48")));
    assert_eq!((ack.seq, ack.in_flight, ack.c_unit_ms), (1, 0, 500));
    assert_eq!(place.ledger().commits[0].what, What::Install, "installed when STARTED came");
    until("ten ticks", || place.charges().len() >= 10).await;
    let ledger = place.ledger();
    assert_eq!(fence::check(&ledger.commits).violations, Vec::<String>::new());
    let report = ticks::check(&ledger.commits, ledger.schedule, BootNs(0));
    assert_eq!((report.doubled, report.holes), (0, 0));
    assert_eq!(billing.get("/ready").await.1["holding"], "48");
}

#[tokio::test]
async fn silence_ends_the_right_to_work_at_the_soft_deadline() {
    let place = Place::new();
    let agent = FakeAgent::start(place.path("agent.sock"));
    let billing = Billing::start(&place, &agent.socket, &[]);
    let record = lasting(&record(&billing.instance, Told::Active, 1, 48), Duration::from_millis(400));
    let soft = BootNs(record.soft_deadline_boot_ns);
    billing.push(&record).await;
    until("work", || !place.charges().is_empty()).await;
    until("the end by silence", || place.has(inactive(Why::Silence))).await;
    // Ten more ticks would be due.
    until("ten ticks of time", || BootNs::now() > soft.after(Duration::from_millis(200))).await;
    let activity = place.activity();
    let last_start = activity.iter().rfind(|line| is_unit_start(line)).expect("units").at_boot_ns;
    assert!(last_start < soft, "a unit started at {last_start}, after {soft}");
    assert!(agent.pulled() > 0, "it asked, and got no answer");
    assert_eq!(activity.last().map(|line| line.event), Some(Event::Inactive { why: Why::Silence }));
}

#[tokio::test]
async fn a_process_that_was_frozen_over_its_soft_deadline_starts_no_unit_when_it_thaws() {
    let place = Place::new();
    let billing = Billing::start(&place, &nobody(&place.path("")), &["--tick", "400ms"]);
    let record = lasting(&record(&billing.instance, Told::Active, 1, 48), Duration::from_millis(600));
    let soft = BootNs(record.soft_deadline_boot_ns);
    billing.push(&record).await;
    until("the first tick", || place.has(unit_ended(UnitEnd::Charged))).await;
    billing.signal(Signal::SIGSTOP);
    let waiting = place.activity();
    assert_eq!(waiting.iter().filter(|line| is_unit_start(line)).count(), 1, "frozen while it waits for the second");
    until("the second tick is due and the deadline over", || BootNs::now() > soft.after(Duration::from_millis(50)))
        .await;
    billing.signal(Signal::SIGCONT);
    until("the end by silence", || place.has(inactive(Why::Silence))).await;
    let activity = place.activity();
    assert_eq!(activity.iter().filter(|line| is_unit_start(line)).count(), 1);
    assert_eq!(
        activity.last().map(|line| line.at_boot_ns),
        Some(soft),
        "its right ended at the deadline, not at the thaw"
    );
}

#[tokio::test]
async fn a_pull_extends_the_right_and_a_failing_one_changes_nothing() {
    let place = Place::new();
    let agent = FakeAgent::start(place.path("agent.sock"));
    let billing = Billing::start(&place, &agent.socket, &[]);
    let record = record(&billing.instance, Told::Active, 1, 48);
    agent.answers(Pulls::Extend(record.clone(), Duration::from_secs(3)));
    let pushed = lasting(&record, Duration::from_secs(2));
    billing.push(&pushed).await;
    let first_soft = BootNs(pushed.soft_deadline_boot_ns);
    let beyond = first_soft.after(Duration::from_millis(500));
    until("work beyond the first deadline", || place.charges().iter().any(|charge| charge.at > beyond)).await;
    assert!(!place.has(inactive(Why::Silence)), "never interrupted");
    agent.answers(Pulls::Silence);
    until("the end by silence", || place.has(inactive(Why::Silence))).await;
    agent.answers(Pulls::Extend(record, Duration::from_secs(3)));
    let so_far = place.charges().len();
    until("work again once it is heard again", || place.charges().len() > so_far).await;
}

#[tokio::test]
async fn quiesced_is_said_only_when_the_unit_in_flight_has_ended() {
    let place = Place::new();
    let agent = FakeAgent::start(place.path("agent.sock"));
    let billing = Billing::start(&place, &agent.socket, &["--fault", "unit=300ms"]);
    billing.push(&active(&billing.instance, 1, 48)).await;
    until("a unit in flight", || place.has(is_unit_start)).await;
    assert!(!place.has(unit_ended(UnitEnd::Charged)), "precondition: the unit is still in flight");
    let ack = billing.push(&record(&billing.instance, Told::Quiesce, 2, 48)).await;
    assert_eq!((ack.state, ack.in_flight), (Answer::Quiesced, 0));
    let activity = place.activity();
    let starts = activity.iter().filter(|line| is_unit_start(line)).count();
    let ends = activity.iter().filter(|line| unit_ended(UnitEnd::Charged)(line)).count();
    assert_eq!((starts, ends), (1, 1), "it ended, and none was started after it");
    assert_eq!(activity.last().map(|line| line.event), Some(Event::Inactive { why: Why::Quiesced }));
}

#[tokio::test]
async fn the_agent_hears_how_far_the_work_is_and_which_token_the_ledger_holds() {
    let place = Place::new();
    let agent = FakeAgent::start(place.path("agent.sock"));
    let billing = Billing::start(&place, &agent.socket, &["--c-unit", "400ms"]);
    let stopped = billing.push(&record(&billing.instance, Told::Stopped, 1, 47)).await;
    assert_eq!((stopped.stored_token, stopped.progress, stopped.in_flight), (None, 0, 0));
    assert_eq!((stopped.progress_interval_ms, stopped.statement_timeout_ms), (200, 240));
    let started = billing.push(&active(&billing.instance, 2, 48)).await;
    assert_eq!(started.stored_token, Some(token(48)));
    until("two units", || place.charges().len() >= 2).await;
    assert!(billing.push(&active(&billing.instance, 3, 48)).await.progress >= 2);
}

#[tokio::test]
async fn in_a_unit_that_hangs_the_agent_is_answered_without_progress() {
    let place = Place::new();
    let agent = FakeAgent::start(place.path("agent.sock"));
    let billing = Billing::start(&place, &agent.socket, &["--fault", "unit=600s"]);
    billing.push(&active(&billing.instance, 1, 48)).await;
    until("a unit in flight", || place.has(is_unit_start)).await;
    for seq in 2..4 {
        let ack = billing.push(&active(&billing.instance, seq, 48)).await;
        assert_eq!((ack.state, ack.in_flight, ack.progress), (Answer::Started, 1, 0));
    }
}

#[tokio::test]
async fn quiesced_is_final_until_a_new_active() {
    let place = Place::new();
    let agent = FakeAgent::start(place.path("agent.sock"));
    let billing = Billing::start(&place, &agent.socket, &[]);
    billing.push(&active(&billing.instance, 1, 48)).await;
    until("work", || !place.charges().is_empty()).await;
    assert_eq!(billing.push(&record(&billing.instance, Told::Quiesce, 3, 48)).await.state, Answer::Quiesced);
    let stale = billing.push(&active(&billing.instance, 2, 48)).await;
    assert_eq!(stale.state, Answer::Failed);
    assert!(stale.detail.contains("stale"), "{}", stale.detail);
    let repeated = billing.push(&record(&billing.instance, Told::Quiesce, 3, 48)).await;
    assert_eq!(repeated.state, Answer::Quiesced, "the agent may ask again");
    let so_far = place.charges().len();
    assert_eq!(billing.push(&active(&billing.instance, 4, 48)).await.state, Answer::Started);
    until("work under the same token", || place.charges().len() > so_far).await;
    assert_eq!(fence::check(&place.ledger().commits).installs, 1, "the token was installed once");
}

#[tokio::test]
async fn the_old_holders_late_unit_aborts_at_the_fence() {
    let place = Place::new();
    let socket = nobody(&place.path(""));
    let old = Billing::start(&place, &socket, &["--fault", "unit=400ms"]);
    let new = Billing::start(&place, &socket, &[]);
    assert_eq!(old.push(&active(&old.instance, 1, 1)).await.state, Answer::Started);
    until("the old one's unit in flight", || place.has(is_unit_start)).await;
    assert_eq!(new.push(&active(&new.instance, 1, 2)).await.state, Answer::Started);
    assert!(!place.has(|line| line.token == token(1) && matches!(line.event, Event::UnitEnd { .. })));
    until("the late unit's end", || place.has(unit_ended(UnitEnd::Fenced))).await;
    until("work of the new one", || place.charges().len() >= 5).await;
    assert!(place.charges().iter().all(|charge| charge.token == 2), "nothing under the old token");
    assert_eq!(fence::check(&place.ledger().commits).violations, Vec::<String>::new());
    let (status, ready) = old.get("/ready").await;
    assert_eq!((status, &ready["lease"]), (StatusCode::OK, &"fenced".into()), "reported, takes no traffic away");
    let ack = old.push(&active(&old.instance, 2, 1)).await;
    assert_eq!(ack.state, Answer::Failed);
    assert!(ack.detail.contains("FENCED"), "{}", ack.detail);
}

fn token(number: i64) -> handover_tests::billing::contract::Token {
    number.try_into().expect("token")
}

#[tokio::test]
async fn told_fenced_stopped_or_unknown_it_stops() {
    for (state, why) in [(Told::Fenced, Why::Fenced), (Told::Stopped, Why::Stopped), (Told::Unknown, Why::Unknown)] {
        let place = Place::new();
        let billing = Billing::start(&place, &nobody(&place.path("")), &[]);
        billing.push(&active(&billing.instance, 1, 48)).await;
        until("work", || !place.charges().is_empty()).await;
        assert_eq!(billing.push(&record(&billing.instance, state, 2, 48)).await.state, Answer::Quiesced);
        assert_eq!(place.activity().last().map(|line| line.event), Some(Event::Inactive { why }));
    }
}

#[tokio::test]
async fn a_record_for_another_instance_is_refused() {
    let place = Place::new();
    let billing = Billing::start(&place, &nobody(&place.path("")), &[]);
    let other = handover_proto::ids::InstanceId::random();
    let record = serde_json::to_value(active(&other, 1, 48)).expect("json");
    let (status, why) = billing.post("/handover/lease", &record, None).await;
    assert_eq!(status, StatusCode::CONFLICT, "{why}");
    assert_eq!(place.ledger().commits.len(), 0);
}

#[tokio::test]
async fn from_an_agent_with_another_clock_only_a_pull_gives_the_deadline() {
    let place = Place::new();
    let agent = FakeAgent::start(place.path("agent.sock"));
    let billing = Billing::start(&place, &agent.socket, &[]);
    let mut foreign = active(&billing.instance, 1, 48);
    foreign.time_ns = "time:[1]".to_owned();
    foreign.remaining_soft_ms = 300;
    foreign.remaining_hard_ms = 800;
    let json = serde_json::to_value(&foreign).expect("json");
    let (status, why) = billing.post("/handover/lease", &json, None).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "no answer to the pull, so no deadline: {why}");
    assert_eq!(place.ledger().commits.len(), 0);

    agent.answers(Pulls::Fixed(foreign.clone()));
    let asked = BootNs::now();
    assert_eq!(billing.push(&foreign).await.state, Answer::Started);
    agent.answers(Pulls::Silence);
    until("the end by silence", || place.has(inactive(Why::Silence))).await;
    let activity = place.activity();
    let last_start = activity.iter().rfind(|line| is_unit_start(line)).expect("units").at_boot_ns;
    // Two pulls may have been answered: the one of the push, and the first while holding, at once after it.
    assert!(last_start.since(asked) < Duration::from_millis(1000), "{:?}", last_start.since(asked));
}

#[tokio::test]
async fn sigterm_ends_scheduling_and_leaves_no_unit_open() {
    let place = Place::new();
    let mut billing = Billing::start(&place, &nobody(&place.path("")), &["--fault", "unit=50ms"]);
    billing.push(&active(&billing.instance, 1, 48)).await;
    until("work", || place.has(unit_ended(UnitEnd::Charged))).await;
    billing.signal(Signal::SIGTERM);
    assert!(billing.wait().success());
    let activity = place.activity();
    let starts = activity.iter().filter(|line| is_unit_start(line)).count();
    let ends = activity.iter().filter(|line| matches!(line.event, Event::UnitEnd { .. })).count();
    assert_eq!(starts, ends);
    assert_eq!(activity.last().map(|line| line.event), Some(Event::Inactive { why: Why::Terminated }));
}
