//! When probes look, and what is published.

use std::time::Duration;

use handover_agent::probe::Affects;

use crate::stage::{Server, eventually, start, start_in, until};

const NEVER_AGAIN: &str = "http = { path = \"/\" }\ninterval = \"1h\"\ntimeout = \"1s\"\nstart_interval = ";

#[tokio::test]
async fn it_looks_at_once_and_quickly_until_the_first_success() {
    let server = Server::answering("503 Starting", "").await;
    // Were the interval used from the beginning, the second look would come in an hour.
    let runner = start(server.port, &format!("{NEVER_AGAIN}\"5ms\""));
    eventually("it looks again and again", || server.requests().len() > 3).await;
    assert!(!runner.readiness().borrow().ready);
    server.answer("200 OK", "");
    let ready = until(&runner, "ready", |r| r.ready).await;
    assert_eq!(ready.conditions[0].reading, "200 OK");
    let asked = server.requests().len();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.requests().len(), asked, "from then on the interval counts");
}

#[tokio::test]
async fn it_looks_out_of_turn_when_something_has_happened_also_in_the_middle_of_a_look() {
    let server = Server::answering("503 Starting", "").await;
    let runner = start(server.port, &format!("{NEVER_AGAIN}\"1h\""));
    until(&runner, "a look", |r| r.conditions[0].reading != "not probed yet").await;
    server.answer("200 OK", "");
    runner.look_now();
    until(&runner, "ready", |r| r.ready).await;

    let server = Server::answering("503 Starting", "").await;
    server.hang_after("");
    let runner = start(server.port, &format!("{NEVER_AGAIN}\"1h\""));
    eventually("it looks", || server.requests().len() == 1).await;
    // This look fails by its time limit.
    server.answer("200 OK", "");
    runner.look_now();
    until(&runner, "ready", |r| r.ready).await;
    assert_eq!(server.requests().len(), 2, "it has looked twice");
}

#[tokio::test]
async fn it_falls_after_the_threshold_and_says_since_when() {
    let server = Server::answering("200 OK", "").await;
    let check = "http = { path = \"/\" }\ninterval = \"100ms\"\ntimeout = \"100ms\"\nfall = 3";
    let runner = start(server.port, check);
    let ready = until(&runner, "ready", |r| r.ready).await;
    let before = server.requests().len();
    server.answer("503 Draining", "");
    let fallen = until(&runner, "not ready", |r| !r.ready).await;
    assert!(server.requests().len() >= before + 3, "one bad answer is not enough");
    assert!(fallen.conditions[0].since > ready.conditions[0].since && !fallen.conditions[0].met);
    server.answer("200 OK", "");
    let held = until(&runner, "held back", |r| r.held_until.is_some()).await;
    assert!(!held.ready && held.conditions[0].met);
    assert_eq!(held.held_until, Some(ready.conditions[0].since + Duration::from_secs(10)));
    until(&runner, "ready again", |r| r.ready).await;
}

#[tokio::test]
async fn every_condition_is_published_by_name_in_the_order_of_the_config() {
    let server = Server::answering("200 OK", "{\"leader\": false}").await;
    let probes = [
        "name = \"app\"\naffects = \"ready\"\ntcp = {}",
        "name = \"up\"\naffects = \"live\"\nhttp = { path = \"/health\" }",
        "name = \"lease\"\naffects = \"report\"\nhttp = { path = \"/status\", field = \"leader\" }",
    ];
    let runner = start_in("/nonexistent".as_ref(), server.port, &probes);
    let seen = until(&runner, "all", |r| r.conditions.iter().all(|c| c.reading != "not probed yet")).await;
    let named: Vec<_> = seen.conditions.iter().map(|c| (c.name.as_str(), c.affects, c.met)).collect();
    assert_eq!(named, [("app", Affects::Ready, true), ("up", Affects::Live, true), ("lease", Affects::Report, false)]);
    assert!(seen.ready && seen.live, "what is only reported takes nothing away");
}

#[tokio::test]
async fn an_agent_that_was_held_up_itself_takes_no_traffic_away() {
    let server = Server::answering("200 OK", "").await;
    let check = "http = { path = \"/\" }\ninterval = \"200ms\"\ntimeout = \"200ms\"\nfall = 1";
    let runner = start(server.port, check);
    until(&runner, "ready", |r| r.ready).await;
    let asked = server.requests().len();
    server.hang_after("");
    eventually("a look is under way", || server.requests().len() > asked).await;
    // Agent and server share this thread, which now stands still as a stopped agent does.
    std::thread::sleep(Duration::from_millis(900));
    server.answer("200 OK", "");
    let kept = until(&runner, "a kept reading", |r| r.conditions[0].reading.contains("the agent itself was")).await;
    assert!(kept.ready && kept.conditions[0].reading.starts_with("200 OK (kept;"), "{kept:?}");
    let seen = until(&runner, "a fresh reading", |r| r.conditions[0].reading == "200 OK").await;
    assert!(seen.ready);
}

#[tokio::test]
async fn probing_ends_with_the_runner_and_its_readers_learn_it() {
    let server = Server::answering("200 OK", "").await;
    let runner = start(server.port, "http = { path = \"/\" }\ninterval = \"10ms\"\ntimeout = \"10ms\"");
    until(&runner, "ready", |r| r.ready).await;
    let mut readiness = runner.readiness();
    drop(runner);
    while readiness.changed().await.is_ok() {}
    let asked = server.requests().len();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(server.requests().len() <= asked + 1, "at most the one that was under way");
}
