//! The lease moves: acquisition, planned hand-over, death of the holder, with real keepers over the embedded store.

mod lease_site;

use std::time::{Duration, Instant};

use handover_agent::lease::record::Told;
use handover_agent::lease::wanted::{LeaseState, Life};
use lease_site::history::{self, History, assert_never_dark, assert_sound};
use lease_site::service::Ledger;
use lease_site::{Agent, Manner, StoreSite, TestService, ask, settings, until_view, view};

const QUIESCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_lone_candidate_acquires_the_lease_and_its_service_is_told_the_token() {
    let store = StoreSite::start();
    let service = TestService::start("a", &Ledger::default()).await;
    let agent = Agent::start("app-01", &store, settings());
    let id = agent.run(&service);
    let lease = agent.until_state(&id, LeaseState::Holder).await;

    let view = view(&store.client()).await;
    assert!(view.holder.as_ref().is_some_and(|holder| holder.value.is_held_by(&id)) && view.beat.is_some());
    let active = service.until(Told::Active).await;
    assert_eq!(Some(active.token), lease.token.map(|token| token.get()));
    assert_eq!(service.done()[0].told, Told::Stopped, "it was greeted before it could take anything");
    let candidate =
        |view: &handover_proto::lease::LeaseView| view.candidates.get(&id).and_then(|c| c.value.active) == lease.token;
    until_view(&store.client(), "the candidate key to say that the service has begun", candidate).await;
}

#[tokio::test]
async fn a_planned_hand_over_never_shows_a_moment_without_a_holder() {
    let store = StoreSite::start();
    let client = store.client();
    let ledger = Ledger::default();
    let services = [TestService::start("a", &ledger).await, TestService::start("b", &ledger).await];
    let agents = [Agent::start("app-01", &store, settings()), Agent::start("app-02", &store, settings())];
    let a = agents[0].run(&services[0]);
    agents[0].until_state(&a, LeaseState::Holder).await;
    let b = agents[1].run(&services[1]);
    until_view(&client, "b to be ready", |view| view.candidates.get(&b).is_some_and(|c| c.value.ready)).await;
    let mut history = History::follow(store.client());

    let ids = [a, b];
    let (mut total, mut dark) = (Vec::new(), Vec::new());
    for round in 0..20 {
        let (from, to) = (round % 2, 1 - round % 2);
        services.iter().for_each(TestService::forget);
        until_view(&client, "the successor to be ready", |view| {
            view.candidates.get(&ids[to]).is_some_and(|c| c.value.ready)
        })
        .await;
        let begun = Instant::now();
        let op = ask(&client, &ids[from], &ids[to], QUIESCE).await;
        let started = services[to].until(Told::Active).await;
        let stopped = services[from].until(Told::Quiesce).await;
        total.push(started.at - begun);
        dark.push(started.at - stopped.at);
        history.until("the intent to be done", |view| view.holder.as_ref().is_some_and(|h| h.value.op == op)).await;
        agents[to].until_state(&ids[to], LeaseState::Holder).await;
        agents[from].until_state(&ids[from], LeaseState::Candidate).await;
    }
    let moments = history.until("all", |view| view.holder.as_ref().is_some_and(|h| h.value.turn == 21)).await;
    assert_sound(&moments);
    assert_never_dark(&moments);
    report("hand-over, from the intent to STARTED", total);
    report("dark, from QUIESCED to STARTED", dark);
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    println!("{what}: p50 {:?}, max {:?} of {}", times[times.len() / 2], times[times.len() - 1], times.len());
    assert!(times[times.len() / 2] < Duration::from_millis(250), "{what}: {times:?}");
}

#[tokio::test]
async fn when_the_holders_process_is_proved_dead_another_takes_over_at_once() {
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

    let died = first.die();
    agents[0].change(&a, |local| local.life = Life::Dead { proven: true });
    let started = second.until(Told::Active).await;
    println!("from the death of the holder to STARTED: {:?}", started.at - died);
    assert!(started.at - died < Duration::from_secs(1), "no quarantine with proof in hand");
    let moments = history.until("b to hold", |v| v.holder.as_ref().is_some_and(|h| h.value.is_held_by(&b))).await;
    assert_sound(&moments);
    let free = |m: &history::Moment| m.view.holder.as_ref().is_some_and(|h| h.value.held().is_none());
    assert!(moments.iter().any(free), "the proof stood in the store in between");
}

#[tokio::test]
async fn a_holder_that_is_to_be_stopped_releases_and_may_stop_only_then() {
    let store = StoreSite::start();
    let ledger = Ledger::default();
    let (first, second) = (TestService::start("a", &ledger).await, TestService::start("b", &ledger).await);
    let agents = [Agent::start("app-01", &store, settings()), Agent::start("app-02", &store, settings())];
    let a = agents[0].run(&first);
    agents[0].until_state(&a, LeaseState::Holder).await;
    let b = agents[1].run(&second);
    first.set(Manner::Stubborn);
    agents[0].change(&a, |local| local.life = Life::GiveUp);
    let quiescing = agents[0].until_state(&a, LeaseState::Quiescing).await;
    assert!(!quiescing.may_stop, "its service is still at work");

    first.set(Manner::Prompt);
    second.until(Told::Active).await;
    agents[1].until_state(&b, LeaseState::Holder).await;
    agents[0].until("a to be free to stop", |s| s.instances[&a].may_stop).await;
}

#[tokio::test]
async fn a_service_that_does_not_quiesce_keeps_the_lease_and_the_intent_is_declined() {
    let store = StoreSite::start();
    let client = store.client();
    let ledger = Ledger::default();
    let (first, second) = (TestService::start("a", &ledger).await, TestService::start("b", &ledger).await);
    let agents = [Agent::start("app-01", &store, settings()), Agent::start("app-02", &store, settings())];
    let a = agents[0].run(&first);
    let token = agents[0].until_state(&a, LeaseState::Holder).await.token;
    let b = agents[1].run(&second);
    until_view(&client, "b to be ready", |view| view.candidates.get(&b).is_some_and(|c| c.value.ready)).await;

    first.set(Manner::Stubborn);
    first.forget();
    let op = ask(&client, &a, &b, Duration::from_millis(300)).await;
    agents[0].until_state(&a, LeaseState::Quiescing).await;
    let declined = |view: &handover_proto::lease::LeaseView| {
        view.candidates.get(&a).is_some_and(|c| c.value.declined.as_ref() == Some(&op))
    };
    let view = until_view(&client, "a to decline", declined).await;
    assert!(view.holder.as_ref().is_some_and(|holder| holder.value.is_held_by(&a)));
    let again = agents[0].until_state(&a, LeaseState::Holder).await;
    assert_eq!(again.token, token, "nothing moved, so the token stays");
    assert!(first.done().iter().any(|done| done.told == Told::Active), "it was told to go on");
    assert!(second.done().iter().all(|done| done.told != Told::Active));
}

#[tokio::test]
async fn two_instances_of_one_host_hand_over_through_one_keeper_and_the_old_one_may_stop() {
    let store = StoreSite::start();
    let client = store.client();
    let ledger = Ledger::default();
    let (first, second) = (TestService::start("a", &ledger).await, TestService::start("b", &ledger).await);
    let agent = Agent::start("app-01", &store, settings());
    let a = agent.run(&first);
    agent.until_state(&a, LeaseState::Holder).await;
    let b = agent.run(&second);
    agent.change(&b, |local| local.slot = "b".parse().expect("slot"));
    until_view(&client, "b to be ready", |view| view.candidates.get(&b).is_some_and(|c| c.value.ready)).await;
    let mut history = History::follow(store.client());

    ask(&client, &a, &b, QUIESCE).await;
    agent.change(&a, |local| local.life = Life::GiveUp);
    agent.until_state(&b, LeaseState::Holder).await;
    agent.until("a to be free to stop", |s| s.instances[&a].may_stop).await;
    let done = history.until("b to hold", |v| v.holder.as_ref().is_some_and(|h| h.value.is_held_by(&b))).await;
    assert_sound(&done);
    assert_never_dark(&done);
    agent.forget(&a);
    agent.until("a to be forgotten", |s| !s.instances.contains_key(&a)).await;
    until_view(&client, "a's candidate key to be gone", |view| !view.candidates.contains_key(&a)).await;
}
