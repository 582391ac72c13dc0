//! What an operator sees and does of the lease: its history, the metrics, and what two people write past the protocol.

#![allow(clippy::expect_used, clippy::panic, reason = "a test may")]

mod site;

use std::time::Duration;

use handover_proto::assignment::Cause;
use handover_proto::ids::OpId;
use handover_proto::lease::{Candidate, Held, Holder, HolderState, LeaseCause, Owner, StopProof};
use handover_proto::numbers::Era;
use handover_proto::stored::{decode, encode};
use handover_proto::txn::{Cmp, Op, Txn};
use handover_proto::wire::give_request::What;
use handover_proto::wire::{GiveFreeze, GiveHandoff, GiveRequest, TurnRow, TurnsRequest};
use site::process::{handover, text};
use site::{PATIENCE, Running, Site, agent, service};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

fn owner(number: u64) -> Owner {
    Owner {
        instance: format!("{number:016x}").parse().expect("an id"),
        agent: format!("app-{number:02}").parse().expect("a name"),
        host: "here".into(),
        boot_id: "boot".into(),
        version: "1.0.0".parse().expect("a version"),
    }
}

fn holder(turn: u64) -> Holder {
    let asked = Cause { rollout: None, step: 1, plan_hash: String::new() };
    Holder {
        v: 1,
        state: HolderState::Held(Held { owner: owner(turn), lease_id: 0, ttl_s: 10 }),
        era: Era(0),
        turn,
        op: OpId::random(),
        cause: LeaseCause::HandOver { asked, term: Default::default() },
        at_ms: turn * 1000,
        stopped_at_ms: Some(turn * 1000 - 10),
    }
}

/// The turn as an agent would write it, without an etcd lease: nothing expires here.
async fn begin(site: &Site, turn: u64) {
    let keys = site.keys.service(&service()).lease();
    let holder = holder(turn);
    let beat = serde_json::json!({ "v": 1, "instance": owner(turn).instance, "op": holder.op });
    let puts = [(keys.holder(), encode(&holder)), (keys.beat(), encode(&beat))];
    let then = puts.map(|(key, value)| Op::put(key, value.expect("json"))).to_vec();
    site.store.txn(&Txn { then, ..Txn::default() }).await.expect("written");
}

async fn candidate(site: &Site, number: u64) {
    let keys = site.keys.service(&service()).lease();
    let value = serde_json::json!({
        "v": 1, "owner": owner(number), "lease_id": 0, "ttl_s": 10, "ready": true, "serving": true,
        "prepared_for": null, "declined": null, "active": null
    });
    let value: Candidate = serde_json::from_value(value).expect("a candidate");
    let put = Op::put(keys.candidate(&value.owner.instance), encode(&value).expect("json"));
    site.store.txn(&Txn { then: vec![put], ..Txn::default() }).await.expect("written");
}

async fn site() -> (Site, agent::Scripted) {
    let site = Site::start().await;
    let agent = agent::Scripted::start(&site, "app-01").await;
    (site, agent)
}

async fn turns(coordinator: &mut Running) -> Vec<TurnRow> {
    coordinator.client.turns(TurnsRequest::default()).await.expect("turns").into_inner().turns
}

/// The history, newest first, once it reaches this turn.
async fn turns_until(coordinator: &mut Running, turn: u64) -> Vec<TurnRow> {
    let waiting = async {
        loop {
            let rows = turns(coordinator).await;
            if rows.first().is_some_and(|row| row.turn == turn) {
                return rows;
            }
            // Another process writes it; there is nothing to wait on but the clock.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the turn is recorded")
}

fn shape(rows: &[TurnRow]) -> Vec<(u64, u64, String)> {
    rows.iter().map(|row| (row.turn, row.gap_to, row.agent.clone())).collect()
}

#[tokio::test]
async fn turns_that_no_coordinator_saw_are_read_from_the_stores_history() {
    let (site, _agent) = site().await;
    begin(&site, 1).await;
    let mut first = site.coordinator().await;
    turns_until(&mut first, 1).await;
    first.crash().await;
    for turn in 2..=4 {
        begin(&site, turn).await;
    }
    let mut second = site.coordinator().await;
    let rows = turns_until(&mut second, 4).await;
    let row = |turn: u64| (turn, 0, format!("app-{turn:02}"));
    assert_eq!(shape(&rows), [row(4), row(3), row(2), row(1)]);
    assert_eq!(rows[1].ended, "handed over to app-04");
    assert_eq!((rows[0].ended.as_str(), rows[3].cause.as_str()), ("", "handed over (order 1)"));
}

#[tokio::test]
async fn what_the_store_no_longer_has_is_shown_as_a_gap() {
    let (site, _agent) = site().await;
    begin(&site, 1).await;
    let mut first = site.coordinator().await;
    turns_until(&mut first, 1).await;
    first.crash().await;
    begin(&site, 2).await;
    begin(&site, 3).await;
    begin(&site, 4).await;
    let revision = site.store.list(&site.keys.prefix()).await.expect("a listing").revision;
    let mut raw = etcd_client::Client::connect([site.address.to_string()], None).await.expect("a client");
    raw.compact(revision, None).await.expect("compacted");
    let mut second = site.coordinator().await;
    let rows = turns_until(&mut second, 4).await;
    assert_eq!(shape(&rows), [(4, 0, "app-04".into()), (2, 3, String::new()), (1, 0, "app-01".into())]);
    assert_eq!(rows[2].ended, "not known");
}

#[tokio::test]
async fn the_metrics_tell_who_leads_and_for_how_long_it_is_dark() {
    let (site, _agent) = site().await;
    begin(&site, 1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut coordinator = site.coordinator_with(Some(listener)).await;
    coordinator.until_leading().await;
    let page = async |path: &str| {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    };
    let text = page("/metrics").await;
    for line in [
        "handover_leader{} 1",
        "handover_lease_turn{service=\"billing\"} 1",
        "handover_lease_held{service=\"billing\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let dark = text.lines().find_map(|line| line.strip_prefix("handover_lease_dark_seconds{service=\"billing\"} "));
    let dark: f64 = dark.expect("dark seconds").parse().expect("a number");
    assert!(dark > 1000.0, "nobody has said that he works since the sixties: {dark}");
    assert!(page("/").await.starts_with("HTTP/1.1 404"));
}

fn request(op: &str, what: What) -> GiveRequest {
    GiveRequest { op: op.into(), by: "ann".into(), because: "a test".into(), what: Some(what), service: String::new() }
}

#[tokio::test]
async fn the_same_request_twice_is_one_order() {
    let (site, _agent) = site().await;
    begin(&site, 1).await;
    candidate(&site, 2).await;
    let mut coordinator = site.coordinator().await;
    coordinator.until_leading().await;
    let freeze = request("00000000000000aa", What::Freeze(GiveFreeze {}));
    let first = coordinator.client.give(freeze.clone()).await.expect("frozen").into_inner();
    let again = coordinator.client.give(freeze).await.expect("the same").into_inner();
    assert_eq!((first.number, again.number), (1, 1));
    let status = coordinator.status().await;
    assert_eq!(status.orders.len(), 1);
    let freeze = status.lease.and_then(|lease| lease.freeze).expect("frozen");
    assert_eq!((freeze.by.as_str(), freeze.because.as_str()), ("ann", "a test"));
    let handoff = request("00000000000000bb", What::Handoff(GiveHandoff::default()));
    let refused = coordinator.client.give(handoff).await.expect_err("frozen");
    assert_eq!(handover_proto::wire::refusal_kind(&refused), Some("policy"));
}

#[tokio::test]
async fn an_order_of_a_coordinator_that_no_longer_leads_writes_nothing() {
    let (site, _agent) = site().await;
    begin(&site, 1).await;
    candidate(&site, 2).await;
    let mut coordinator = site.coordinator().await;
    coordinator.until_leading().await;
    // Another one leads, and this one has not heard of it: its key is replaced in the middle.
    let leader = site.keys.leader();
    let entry = site.store.get(&leader).await.expect("read").expect("a leader");
    let txn = Txn {
        cmp: vec![Cmp::CreateRevision(leader.clone(), entry.create_revision)],
        then: vec![Op::Delete(leader)],
        or_else: vec![],
    };
    assert!(site.store.txn(&txn).await.expect("written").succeeded);
    let handoff = request("00000000000000bb", What::Handoff(GiveHandoff::default()));
    if let Err(refused) = coordinator.client.give(handoff).await {
        assert_eq!(handover_proto::wire::refusal_kind(&refused), Some("not-leader"), "{refused}");
        let orders = site.world().await.orders(&service());
        assert!(orders.is_empty(), "{orders:?}");
    }
}

async fn cli(site: &Site, args: &[&str]) -> (Option<i32>, String) {
    let store = site.address.to_string();
    let all = [&["--store", &store, "--env", "demo", "--coordinator", "127.0.0.1:9"], args].concat();
    let output = handover(&all).await;
    (output.status.code(), text(&output.stdout) + &text(&output.stderr))
}

async fn stored_holder(site: &Site) -> Holder {
    let key = site.keys.service(&service()).lease().holder();
    let entry = site.store.get(&key).await.expect("read").expect("a holder");
    decode(&key, &entry.value).expect("readable")
}

#[tokio::test]
async fn two_people_free_the_lease_without_any_coordinator_and_one_cannot() {
    let (site, _agent) = site().await;
    begin(&site, 1).await;
    candidate(&site, 2).await;
    let force = ["lease", "release", "--force", "--because", "rack 4 burns", "--by", "ann"];
    let asserting = ["--asserting", "host-powered-off"];
    let (code, said) = cli(&site, &[&force[..], &["--second", "Ann"], &asserting].concat()).await;
    assert!(code == Some(5) && said.contains("two different people"), "{said}");
    let (code, said) = cli(&site, &[&force[..], &["--second", "bob"]].concat()).await;
    assert!(code == Some(5), "the store still believes in the holder: {said}");
    assert_eq!(cli(&site, &force).await.0, Some(1), "a second person is a must");
    assert!(stored_holder(&site).await.held().is_some());

    let (code, said) = cli(&site, &[&force[..], &["--second", "bob"], &asserting].concat()).await;
    assert!(code == Some(0) && said.contains("is free"), "{said}");
    let holder = stored_holder(&site).await;
    assert!(matches!(&holder.state, HolderState::Free(free) if free.stop_proof == StopProof::Operator));
    // The beat is gone: without an assertion a right order would wait, and a wrong one is refused before that.
    for wrong in [&["--second", "ann"][..], &["--second", "bob", "--to", "app-09"]] {
        let (code, said) = cli(&site, &[&force[..], wrong].concat()).await;
        assert!(code == Some(5) && !said.contains("nothing is asserted"), "{said}");
    }
    let (code, said) = cli(&site, &[&force[..], &["--second", "bob", "--to", "app-02"], &asserting].concat()).await;
    assert_eq!(code, Some(0), "{said}");
    let holder = stored_holder(&site).await;
    assert_eq!(holder.held().map(|held| held.owner.agent.as_str()), Some("app-02"));
    let LeaseCause::BreakGlass(order) = holder.cause else { panic!("another cause: {holder:?}") };
    assert_eq!((order.by.as_str(), order.second.as_str(), order.because.as_str()), ("ann", "bob", "rack 4 burns"));
}

#[tokio::test]
async fn the_era_is_raised_by_two_people_and_by_one_at_a_time() {
    let (site, _agent) = site().await;
    begin(&site, 1).await;
    assert_eq!(cli(&site, &["lease", "era"]).await, (Some(0), "the scheduler lease of billing is in era 0\n".into()));
    let raise = ["lease", "era", "--raise", "--by", "ann", "--because", "restored"];
    assert_eq!(cli(&site, &raise).await.0, Some(1), "a second person is a must");
    let (code, said) = cli(&site, &[&raise[..], &["--second", "ann"]].concat()).await;
    assert!(code == Some(5) && said.contains("two different people"), "{said}");
    let (code, said) = cli(&site, &[&raise[..], &["--second", "bob"]].concat()).await;
    assert!(code == Some(0) && said.contains("era 1"), "{said}");
}

#[tokio::test]
async fn an_era_that_fits_no_token_is_said_with_the_command_that_replaces_it() {
    let (site, _agent) = site().await;
    begin(&site, 1).await;
    let key = site.keys.service(&service()).lease().era();
    let put = Op::put(key, br#"{"v":1,"era":40000}"#.to_vec());
    site.store.txn(&Txn { then: vec![put], ..Txn::default() }).await.expect("written by hand");
    let (code, said) = cli(&site, &["lease", "era"]).await;
    let command = "handover --service billing lease era --raise --by NAME --second NAME --because TEXT";
    assert!(code == Some(5) && said.contains("40000") && said.contains(command), "{said}");
    let force = ["lease", "release", "--force", "--by", "ann", "--second", "bob", "--because", "why"];
    let (code, said) = cli(&site, &[&force[..], &["--asserting", "fence-enforced"]].concat()).await;
    assert!(code == Some(5) && said.contains(command), "no other order passes it by: {said}");
    let mend = ["--service", "billing", "lease", "era", "--raise", "--by", "ann", "--because", "a slip of the hand"];
    let (code, said) = cli(&site, &[&mend[..], &["--second", "ann"]].concat()).await;
    assert!(code == Some(5) && said.contains("two different people"), "{said}");
    let (code, said) = cli(&site, &[&mend[..], &["--second", "bob"]].concat()).await;
    assert!(code == Some(0) && said.contains("is in era 1"), "the last turn's was 0: {said}");
    assert_eq!(cli(&site, &["lease", "era"]).await, (Some(0), "the scheduler lease of billing is in era 1\n".into()));
}
