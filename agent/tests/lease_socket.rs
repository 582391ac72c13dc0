//! `lease.sock` of a real keeper: waits, streams, acknowledgements, who may ask, and how many.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

mod lease_site;
mod lease_socket {
    pub(crate) mod puller;
}

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use handover_agent::lease::record::Told;
use handover_agent::lease::settings::{LeaseSettings, ServiceSide};
use handover_agent::lease::socket::MAX_CONNECTIONS;
use handover_agent::lease::socket::peer::SlotPeer;
use handover_agent::lease::wanted::LeaseState;
use lease_site::service::Ledger;
use lease_site::{Agent, PATIENCE, StoreSite, TestService, ask, settings, until_view};
use lease_socket::puller::{Puller, connect, request};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

fn pull() -> LeaseSettings {
    LeaseSettings { service: ServiceSide::Pull, ..settings() }
}

#[tokio::test]
async fn services_that_pull_are_greeted_started_and_handed_over_without_a_single_call() {
    let store = StoreSite::start();
    let client = store.client();
    let never_called = TestService::start("never called", &Ledger::default()).await;
    let agents = [Agent::start("app-01", &store, pull()), Agent::start("app-02", &store, pull())];
    let a = agents[0].run(&never_called);
    let puller_a = Puller::start(&agents[0], &a);
    agents[0].until_state(&a, LeaseState::Holder).await;
    let b = agents[1].run(&never_called);
    let puller_b = Puller::start(&agents[1], &b);
    until_view(&client, "b to be ready", |view| view.candidates.get(&b).is_some_and(|c| c.value.ready)).await;

    ask(&client, &a, &b, Duration::from_secs(10)).await;
    agents[1].until_state(&b, LeaseState::Holder).await;
    let (seen_a, seen_b) = (puller_a.seen(), puller_b.seen());
    assert!(seen_a.contains(&Told::Stopped) && seen_a.contains(&Told::Active) && seen_a.contains(&Told::Quiesce));
    assert!(seen_b.contains(&Told::Active), "{seen_b:?}");
    assert_eq!(never_called.done(), [], "in pull mode the agent never calls");
}

#[tokio::test]
async fn in_pull_mode_a_holder_that_does_not_acknowledge_quiesce_keeps_the_lease_and_declines() {
    let store = StoreSite::start();
    let client = store.client();
    let service = TestService::start("never called", &Ledger::default()).await;
    let agents = [Agent::start("app-01", &store, pull()), Agent::start("app-02", &store, pull())];
    let a = agents[0].run(&service);
    let puller_a = Puller::start(&agents[0], &a);
    agents[0].until_state(&a, LeaseState::Holder).await;
    let b = agents[1].run(&service);
    let _puller_b = Puller::start(&agents[1], &b);
    until_view(&client, "b to be ready", |view| view.candidates.get(&b).is_some_and(|c| c.value.ready)).await;
    puller_a.stop();
    let op = ask(&client, &a, &b, Duration::from_millis(300)).await;
    until_view(&client, "a to decline, as one that is called would", |view| {
        view.candidates.get(&a).is_some_and(|c| c.value.declined.as_ref() == Some(&op))
            && view.holder.as_ref().is_some_and(|holder| holder.value.is_held_by(&a))
    })
    .await;
}

#[tokio::test]
async fn an_acknowledgement_of_another_token_or_number_is_refused_with_its_reason() {
    let store = StoreSite::start();
    let service = TestService::start("never called", &Ledger::default()).await;
    let agent = Agent::start("app-01", &store, pull());
    let id = agent.run(&service);
    let puller = Puller::start(&agent, &id);
    let token = agent.until_state(&id, LeaseState::Holder).await.token.expect("a token").get();
    puller.stop();
    let (_, body) = request(&agent, "GET", &format!("/v1/lease?instance={id}"), "").await;
    let record: serde_json::Value = serde_json::from_str(&body).expect("a record");
    let seq = record["seq"].as_u64().expect("a number");
    let cases = [
        (json!({"v":1,"token":(token - 1).to_string(),"seq":seq,"state":"STARTED"}), 409, "token"),
        (json!({"v":1,"token":token.to_string(),"seq":seq - 1,"state":"STARTED"}), 409, "newest"),
        (json!({"v":1,"token":token.to_string(),"seq":"x","state":"STARTED"}), 400, "no acknowledgement"),
    ];
    for (ack, status, says) in cases {
        let answer = request(&agent, "POST", &format!("/v1/ack?instance={id}"), &ack.to_string()).await;
        assert!(answer.0 == status && answer.1.contains(says), "{ack}: {answer:?}");
    }
    let stranger = "00000000000000aa";
    assert_eq!(request(&agent, "POST", &format!("/v1/ack?instance={stranger}"), "{}").await.0, 404);
}

#[tokio::test]
async fn an_agent_that_calls_takes_no_acknowledgements() {
    let store = StoreSite::start();
    let service = TestService::start("a", &Ledger::default()).await;
    let agent = Agent::start("app-01", &store, settings());
    let id = agent.run(&service);
    agent.until_state(&id, LeaseState::Holder).await;
    let (status, text) = request(&agent, "POST", &format!("/v1/ack?instance={id}"), "{}").await;
    assert!(status == 405 && text.contains("service = \"pull\""), "{status} {text}");
}

#[tokio::test]
async fn a_stream_shows_every_accepted_renewal_with_a_later_deadline() {
    let store = StoreSite::start();
    let service = TestService::start("a", &Ledger::default()).await;
    let agent = Agent::start("app-01", &store, settings());
    let id = agent.run(&service);
    agent.until_state(&id, LeaseState::Holder).await;
    let mut stream = connect(&agent).await;
    let ask = format!("GET /v1/lease?instance={id}&stream=1 HTTP/1.1\r\nhost: agent\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.expect("asked");
    let mut lines = BufReader::new(stream).lines();
    let mut deadlines = Vec::new();
    while deadlines.len() < 5 {
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("in time").expect("read");
        let line = line.expect("no end");
        // Between heads and chunk sizes, the records are the lines that are JSON.
        if let Ok(record) = serde_json::from_str::<handover_agent::lease::record::LeaseRecord>(&line) {
            assert_eq!(record.state, Told::Active);
            deadlines.push(record.soft_deadline_boot_ns);
        }
    }
    assert!(deadlines.windows(2).all(|pair| pair[0] < pair[1]), "{deadlines:?}");
}

#[tokio::test]
async fn more_connections_than_the_limit_are_turned_away_with_the_reason() {
    let store = StoreSite::start();
    let service = TestService::start("a", &Ledger::default()).await;
    let agent = Agent::start("app-01", &store, settings());
    let id = agent.run(&service);
    agent.until_state(&id, LeaseState::Holder).await;
    let target = format!("/v1/lease?instance={id}");
    let mut open = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        open.push(connect(&agent).await);
    }
    let mut one_more = connect(&agent).await;
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, one_more.read_to_string(&mut answer)).await.expect("in time").expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains(&MAX_CONNECTIONS.to_string()), "{answer}");
    open.clear();
    let deadline = std::time::Instant::now() + PATIENCE;
    while request(&agent, "GET", &target, "").await.0 != 200 {
        assert!(std::time::Instant::now() < deadline, "never let in again");
    }
}

/// Whom root plays in this test.
const NOBODY: u32 = 65534;

#[tokio::test]
async fn a_stranger_is_refused_by_its_credentials_until_the_config_names_it() {
    let store = StoreSite::start();
    let service = TestService::start("a", &Ledger::default()).await;
    let root = nix::unistd::geteuid().is_root();
    // Who is not root cannot play another user; then the agent is told that it is another.
    let (own, stranger) = if root { (0, NOBODY) } else { (NOBODY, nix::unistd::geteuid().as_raw()) };
    let slot =
        |name: &str, uid| BTreeMap::from([(name.parse().expect("slot"), SlotPeer { uid: Some(uid), gid: None })]);
    for (peers, status) in [(slot("b", stranger), "403"), (slot("a", stranger), "200")] {
        let agent = Agent::start_for("app-01", store.address, settings(), own, peers);
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(agent.runtime_dir.path(), open).expect("a directory of ours");
        let id = agent.run(&service);
        agent.until("the instance to be there", |status| status.instances.contains_key(&id)).await;
        let url = format!("http://agent/v1/lease?instance={id}");
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "10", "-w", " %{http_code}", "--unix-socket"]);
        curl.arg(agent.runtime_dir.path().join("lease.sock")).arg(url);
        if root {
            curl.uid(stranger).gid(stranger);
        }
        let mut text = String::new();
        for _ in 0..500 {
            text = String::from_utf8(curl.output().expect("curl").stdout).expect("text");
            // Until the agent has read its store, it knows nothing to tell.
            if !text.ends_with("503") {
                break;
            }
        }
        assert!(text.ends_with(status), "{text}");
        if status == "403" {
            assert!(text.contains(&format!("user {stranger}")) && text.contains("[[slot]]"), "{text}");
        }
    }
}

#[tokio::test]
async fn strangers_take_nobodys_place_on_the_socket() {
    if !nix::unistd::geteuid().is_root() {
        return println!("SKIPPED: only root can play two users");
    }
    let store = StoreSite::start();
    let service = TestService::start("a", &Ledger::default()).await;
    let named = BTreeMap::from([("a".parse().expect("slot"), SlotPeer { uid: Some(1), gid: None })]);
    let agent = Agent::start_for("app-01", store.address, settings(), 0, named);
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(agent.runtime_dir.path(), open).expect("a directory of ours");
    let id = agent.run(&service);
    let target = format!("/v1/lease?instance={id}");
    agent.until("the instance to be there", |status| status.instances.contains_key(&id)).await;
    let socket = agent.runtime_dir.path().join("lease.sock");
    // As many as there are places for those who may ask, and more; it says how many were turned away, and holds the others.
    let program = "import socket, sys\nheld = []\naway = 0\nfor _ in range(100):\n    s = socket.socket(socket.AF_UNIX)\n    \
                   s.connect(sys.argv[1])\n    s.settimeout(0.05)\n    held.append(s)\nfor s in held:\n    try:\n        \
                   away += b'503' in s.recv(99)\n    except TimeoutError:\n        pass\nprint(away, flush=True)\nsys.stdin.read()";
    let mut stranger = Command::new("python3");
    stranger.args(["-c", program]).arg(&socket).uid(NOBODY).gid(NOBODY);
    let mut stranger =
        stranger.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().expect("python3");
    let mut away = String::new();
    let mut said = std::io::BufReader::new(stranger.stdout.take().expect("piped"));
    std::io::BufRead::read_line(&mut said, &mut away).expect("a line");
    assert_eq!(away.trim(), "96", "four of a hundred are let in");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while request(&agent, "GET", &target, "").await.0 != 200 {
        assert!(std::time::Instant::now() < deadline, "whoever may ask is not let in");
    }
    drop(stranger.stdin.take());
    stranger.wait().expect("its end");
}
