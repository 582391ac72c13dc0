//! Something is lost: the agent, the store, the etcd lease, the process; with real keepers over the embedded store.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

mod lease_site;

use std::time::{Duration, Instant};

use bytes::Bytes;
use handover_agent::lease::record::{LeaseRecord, Told};
use handover_agent::lease::wanted::{LeaseState, Life};
use handover_proto::ids::InstanceId;
use handover_proto::lease::LeaseView;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use lease_site::history::{History, assert_sound};
use lease_site::service::Ledger;
use lease_site::{Agent, Manner, StoreSite, TestService, path, settings, until_view, view};

fn holds<'a>(id: &'a InstanceId) -> impl Fn(&LeaseView) -> bool + 'a {
    move |view| view.holder.as_ref().is_some_and(|holder| holder.value.is_held_by(id))
}

#[tokio::test]
async fn an_agent_restart_is_invisible_to_the_service_and_keeps_the_token() {
    let store = StoreSite::start();
    let service = TestService::start("a", &Ledger::default()).await;
    let mut agent = Agent::start("app-01", &store, settings());
    let id = agent.run(&service);
    let token = agent.until_state(&id, LeaseState::Holder).await.token;
    let first = view(&store.client()).await;
    service.forget();

    agent.until_saved(&id).await;
    agent.down();
    agent.up();
    assert_eq!(agent.until_state(&id, LeaseState::Holder).await.token, token);
    assert!(service.done().iter().all(|done| done.told == Told::Active), "{:?}", service.done());
    let second = view(&store.client()).await;
    assert_eq!(first.turn_revision(), second.turn_revision());
    assert_eq!(first.beat.map(|beat| beat.lease), second.beat.map(|beat| beat.lease), "the same etcd lease goes on");
}

#[tokio::test]
async fn without_the_store_the_service_stops_in_time_and_goes_on_under_the_same_token_when_it_is_back() {
    let mut store = StoreSite::start();
    let service = TestService::start("a", &Ledger::default()).await;
    let agent = Agent::start("app-01", &store, settings());
    let id = agent.run(&service);
    let token = agent.until_state(&id, LeaseState::Holder).await.token;
    service.forget();

    store.down();
    let away = Instant::now();
    let stopped = service.until(Told::Quiesce).await;
    // D_soft is 1.69 s after the base, which is at most one interval and one attempt old.
    let worked = stopped.at - away;
    assert!(worked > Duration::from_millis(800) && worked < Duration::from_millis(2500), "{worked:?}");
    agent.until_state(&id, LeaseState::Stopped).await;
    assert!(agent.status().waiting.is_some(), "it says what it waits for");
    service.forget();

    store.up();
    assert_eq!(agent.until_state(&id, LeaseState::Holder).await.token, token, "its etcd lease outlived the outage");
    assert!(service.done().iter().any(|done| done.told == Told::Active));
    assert!(agent.killed.borrow().is_empty());
}

#[tokio::test]
async fn a_service_that_does_not_acknowledge_by_the_hard_deadline_is_killed_and_another_follows_on_proof() {
    let mut store = StoreSite::start();
    let ledger = Ledger::default();
    let mut service = TestService::start("a", &ledger).await;
    let agent = Agent::start("app-01", &store, settings());
    let id = agent.run(&service);
    agent.until_state(&id, LeaseState::Holder).await;
    service.set(Manner::Silent);

    store.down();
    let away = Instant::now();
    agent.until_state(&id, LeaseState::Quiescing).await;
    assert!(agent.killed.borrow().is_empty(), "it has until the hard deadline");
    let killed = agent.first_kill().await;
    // D_hard is 5.19 s after the base.
    let after = killed.1 - away;
    assert!(killed.0 == id && after > Duration::from_millis(4300) && after < Duration::from_millis(6000), "{after:?}");

    service.die();
    agent.change(&id, |local| local.life = Life::Dead { proven: true });
    let next = TestService::start("b", &ledger).await;
    let next_id = agent.run(&next);
    store.up();
    agent.until_state(&next_id, LeaseState::Holder).await;
}

#[tokio::test]
async fn a_lost_etcd_lease_stops_the_service_and_brings_a_new_token_without_a_quarantine() {
    let store = StoreSite::start();
    let service = TestService::start("a", &Ledger::default()).await;
    let agent = Agent::start("app-01", &store, settings());
    let id = agent.run(&service);
    let token = agent.until_state(&id, LeaseState::Holder).await.token;
    let beat = view(&store.client()).await.beat.expect("a beat");
    let mut history = History::follow(store.client());
    history.until("the watch to follow", holds(&id)).await;
    service.forget();

    let revoked = Instant::now();
    store.client().revoke(beat.lease).await.expect("revoked");
    service.until(Told::Quiesce).await;
    let status = agent.until("a new token", |s| {
        let lease = &s.instances[&id];
        lease.state == LeaseState::Holder && lease.token > token
    });
    status.await;
    assert!(revoked.elapsed() < Duration::from_secs(3), "{:?}", revoked.elapsed());
    assert_sound(&history.until("the new turn", |v| holds(&id)(v) && v.turn_revision() > beat.mod_revision).await);
}

#[tokio::test]
async fn without_proof_of_death_a_taker_waits_the_whole_quarantine_after_the_beat_is_gone() {
    let store = StoreSite::start();
    let ledger = Ledger::default();
    let mut first = TestService::start("a", &ledger).await;
    let second = TestService::start("b", &ledger).await;
    let agents = [Agent::start("app-01", &store, settings()), Agent::start("app-02", &store, settings())];
    let a = agents[0].run(&first);
    agents[0].until_state(&a, LeaseState::Holder).await;
    let b = agents[1].run(&second);
    until_view(&store.client(), "b to be ready", |view| view.candidates.get(&b).is_some_and(|c| c.value.ready)).await;
    let mut history = History::follow(store.client());

    first.die();
    agents[0].change(&a, |local| local.life = Life::Dead { proven: false });
    let moments = history.until("b to hold", holds(&b)).await;
    let gone = moments.iter().find(|moment| moment.view.beat.is_none()).expect("the beat expired").at;
    let taken = moments.iter().find(|moment| holds(&b)(&moment.view)).expect("just seen").at;
    let quarantine = settings().quarantine_of(settings().ttl);
    println!("beat gone to take-over: {:?}, quarantine {quarantine:?}", taken - gone);
    assert!(taken - gone >= quarantine - Duration::from_millis(20) && taken - gone < quarantine * 2);
    assert_sound(&moments);
    agents[1].until_state(&b, LeaseState::Holder).await;
}

#[tokio::test]
async fn the_socket_and_the_file_tell_what_the_service_is_told() {
    let store = StoreSite::start();
    let service = TestService::start("a", &Ledger::default()).await;
    let agent = Agent::start("app-01", &store, settings());
    let id = agent.run(&service);
    let lease = agent.until_state(&id, LeaseState::Holder).await;
    let token = lease.token.expect("a token").get().to_string();

    let asked = get(&agent, &format!("/v1/lease?instance={id}")).await.expect("a record");
    assert_eq!((asked.state, asked.token.as_ref()), (Told::Active, Some(&token)));
    assert!(
        asked.remaining_soft_ms > 0
            && asked.remaining_soft_ms < 1700
            && asked.remaining_hard_ms > asked.remaining_soft_ms
    );
    assert_eq!(get(&agent, "/v1/lease").await, Err(400));
    assert_eq!(get(&agent, "/v1/lease?instance=00000000000000ff").await, Err(404));

    let read = || -> LeaseRecord {
        let text = std::fs::read_to_string(path(&agent, "a/lease.json")).expect("a file");
        serde_json::from_str(&text).expect("a record")
    };
    let deadline = Instant::now() + lease_site::PATIENCE;
    while read().state != Told::Active {
        assert!(Instant::now() < deadline, "{:?}", read());
        tokio::task::yield_now().await;
    }
    assert_eq!(read().token, Some(token));
}

async fn get(agent: &Agent, target: &str) -> Result<LeaseRecord, u16> {
    let stream = tokio::net::UnixStream::connect(path(agent, "lease.sock")).await.expect("the socket");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    let connection = tokio::spawn(connection);
    let request = hyper::Request::get(target).header("host", "agent").body(Empty::<Bytes>::new()).expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    connection.abort();
    if status.is_success() { Ok(serde_json::from_slice(&body).expect("a record")) } else { Err(status.as_u16()) }
}
