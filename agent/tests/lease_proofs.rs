//! Certificates, the roster, parking and restored stores, with real keepers, real gRPC and a real etcd.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

mod lease_site;

use std::time::{Duration, Instant};

use handover_agent::lease::record::Told;
use handover_agent::lease::wanted::{LeaseState, Life};
use handover_proto::blocker::BlockerKind;
use handover_proto::ids::InstanceId;
use handover_proto::lease::{self, HolderState, IntentKind, LeaseView, Roster, StopProof};
use handover_proto::numbers::Era;
use handover_proto::stored::encode;
use handover_store::client::Store;
use lease_site::etcd::Etcd;
use lease_site::history::{History, assert_sound};
use lease_site::net::{Surface, Wire};
use lease_site::service::Ledger;
use lease_site::{Agent, StoreSite, TestService, intend, keys, put, settings, until_view, view};

fn holds<'a>(id: &'a InstanceId) -> impl Fn(&LeaseView) -> bool + 'a {
    move |view| view.holder.as_ref().is_some_and(|holder| holder.value.is_held_by(id))
}

fn is_ready(view: &LeaseView, id: &InstanceId) -> bool {
    view.candidates.get(id).is_some_and(|candidate| candidate.value.ready)
}

/// A holder on app-01 that is cut off from the store, with or without an agent that answers; how long it took from the
/// end of its beat until the candidate on app-02 worked.
async fn dark_after_a_cut(answers: bool) -> Duration {
    let store = StoreSite::start();
    let client = store.client();
    let ledger = Ledger::default();
    let (first, second) = (TestService::start("a", &ledger).await, TestService::start("b", &ledger).await);
    let wire = Wire::to(store.address).await;
    let agents = [Agent::at("app-01", wire.address, settings()), Agent::start("app-02", &store, settings())];
    let a = agents[0].run(&first);
    agents[0].until_state(&a, LeaseState::Holder).await;
    let surface = Surface::of("app-01", &client, agents[0].certifier()).await;
    let b = agents[1].run(&second);
    until_view(&client, "b to be ready and listed", |view| {
        is_ready(view, &b) && view.lists(&"app-02".parse().expect("a name"))
    })
    .await;
    let mut history = History::follow(store.client());
    if !answers {
        drop(surface);
    }

    wire.cut(true);
    first.until(Told::Quiesce).await;
    until_view(&client, "the beat to be gone", |view| view.beat.is_none() && view.holder.is_some()).await;
    let gone = Instant::now();
    let started = second.until(Told::Active).await;
    let moments = history.until("b to hold", holds(&b)).await;
    assert_sound(&moments);
    let stopped = moments.last().expect("a moment").view.holder.as_ref().and_then(|holder| holder.value.stopped_at_ms);
    assert_eq!(stopped.is_some(), answers, "a certificate says when the service stopped");
    // The cut-off agent, back again, stays stopped.
    wire.cut(false);
    agents[0].until_state(&a, LeaseState::Candidate).await;
    started.at - gone
}

#[tokio::test]
async fn a_certificate_of_the_lost_holders_agent_shortens_the_dark_to_its_first_refusal() {
    let dark = dark_after_a_cut(true).await;
    println!("dark after the end of the beat, with a certificate: {dark:?}");
    assert!(dark > Duration::from_millis(1_500) && dark < Duration::from_millis(3_500), "{dark:?}");
}

#[tokio::test]
async fn without_a_certificate_the_whole_quarantine_is_waited() {
    let quarantine = settings().quarantine_of(settings().ttl);
    let dark = dark_after_a_cut(false).await;
    println!("dark after the end of the beat, without: {dark:?}; the quarantine is {quarantine:?}");
    // The keeper sees the end of the beat within a moment of the test, before or after.
    assert!(dark > quarantine - Duration::from_millis(300) && dark < quarantine + Duration::from_secs(2), "{dark:?}");
}

#[tokio::test]
async fn a_stranger_does_not_take_over_until_it_is_listed() {
    let store = StoreSite::start();
    let client = store.client();
    let ledger = Ledger::default();
    let (mut first, second) = (TestService::start("a", &ledger).await, TestService::start("b", &ledger).await);
    let mut holder = Agent::start("app-01", &store, settings());
    let a = holder.run(&first);
    holder.until_state(&a, LeaseState::Holder).await;
    holder.down();
    first.die();
    // Nobody who could have listed it has seen it.
    let stranger = Agent::start("app-09", &store, settings());
    let b = stranger.run(&second);
    until_view(&client, "b to be ready, and the beat gone", |view| is_ready(view, &b) && view.beat.is_none()).await;
    let waits = stranger
        .until("the stranger to say why", |s| {
            s.waiting.as_ref().is_some_and(|w| w.waiting_for.contains("not in the roster"))
        })
        .await;
    assert_eq!(waits.waiting.expect("it waits").kind, BlockerKind::LeaseDark);
    let stands = view(&client).await;
    let refused = lease::take_over(
        &keys(),
        &stands,
        &lease::Turn {
            owner: &stands.candidates[&b].value.owner,
            lease_id: stands.candidates[&b].lease,
            ttl_s: 6,
            op: "00000000000000ff".parse().expect("an op"),
            stamp: Default::default(),
        },
    );
    assert!(matches!(refused, Err(lease::Refused::NotListed(_))), "nor can it build the transaction");

    let agents = ["app-01", "app-09"].map(|name| name.parse().expect("a name")).into();
    put(&client, keys().roster(), encode(&Roster { v: 1, agents, rest: Default::default() }).expect("json")).await;
    stranger.until_state(&b, LeaseState::Holder).await;
}

#[tokio::test]
async fn a_parked_lease_is_free_with_proof_and_nobody_takes_it_up_before_it_is_thawed() {
    let store = StoreSite::start();
    let client = store.client();
    let ledger = Ledger::default();
    let (first, second) = (TestService::start("a", &ledger).await, TestService::start("b", &ledger).await);
    let agents = [Agent::start("app-01", &store, settings()), Agent::start("app-02", &store, settings())];
    let a = agents[0].run(&first);
    agents[0].until_state(&a, LeaseState::Holder).await;
    let b = agents[1].run(&second);
    until_view(&client, "b to be ready", |view| is_ready(view, &b)).await;

    put(&client, keys().freeze(), b"\"by a test\"".to_vec()).await;
    let op = intend(&client, IntentKind::Park, &a, None, Duration::from_secs(10)).await;
    let parked = |view: &LeaseView| view.holder.as_ref().is_some_and(|holder| holder.value.op == op);
    let free = until_view(&client, "the lease to be parked", parked).await;
    first.until(Told::Quiesce).await;
    let holder = free.holder.as_ref().expect("a holder key").value.clone();
    assert!(matches!(&holder.state, HolderState::Free(free) if free.stop_proof == StopProof::Quiesced));
    assert!(holder.stopped_at_ms.is_some_and(|stopped| stopped <= holder.at_ms) && free.open_intent().is_none());
    for agent in &agents {
        let frozen = |s: &handover_agent::lease::wanted::KeeperStatus| {
            s.waiting.as_ref().is_some_and(|waiting| waiting.waiting_for.contains("frozen"))
        };
        agent.until("it to wait for an operator", frozen).await;
    }
    assert!(view(&client).await.holder.is_some_and(|holder| holder.value.held().is_none()));

    let thaw =
        handover_proto::txn::Txn { then: vec![handover_proto::txn::Op::Delete(keys().freeze())], ..Default::default() };
    client.txn(&thaw).await.expect("thawed");
    until_view(&client, "somebody to hold", |view| view.holder.as_ref().is_some_and(|h| h.value.held().is_some()))
        .await;
}

async fn raise(store: &Store) {
    let view = view(store).await;
    let txn = lease::raise_era(&keys(), &view, Era(1), ("ann", "bob", "restored from the backup")).expect("higher");
    assert!(store.txn(&txn).await.expect("an answer").succeeded);
}

/// A backup is taken while one holds; then another turn begins, and the store is put back.
async fn restored(token: &str) {
    let Some(mut etcd) = Etcd::start() else { return };
    let ledger = Ledger::default();
    let (mut first, second) = (TestService::start("a", &ledger).await, TestService::start("b", &ledger).await);
    let agents = [Agent::at("app-01", etcd.address, settings()), Agent::at("app-02", etcd.address, settings())];
    let a = agents[0].run(&first);
    agents[0].until_state(&a, LeaseState::Holder).await;
    let b = agents[1].run(&second);
    until_view(&etcd.client(), "b to be ready", |view| is_ready(view, &b)).await;
    let backup = etcd.back_up();
    for _ in 0..100 {
        put(&etcd.client(), keys().prefix() + "of-no-meaning", vec![]).await;
    }
    first.die();
    agents[0].change(&a, |local| local.life = Life::Dead { proven: true });
    let before = agents[1].until_state(&b, LeaseState::Holder).await.token.expect("a token");
    second.forget();

    etcd.restore(&backup, token);
    let waits = |s: &handover_agent::lease::wanted::KeeperStatus| {
        s.waiting.as_ref().is_some_and(|waiting| waiting.kind == BlockerKind::Operator)
    };
    let waiting = agents[1].until("it to wait for an operator", waits).await.waiting.expect("it waits").waiting_for;
    println!("{waiting}");
    assert!(waiting.contains("handover lease era --raise"), "{waiting}");
    second.until(Told::Quiesce).await;
    let stands = view(&etcd.client()).await;
    assert!(holds(&a)(&stands), "the holder key is the backup's, and nobody acted on it");
    second.forget();

    raise(&etcd.client()).await;
    let after = agents[1].until_state(&b, LeaseState::Holder).await.token.expect("a token");
    assert!(after > before && after.era() == Era(1), "{before} {after}");
    second.until(Told::Active).await;
}

#[tokio::test]
async fn a_restored_etcd_is_refused_and_goes_on_after_the_era_was_raised() {
    restored("etcd-cluster").await;
}

#[tokio::test]
async fn an_etcd_restored_as_another_cluster_is_refused_and_goes_on_after_the_era_was_raised() {
    restored("another-cluster").await;
}
