//! The binary: `serve`, `store`, and how commands end.

#![allow(clippy::expect_used, clippy::panic, reason = "a test may")]

mod site;

use std::os::unix::process::ExitStatusExt as _;

use handover::rollout::Rollout;
use handover::serve::LEADER_TTL;
use handover_proto::keys::EnvKeys;
use site::agent::{Mood, Scripted};
use site::process::{Daemon, Stray, free, handover, text};
use site::{PATIENCE, Site, service, spec, until};
use tokio::time::Instant;

const NOTHING: (&str, &str) = ("HANDOVER_LOG", "info");

/// `handover serve` on the site's store.
fn serve(site: &Site, listen: &str, env: (&str, &str)) -> Daemon {
    let store = site.address.to_string();
    Daemon::start(&["--store", &store, "--env", "demo", "serve", "--listen", listen], env)
}

#[tokio::test]
async fn the_embedded_store_outlives_the_coordinator_and_is_used_again() {
    let data = tempfile::tempdir().expect("a directory");
    let (listen, store) = (free().to_string(), free().to_string());
    let dir = data.path().join("data").display().to_string();
    let args = ["--env", "demo", "serve", "--listen", &listen, "--data", &dir, "--store-listen", &store];
    let (first, line) = Daemon::start(&args, NOTHING).until_it_says("started the embedded store").await;
    let stray = Stray::named_in(&line);
    assert!(line.contains("a single node without replication"), "{line}");
    let (first, _) = first.until_it_says("leading").await;
    first.kill();
    assert!(stray.runs(), "the store is a process of its own");

    let again = Instant::now();
    let second = Daemon::start(&args, NOTHING);
    let (second, _) = second.until_it_says("using the embedded store that runs already").await;
    let (second, _) = second.until_it_says("leading").await;
    assert!(again.elapsed() < LEADER_TTL, "its predecessor's key is no reason to wait: {:?}", again.elapsed());

    let other = handover(&["store", "--data", &dir, "--listen", &free().to_string()]).await;
    assert_eq!(other.status.code(), Some(1), "a second store on the same data: {}", text(&other.stderr));
    second.kill();
}

#[tokio::test]
async fn a_store_that_dies_is_brought_back() {
    let data = tempfile::tempdir().expect("a directory");
    let (listen, store) = (free().to_string(), free().to_string());
    let dir = data.path().display().to_string();
    let args = ["--env", "demo", "serve", "--listen", &listen, "--data", &dir, "--store-listen", &store];
    let (serve, line) = Daemon::start(&args, NOTHING).until_it_says("started the embedded store").await;
    let first = Stray::named_in(&line);
    let (serve, _) = serve.until_it_says("leading").await;
    drop(first);
    let (serve, line) = serve.until_it_says("started the embedded store").await;
    let _second = Stray::named_in(&line);
    serve.kill();
}

#[tokio::test]
async fn when_the_leader_is_killed_the_other_leads_within_its_ttl() {
    let site = Site::start().await;
    let (a, b) = (free().to_string(), free().to_string());
    let (first, _) = serve(&site, &a, NOTHING).until_it_says("leading").await;
    let (second, _) = serve(&site, &b, NOTHING).until_it_says("following").await;
    let killed = Instant::now();
    first.kill();
    let (_second, line) = second.until_it_says("leading").await;
    let took = killed.elapsed();
    assert!(took < LEADER_TTL + std::time::Duration::from_secs(2), "{took:?}: {line}");
}

#[tokio::test]
async fn commands_end_with_the_documented_codes() {
    let site = Site::start().await;
    let (listen, store) = (free().to_string(), site.address.to_string());
    let (_serve, _) = serve(&site, &listen, NOTHING).until_it_says("leading").await;
    let agents = [Scripted::start(&site, "app-01").await, Scripted::start(&site, "app-02").await];
    let file = |version: &str| {
        let path = std::env::temp_dir().join(format!("handover-test-{}-{version}.toml", std::process::id()));
        std::fs::write(&path, spec(version, "")).expect("written");
        path.display().to_string()
    };
    let (one, two) = (file("1.0.0"), file("2.0.0"));
    let run = async |args: &[&str], code: i32| {
        let global = ["--coordinator", &listen, "--store", &store, "--env", "demo"];
        let output = handover(&[&global, args].concat()).await;
        assert_eq!(output.status.code(), Some(code), "{args:?}\n{}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout) + &text(&output.stderr)
    };
    run(&["--nonsense"], 1).await;
    run(&["--help"], 0).await;
    run(&["plan", "/nowhere.toml"], 1).await;
    run(&["--service", "other", "rollout", "status"], 5).await;
    run(&["rollout", "pause"], 5).await;
    until_heard(&run).await;

    assert!(run(&["rollout", "start", &one], 0).await.contains("done"));
    run(&["plan", &one], 0).await;
    assert!(run(&["plan", &two], 2).await.contains("1.0.0 -> 2.0.0"));
    assert!(run(&["rollout", "start", &one], 0).await.contains("nothing to do"));

    agents[0].mood(Mood::Stuck);
    assert!(run(&["--timeout", "200ms", "rollout", "start", &two], 6).await.contains("still runs"));
    run(&["rollout", "start", &one], 5).await;
    assert!(run(&["--json", "rollout", "status"], 0).await.contains("\"state\":\"running\""));
    run(&["why"], 0).await;
    // While it is stuck: a willing agent would have finished the rollout before the order is there.
    run(&["rollout", "abort"], 0).await;
    agents[0].mood(Mood::Willing);
    assert!(run(&["rollout", "watch"], 3).await.contains("rolled-back"));
    assert!(run(&["rollout", "history"], 0).await.contains("rolled-back"));
    for path in [one, two] {
        std::fs::remove_file(path).expect("removed");
    }
}

async fn until_heard(run: &impl AsyncFn(&[&str], i32) -> String) {
    let heard = async {
        while run(&["--json", "fleet"], 0).await.matches("\"alive\":true").count() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("both agents are heard");
}

#[tokio::test]
async fn without_a_coordinator_the_store_is_read_and_the_answer_says_so() {
    let site = Site::start().await;
    let _agent = Scripted::start(&site, "app-01").await;
    let (nobody, store) = (free().to_string(), site.address.to_string());
    for command in
        [vec!["rollout", "status"], vec!["why"], vec!["fleet"], vec!["lease", "show"], vec!["rollout", "history"]]
    {
        let global = ["--coordinator", &nobody, "--store", &store, "--env", "demo"];
        let output = handover(&[&global[..], &command].concat()).await;
        assert_eq!(output.status.code(), Some(0), "{command:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains("this is what the store says"), "{command:?}: {}", text(&output.stderr));
    }
    let nothing = free().to_string();
    let output = handover(&["--coordinator", &nobody, "--store", &nothing, "why"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("the store cannot be read either"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn the_failpoint_ends_the_process_on_its_side_of_the_delivery() {
    for (place, delivered) in [("2:before", false), ("2:after", true)] {
        let site = Site::start().await;
        let listen = free().to_string();
        let (serve, _) = self::serve(&site, &listen, ("HANDOVER_CRASH_AFTER", place)).until_it_says("leading").await;
        let agent = Scripted::start(&site, "app-01").await;
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), spec("1.0.0", "")).expect("written");
        let path = file.path().display().to_string();
        let heard = agent.state.subscribe();
        let world = site.follow();
        until(&mut world.subscribe(), "registered", |world| !world.services().is_empty()).await;
        // Refused until the agent is heard; the answer may be lost, the record is not.
        let start = async {
            while Rollout::latest(&site.world().await, &service()).expect("readable").is_none() {
                assert_eq!(heard.borrow().accepted, 0, "{place}: nothing is delivered before the start");
                handover(&["--coordinator", &listen, "rollout", "start", "--detach", &path]).await;
            }
        };
        tokio::time::timeout(PATIENCE, start).await.expect("started");
        let (status, log) = serve.ended().await;
        assert_eq!(status.signal(), Some(6), "{place}: {log}");
        let keys = EnvKeys::new(&site.env).service(&service());
        let assigned = site.world().await.entry(&keys.assigned(&agent.name)).expect("record 2 assigned").mod_revision;
        let rollout = Rollout::latest(&site.world().await, &service()).expect("readable").expect("a rollout");
        assert_eq!(rollout.records.len(), 2, "{place}");
        assert_eq!(agent.state.borrow().accepted == assigned, delivered, "{place}");
    }
}

#[tokio::test]
async fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let output = handover(&["completions", shell]).await;
        assert!(output.status.success() && text(&output.stdout).contains("rollout"), "{shell}");
    }
}
