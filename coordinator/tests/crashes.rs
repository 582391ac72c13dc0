//! A coordinator that dies after any record: the next one finishes from the journal (`SAFETY.md` E7).

#![allow(clippy::expect_used, clippy::panic, reason = "a test may")]

mod site;

use handover::core::event::{Event, Outcome};
use handover::rollout::Rollout;
use handover::world::World;
use site::agent::{Mood, Scripted};
use site::{Running, Site, service, until};

async fn begin(site: &Site) -> (Running, Vec<Scripted>) {
    let mut coordinator = site.coordinator().await;
    let mut agents = Vec::new();
    for name in ["app-01", "app-02"] {
        agents.push(Scripted::start(site, name).await);
    }
    coordinator.until_leading().await;
    coordinator.until("both agents are heard", |reply| reply.fleet.iter().filter(|row| row.alive).count() == 2).await;
    coordinator.start("1.0.0").await.expect("the fleet is brought up");
    coordinator.until_state("done").await;
    (coordinator, agents)
}

fn records(world: &World) -> usize {
    Rollout::latest(world, &service()).ok().flatten().map_or(0, |rollout| rollout.records.len())
}

#[tokio::test]
async fn a_rollout_ends_although_its_coordinator_dies_after_every_single_record() {
    let site = Site::start().await;
    let (mut coordinator, _agents) = begin(&site).await;
    let address = coordinator.address;
    let id = coordinator.start("2.0.0").await.expect("a rollout");
    let world = site.follow();
    let mut changes = world.subscribe();
    let mut deaths = 0;
    loop {
        let before = records(&site.world().await);
        until(&mut changes, "one more record, or the end", |world| {
            let over = Rollout::claimed(world, &service()).is_ok_and(|claim| claim.is_none());
            records(world) > before || over
        })
        .await;
        coordinator.crash().await;
        let rollout = Rollout::read(&site.world().await, &id.parse().expect("an id")).expect("a sound journal");
        if let Some(Event::Ended { outcome, .. }) = rollout.records.last().map(|record| &record.event) {
            assert_eq!(*outcome, Outcome::Done);
            break;
        }
        deaths += 1;
        coordinator = site.coordinator_at(address).await;
    }
    assert!(deaths >= 3, "it died in the middle {deaths} times");
    let mut last = site.coordinator_at(address).await;
    last.until("the new version serves alone", |reply| reply.current_version == "2.0.0" && reply.fleet.len() == 2)
        .await;
}

#[tokio::test]
async fn an_order_that_was_recorded_is_carried_out_by_the_next_coordinator() {
    let site = Site::start().await;
    let (mut coordinator, agents) = begin(&site).await;
    let address = coordinator.address;
    agents[1].mood(Mood::Stuck);
    coordinator.start("2.0.0").await.expect("a rollout");
    coordinator.until("it has begun", |reply| reply.fleet.iter().any(|row| row.version == "2.0.0")).await;
    let abort = handover_proto::wire::OrderRequest { order: "abort".into(), by: "test".into(), ..Default::default() };
    coordinator.client.order(abort).await.expect("recorded");
    coordinator.crash().await;
    agents[1].mood(Mood::Willing);
    let mut next = site.coordinator_at(address).await;
    let reply = next.until_state("rolled-back").await;
    assert_eq!(reply.current_version, "1.0.0");
}

#[tokio::test]
async fn a_rollout_waits_for_a_store_that_is_away_and_goes_on() {
    let mut site = Site::start().await;
    let (mut coordinator, agents) = begin(&site).await;
    agents[0].mood(Mood::Stuck);
    coordinator.start("2.0.0").await.expect("a rollout");
    coordinator.until("it has begun", |reply| reply.fleet.iter().any(|row| row.version == "2.0.0")).await;
    site.stop_store().await;
    let away = coordinator
        .until("the store is missed", |reply| reply.blockers.first().is_some_and(|blocker| blocker.kind == "store"));
    assert_eq!(away.await.rollout.map(|rollout| rollout.state), Some("running".to_owned()));
    agents[0].mood(Mood::Willing);
    site.restart_store().await;
    coordinator.until_state("done").await;
}
