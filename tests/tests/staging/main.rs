//! Versions are brought to a fleet ahead of their window: by `handover stage`, and by a rollout before it begins.
#![allow(clippy::expect_used, clippy::panic)]

mod server;
mod site;

use std::time::{Duration, Instant};

use handover_tests::fleet::Spec;
use nix::fcntl::{Flock, FlockArg};

use site::{FILES, Site};

const HOSTS: [&str; 3] = ["app-01", "app-02", "app-03"];

#[test]
fn what_was_staged_ahead_is_rolled_out_without_fetching_again_whoever_died_meanwhile() {
    let mut site = Site::serving();
    assert_eq!(site.server.asked("1.0.0"), 3 * FILES, "each host fetched each file once, and the rollout none");
    site.publish("1.1.0");
    let serves = site.serves();
    let (held, host) = ("app-01/1.1.0/data", HOSTS[0]);
    site.server.hold(held);
    let begun = site.stage(&["1.1.0", "--detach"]);
    assert_eq!(begun.code, 0, "{}{}", begun.out, begun.err);
    let half = |site: &Site| {
        Ok(site.row(host)?["state"] == "fetching" && site.row(host)?["done_bytes"].as_u64() > Some(100_000))
    };
    let others = |site: &Site| Ok(site.row(HOSTS[1])?["state"] == "staged" && site.row(HOSTS[2])?["state"] == "staged");
    site.fleet.wait_for("half of the file", |_| half(&site)).expect("fetching");
    site.fleet.wait_for("the other hosts", |_| others(&site)).expect("staged");
    let total = site.row(host).expect("a row")["total_bytes"].as_u64();
    assert!(total > Some(1_000_000), "the manifest says how much it is: {total:?}");
    let again = site.stage(&["1.1.0"]);
    assert_eq!(again.code, 5, "one at a time: {}{}", again.out, again.err);

    site.fleet.hosts[0].agent.as_mut().expect("an agent").kill().expect("killed");
    let away = |site: &Site| Ok(site.row(host)?["state"] == "away" && site.row(host)?["reason"] == "agent-silent");
    site.fleet.wait_for("the host to be missed", |_| away(&site)).expect("away");
    let why = site.fleet.cli().run(&["why"]).expect("why").out;
    assert!(why.contains("agent-silent") && why.contains("app-01 to stage 1.1.0"), "{why}");
    site.fleet.coordinators[0].kill().expect("killed");
    site.fleet.start_coordinator().expect("another coordinator");
    site.fleet.start_agent(0).expect("started again");
    site.fleet.wait_for("it to begin again", |_| Ok(site.server.asked(held) == 2)).expect("asked again");
    site.server.release(held);
    let done = |site: &Site| Ok(site.order()?["state"] == "done");
    site.fleet.wait_for("the staging to be done", |_| done(&site)).expect("done");

    (0..3).for_each(|index| assert_eq!(site.built(index), ["1.0.0", "1.1.0"], "nothing half is left behind"));
    assert_eq!(site.serves(), serves, "what serves was not touched");
    let asked = site.server.asked("");
    let outcome = site.fleet.cli().roll(&Spec::to("1.1.0")).expect("a command");
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
    assert_eq!(site.server.asked(""), asked, "everything was there");
}

#[test]
fn a_host_that_cannot_stage_says_why_and_neither_a_staging_nor_a_rollout_touches_what_serves() {
    let mut site = Site::serving();
    site.configure(2, "keep_free_bytes = 1000000", "keep_free_bytes = 1000000000000000000");
    site.publish("1.1.0");
    site.server.spoil("app-01/1.1.0/data");
    site.server.miss("app-02/1.1.0/handover-manifest.json.minisig");
    let serves = site.serves();
    let refused = site.stage(&["1.1.0"]);
    assert_eq!(refused.code, 4, "{}{}", refused.out, refused.err);
    for (host, kind, why) in [
        (HOSTS[0], "artifact", "data is not as the manifest says"),
        (HOSTS[1], "artifact", "handover-manifest.json is not signed"),
        (HOSTS[2], "space", "keep_free_bytes"),
    ] {
        let line = refused.out.lines().find(|line| line.contains(&format!("{host} refuses 1.1.0 ({kind})")));
        assert!(line.is_some_and(|line| line.contains(why)), "{host}: {}", refused.out);
    }
    assert_eq!(site.server.asked("app-03/1.1.0"), 2, "the disk is asked before any file is");

    let outcome = site.fleet.cli().roll(&Spec::to("1.1.0")).expect("a command");
    assert_eq!(outcome.code, 4, "{}{}", outcome.out, outcome.err);
    let reason = site.fleet.cli().status().expect("a status")["rollout"]["reason"].to_string();
    assert!(reason.contains("nothing was touched: app-0"), "{reason}");
    (0..3).for_each(|index| assert_eq!(site.built(index), ["1.0.0"]));
    assert_eq!(site.serves(), serves);

    site.server.mend();
    let some = site.stage(&["1.1.0", "--host", "app-01", "--host", "app-02"]);
    assert_eq!(some.code, 0, "{}{}", some.out, some.err);
    let fetched = site.server.asked("app-01");
    site.configure(2, "keep_free_bytes = 1000000000000000000", "keep_free_bytes = 1000000");
    let outcome = site.fleet.cli().roll(&Spec::to("1.1.0")).expect("a command");
    assert_eq!(outcome.code, 0, "the rollout fetches what is not there: {}{}", outcome.out, outcome.err);
    assert_eq!(site.server.asked("app-01"), fetched, "and only that");
    (0..3).for_each(|index| assert_eq!(site.built(index), ["1.0.0", "1.1.0"]));
}

/// The lock of the third host; its agent may still be clearing away.
fn staging_by_hand(site: &Site) -> Flock<std::fs::File> {
    let path = site.fleet.hosts[2].builds.join(".handover-stage.lock");
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let lock = std::fs::File::create(&path).expect("a lock");
        match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
            Ok(held) => return held,
            Err((_, error)) => assert!(Instant::now() < until, "somebody goes on staging: {error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_staging_that_is_taken_back_stops_and_leaves_nothing_half() {
    let site = Site::new();
    site.publish("1.0.0");
    let held = "app-02/1.0.0/data";
    site.server.hold(held);
    assert_eq!(site.stage(&["1.0.0", "--detach"]).code, 0);
    let fetching = |site: &Site| Ok(site.row(HOSTS[1])?["state"] == "fetching" && site.server.asked(held) == 1);
    site.fleet.wait_for("the file to come", |_| fetching(&site)).expect("fetching");
    let cancelled = site.stage(&["--cancel"]);
    assert_eq!(cancelled.code, 0, "{}{}", cancelled.out, cancelled.err);
    let stopped = |site: &Site| Ok(site.built(1).is_empty());
    site.fleet
        .wait_within(Duration::from_secs(20), "what has come to be cleared away", |_| stopped(&site))
        .expect("empty");
    assert_eq!(site.order().expect("an order")["state"], "undone");
    let by_hand = staging_by_hand(&site);
    let timed_out = site.fleet.cli().run(&["--timeout", "1s", "stage", "1.0.0"]).expect("a command");
    assert_eq!(timed_out.code, 6, "it goes on: {}{}", timed_out.out, timed_out.err);
    site.server.release(held);
    let waits = |site: &Site| Ok(site.row(HOSTS[2])?["state"] == "waiting" && site.row(HOSTS[1])?["state"] == "staged");
    site.fleet.wait_for("a staging by hand to be waited for", |_| waits(&site)).expect("waiting");
    drop(by_hand);
    let done = |site: &Site| Ok(site.order()?["state"] == "done");
    site.fleet.wait_for("the staging to be done", |_| done(&site)).expect("done");
}
