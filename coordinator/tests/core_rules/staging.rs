//! The step before all others: the version is in place everywhere, or nothing is touched.

use std::collections::BTreeMap;

use handover::core::event::{Event, Outcome};
use handover::core::fleet::{Fleet, Heard, Staging};
use handover::core::next::Decision;
use handover::core::order::Order;
use handover::core::plan::{PlanError, Step};
use handover::core::progress::State;
use handover::core::staging::{HostEnd, refusals};
use handover_proto::blocker::BlockerKind;
use handover_proto::staging::{Stages, StagingRefusal, StagingState};

use crate::world::{World, agent, blockers, event, plan, serving_fleet, spec, version};

fn fleet(stages: Option<Stages>) -> Fleet {
    let mut fleet = serving_fleet(3);
    fleet.agents.values_mut().for_each(|host| host.registration.stages = stages);
    fleet
}

fn steps(fleet: &Fleet, more: &str) -> Vec<Step> {
    plan(&spec(more), fleet).expect("a plan").steps
}

/// The host says so, about what is asked for now.
fn says(world: &mut World, number: u8, state: StagingState) {
    let requested = world.fleet.staging.as_ref().expect("something is asked for");
    let (serial, version) = (requested.serial, Some(requested.request.version.clone()));
    let refusal = (state == StagingState::Refused).then_some(StagingRefusal::Space);
    let sentence = "its own words".to_owned();
    world.report(number).staging =
        Some(Staging { serial, version, state, since_ms: 1, done_bytes: 1, total_bytes: 4, refusal, sentence });
}

/// A rollout whose hosts were asked.
fn asked() -> World {
    let mut world = World::of(fleet(Some(Stages::Fetches)), "");
    assert_eq!(event(&world.lap()), &Event::Staging);
    world
}

/// What hosts are assigned, to see that nobody touches it.
fn assigned(world: &World) -> Vec<i64> {
    world.fleet.agents.values().filter_map(|host| host.assigned.as_ref()).map(|assigned| assigned.serial.0).collect()
}

#[test]
fn the_step_is_there_where_an_agent_fetches_or_the_spec_says_so_and_never_against_it() {
    let (fetches, verifies, old) = (fleet(Some(Stages::Fetches)), fleet(Some(Stages::Verifies)), fleet(None));
    assert_eq!(steps(&fetches, "")[0], Step::Stage);
    assert_ne!(steps(&verifies, "")[0], Step::Stage);
    assert_eq!(steps(&verifies, "[rollout]\nstage = true")[0], Step::Stage);
    assert_ne!(steps(&fetches, "[rollout]\nstage = false")[0], Step::Stage);
    assert_ne!(steps(&old, "")[0], Step::Stage);
    let refused = plan(&spec("[rollout]\nstage = true"), &old).expect_err("nobody can be asked");
    assert!(matches!(&refused, PlanError::CannotStage { agent: host, .. } if *host == agent(1)), "{refused}");
    let mut mixed = fleet(Some(Stages::Fetches));
    mixed.agents.get_mut(&agent(2)).expect("a host").registration.stages = None;
    assert_ne!(steps(&mixed, "")[0], Step::Stage, "a host that cannot be asked would never be done");
}

#[test]
fn nothing_is_assigned_before_every_host_has_the_version() {
    let mut world = asked();
    let before = assigned(&world);
    assert_eq!(world.fleet.staging.as_ref().expect("asked").request.hosts.len(), 3);
    assert_eq!(blockers(&world.lap()), [BlockerKind::Delivery; 3]);
    says(&mut world, 1, StagingState::Staged);
    says(&mut world, 2, StagingState::Fetching);
    world.host(3).heard = Heard::Silent { since_ms: 5 };
    assert_eq!(blockers(&world.lap()), [BlockerKind::AgentSilent, BlockerKind::Staging]);
    assert_eq!(assigned(&world), before);
    world.host(3).heard = Heard::Yes;
    says(&mut world, 2, StagingState::Staged);
    says(&mut world, 3, StagingState::Staged);
    assert_eq!(event(&world.lap()), &Event::Entered { step: 1 });
    assert_eq!(world.fleet.staging, None, "nothing is asked for any more");
    world.until_the_end();
    let ended = Event::Ended { outcome: Outcome::Done, reason: String::new() };
    assert_eq!(world.events().last(), Some(&&ended));
}

#[test]
fn a_host_that_refuses_ends_the_rollout_before_anything_was_touched() {
    let mut world = asked();
    let before = assigned(&world);
    says(&mut world, 1, StagingState::Fetching);
    says(&mut world, 2, StagingState::Refused);
    let decision = world.lap();
    let Event::Ended { outcome: Outcome::Failed, reason } = event(&decision) else { panic!("{decision:?}") };
    let refuses = format!("{} refuses 1.1.0 (space): its own words", agent(2));
    assert_eq!(*reason, format!("nothing was touched: {refuses}"));
    assert!(matches!(world.progress.state, State::Ended { outcome: Outcome::Failed, .. }));
    assert_eq!((assigned(&world), world.fleet.staging.clone()), (before, None));
}

#[test]
fn an_agent_that_is_downgraded_meanwhile_is_named_and_not_waited_for() {
    let mut world = asked();
    world.host(2).registration.stages = None;
    world.host(2).heard = Heard::Silent { since_ms: 5 };
    assert!(blockers(&world.lap()).contains(&BlockerKind::AgentSilent), "it may be upgraded before it is back");
    world.host(2).heard = Heard::Yes;
    let decision = world.lap();
    let Event::Ended { outcome: Outcome::Failed, reason } = event(&decision) else { panic!("{decision:?}") };
    assert!(reason.contains("app-02 refuses 1.1.0 (other): agent 0.1.0 is too old to stage; upgrade it"), "{reason}");
}

#[test]
fn an_abort_meanwhile_touches_nothing_and_takes_back_what_was_asked_for() {
    let mut world = asked();
    let before = assigned(&world);
    world.order(Order::Abort);
    world.until_the_end();
    assert!(matches!(world.progress.state, State::Ended { outcome: Outcome::RolledBack, .. }));
    assert_eq!((assigned(&world), world.fleet.staging.clone()), (before, None));
}

#[test]
fn a_pause_does_not_stop_the_hosts() {
    let mut world = asked();
    world.order(Order::Pause);
    assert_eq!(blockers(&world.lap()), [BlockerKind::Paused]);
    assert!(world.fleet.staging.is_some());
    world.order(Order::Resume);
    (1..=3).for_each(|number| says(&mut world, number, StagingState::Staged));
    assert_eq!(event(&world.lap()), &Event::Entered { step: 1 });
}

#[test]
fn deciding_twice_asks_once_and_what_is_lost_or_somebody_elses_is_asked_again() {
    let mut world = asked();
    assert!(matches!(world.decide(), Decision::Wait { .. }));
    world.fleet.staging = None;
    assert_eq!(event(&world.lap()), &Event::Staging);
    let requested = world.fleet.staging.as_mut().expect("asked");
    requested.request.cause.rollout = None;
    assert_eq!(event(&world.lap()), &Event::Staging, "an order gives way to a rollout");
}

#[test]
fn many_refusals_fit_into_one_record() {
    let end = |words: &str| HostEnd::Refused { why: StagingRefusal::Fetch, sentence: words.to_owned() };
    let ends: BTreeMap<_, _> = (1..=100).map(|number| (agent(number), end("no answer"))).collect();
    let said = refusals(&ends, &version("1.1.0")).expect("some refuse");
    assert!(said.starts_with(&format!("{} refuses 1.1.0 (fetch): no answer; also ", agent(1))), "{said}");
    assert!(said.ends_with("and 79 more") && said.len() < 1000, "{said}");
    assert_eq!(refusals(&BTreeMap::new(), &version("1.1.0")), None);
    let mut world = asked();
    let serial = world.fleet.staging.as_ref().expect("asked").serial;
    let version = Some(version("1.1.0"));
    let (state, refusal) = (StagingState::Refused, Some(StagingRefusal::Fetch));
    let sentence = "long ".repeat(10_000);
    world.report(1).staging =
        Some(Staging { serial, version, state, since_ms: 1, done_bytes: 0, total_bytes: 0, refusal, sentence });
    assert!(matches!(event(&world.lap()), Event::Ended { outcome: Outcome::Failed, .. }));
}
