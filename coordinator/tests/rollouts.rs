//! Whole rollouts by a real coordinator over the embedded store, with scripted agents.

#![allow(clippy::expect_used, clippy::panic, reason = "a test may")]

mod site;

use handover_proto::ids::OpId;
use handover_proto::wire::{HistoryRequest, OrderRequest, SpecRequest, kind, refusal_kind};
use site::agent::{Mood, Scripted};
use site::{Running, Site, spec};
use tonic::Code;

/// Three agents with version 1 on all of them.
async fn fleet(site: &Site, coordinator: &mut Running) -> Vec<Scripted> {
    let mut agents = Vec::new();
    for name in ["app-01", "app-02", "app-03"] {
        agents.push(Scripted::start(site, name).await);
    }
    coordinator.until_leading().await;
    coordinator.until("all agents are heard", |reply| reply.fleet.iter().filter(|row| row.alive).count() == 3).await;
    coordinator.start("1.0.0").await.expect("the fleet is brought up");
    coordinator.until_state("done").await;
    agents
}

fn order(order: &str) -> OrderRequest {
    OrderRequest { order: order.into(), by: "test".into(), reason: "because".into(), ..OrderRequest::default() }
}

#[tokio::test]
async fn a_fleet_is_brought_up_and_upgraded() {
    let site = Site::start().await;
    let mut coordinator = site.coordinator().await;
    let _agents = fleet(&site, &mut coordinator).await;
    assert_eq!(coordinator.status().await.current_version, "1.0.0");

    coordinator.start("2.0.0").await.expect("an upgrade");
    let reply = coordinator.until_state("done").await;
    assert_eq!(reply.current_version, "2.0.0");
    let versions: Vec<&str> = reply.fleet.iter().map(|row| row.version.as_str()).collect();
    assert_eq!(versions, ["2.0.0"; 3], "the old version is retired everywhere");
    coordinator.stop().await;
}

#[tokio::test]
async fn a_start_that_is_repeated_is_the_same_rollout() {
    let site = Site::start().await;
    let mut coordinator = site.coordinator().await;
    let _agents = fleet(&site, &mut coordinator).await;
    let op = OpId::random().to_string();
    let first = coordinator.start_with(&op, "2.0.0", "").await.expect("a rollout");
    assert_eq!(coordinator.start_with(&op, "2.0.0", "").await.expect("the same"), first);
    coordinator.until_state("done").await;
    assert_eq!(coordinator.start_with(&op, "2.0.0", "").await.expect("still the same"), first);
    assert_eq!(coordinator.start("2.0.0").await.expect("nothing to do"), "", "a new one has nothing to do");
}

#[tokio::test]
async fn one_rollout_at_a_time_and_the_second_is_told_which() {
    let site = Site::start().await;
    let mut coordinator = site.coordinator().await;
    let agents = fleet(&site, &mut coordinator).await;
    agents[0].mood(Mood::Stuck);
    let running = coordinator.start("2.0.0").await.expect("a rollout");
    let refused = coordinator.start("3.0.0").await.expect_err("busy");
    assert_eq!((refused.code(), refusal_kind(&refused)), (Code::FailedPrecondition, Some(kind::POLICY)));
    assert!(refused.message().contains(&running), "{refused}");
}

#[tokio::test]
async fn a_paused_rollout_waits_until_it_is_resumed() {
    let site = Site::start().await;
    let mut coordinator = site.coordinator().await;
    let agents = fleet(&site, &mut coordinator).await;
    agents[0].mood(Mood::Stuck);
    coordinator.start("2.0.0").await.expect("a rollout");
    coordinator.client.order(order("pause")).await.expect("paused");
    let paused = coordinator.until_state("paused").await;
    assert_eq!(paused.rollout.expect("a rollout").reason, "because (by test)");
    assert_eq!(paused.blockers.first().map(|blocker| blocker.kind.as_str()), Some("paused"));
    let twice = coordinator.client.order(order("pause")).await.expect_err("paused already");
    assert_eq!(refusal_kind(&twice), Some(kind::POLICY));

    agents[0].mood(Mood::Willing);
    coordinator.client.order(order("resume")).await.expect("resumed");
    coordinator.until("it moves on", |reply| reply.rollout.as_ref().is_some_and(|r| r.state != "paused")).await;
}

#[tokio::test]
async fn an_aborted_rollout_goes_back_to_the_version_before() {
    let site = Site::start().await;
    let mut coordinator = site.coordinator().await;
    let agents = fleet(&site, &mut coordinator).await;
    agents[1].mood(Mood::Stuck);
    coordinator.start("2.0.0").await.expect("a rollout");
    coordinator.until("the agent is stuck", |reply| reply.rollout.as_ref().is_some_and(|r| r.step > 1)).await;
    // In this order: a willing fleet may be done before the order comes.
    coordinator.client.order(order("abort")).await.expect("aborted");
    agents[1].mood(Mood::Willing);
    let reply = coordinator.until_state("rolled-back").await;
    assert_eq!(reply.current_version, "1.0.0");
    assert!(reply.fleet.iter().all(|row| row.version == "1.0.0" && row.reads == 100), "{:#?}", reply.fleet);
}

#[tokio::test]
async fn a_rollback_after_the_end_is_a_new_rollout_to_the_version_before() {
    let site = Site::start().await;
    let mut coordinator = site.coordinator().await;
    let _agents = fleet(&site, &mut coordinator).await;
    let first = coordinator.start("2.0.0").await.expect("a rollout");
    coordinator.until_state("done").await;
    let reply = coordinator.client.order(order("rollback")).await.expect("a way back").into_inner();
    assert_ne!(reply.rollout, first);
    let ended = coordinator.until("it is back", |reply| reply.current_version == "1.0.0").await;
    assert_eq!(ended.rollout.expect("a rollout").to_version, "1.0.0");
    let too_old = OrderRequest { rollout: first, ..order("rollback") };
    coordinator.until_state("done").await;
    let refused = coordinator.client.order(too_old).await.expect_err("not the latest");
    assert!(refused.message().contains("not the latest"), "{refused}");
}

#[tokio::test]
async fn a_plan_changes_nothing_and_says_what_a_start_would_do() {
    let site = Site::start().await;
    let mut coordinator = site.coordinator().await;
    let _agents = fleet(&site, &mut coordinator).await;
    let before = site.store.list(&site.keys.rollouts()).await.expect("a listing").entries;
    let request = |version| SpecRequest { spec: spec(version, ""), file: "x.toml".into(), ..SpecRequest::default() };
    let plan = coordinator.client.plan(request("2.0.0")).await.expect("a plan").into_inner();
    assert!(plan.changes && plan.from_version == "1.0.0" && plan.to_version == "2.0.0", "{plan:?}");
    let same = coordinator.client.plan(request("1.0.0")).await.expect("a plan").into_inner();
    assert!(!same.changes && same.service == "billing", "{same:?}");
    assert_eq!(site.store.list(&site.keys.rollouts()).await.expect("a listing").entries, before);

    let bad = SpecRequest { spec: "[[service]]\nnam = \"x\"".into(), file: "x.toml".into(), ..SpecRequest::default() };
    let refused = coordinator.client.plan(bad).await.expect_err("a bad spec");
    assert_eq!(refusal_kind(&refused), Some(kind::INVALID));
    assert!(refused.message().contains("x.toml:2"), "{refused}");
}

#[tokio::test]
async fn history_lists_rollouts_and_shows_a_journal() {
    let site = Site::start().await;
    let mut coordinator = site.coordinator().await;
    let _agents = fleet(&site, &mut coordinator).await;
    let second = coordinator.start("2.0.0").await.expect("a rollout");
    coordinator.until_state("done").await;
    let all = coordinator.client.history(HistoryRequest::default()).await.expect("a history").into_inner();
    let versions: Vec<&str> = all.rollouts.iter().map(|rollout| rollout.to_version.as_str()).collect();
    assert_eq!(versions, ["2.0.0", "1.0.0"], "newest first");
    let one = HistoryRequest { rollout: second, ..HistoryRequest::default() };
    let lines = coordinator.client.history(one).await.expect("a journal").into_inner().lines;
    assert!(lines.first().expect("a first line").what.starts_with("started by test"), "{lines:?}");
    assert_eq!(lines.last().expect("a last line").what, "done");
    assert!(lines.iter().map(|line| line.seq).eq(1..=lines.len() as u64));
}

#[tokio::test]
async fn a_coordinator_that_stops_is_followed_by_another_that_finishes() {
    let site = Site::start().await;
    let mut first = site.coordinator().await;
    let agents = fleet(&site, &mut first).await;
    let mut second = site.coordinator().await;
    let followed = second.until("the leader is known", |reply| !reply.leader.is_empty()).await;
    assert_eq!(followed.leader, first.address.to_string());
    let refused = second.start("2.0.0").await.expect_err("a follower");
    assert_eq!(refusal_kind(&refused), Some(kind::NOT_LEADER));
    assert!(refused.message().contains(&first.address.to_string()), "{refused}");

    agents[2].mood(Mood::Stuck);
    first.start("2.0.0").await.expect("a rollout");
    let term = first.status().await.term;
    first.stop().await;
    assert!(second.until_leading().await > term);
    agents[2].mood(Mood::Willing);
    second.until_state("done").await;
}

#[tokio::test]
async fn health_and_reflection_are_answered_like_everywhere() {
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let site = Site::start().await;
    let coordinator = site.coordinator().await;
    let channel = tonic::transport::Channel::from_shared(format!("http://{}", coordinator.address)).expect("a uri");
    let channel = channel.connect().await.expect("it listens");
    let service = "handover.v1.Coordinator".to_owned();
    let check = tonic_health::pb::HealthCheckRequest { service: service.clone() };
    let health = HealthClient::new(channel.clone()).check(check).await.expect("an answer").into_inner();
    assert_eq!(health.status(), tonic_health::pb::health_check_response::ServingStatus::Serving);

    let list = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut client = ServerReflectionClient::new(channel);
    let replies = client.server_reflection_info(tokio_stream::once(request)).await.expect("a stream");
    let reply = replies.into_inner().message().await.expect("a reply").expect("one").message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = reply else { panic!("{reply:?}") };
    assert!(list.service.iter().any(|known| known.name == service), "{list:?}");
}
