//! A version is put in place on hosts, each at its own pace, and nothing else waits for it.

use handover::core::fleet::{Heard, Staging};
use handover::core::staging::HostEnd;
use handover::core::standing::give::Refused;
use handover::core::standing::next::Step;
use handover::core::standing::{Outcome, RunningRollout, What};
use handover_proto::blocker::BlockerKind;
use handover_proto::numbers::Serial;
use handover_proto::staging::{Stages, StagingRefusal, StagingState};
use handover_proto::stored::encode;

use super::stage::{GIVEN, Stage, drain, handoff};
use crate::world::{agent, version};

fn site() -> Stage {
    let mut stage = Stage::new(3);
    stage.fleet.agents.values_mut().for_each(|host| host.registration.stages = Some(Stages::Fetches));
    stage
}

fn stage_on(hosts: impl IntoIterator<Item = u8>) -> What {
    What::Stage { version: version("1.5.0"), hosts: hosts.into_iter().map(agent).collect() }
}

/// The host says so, about what is asked for now.
fn says(stage: &mut Stage, number: u8, state: StagingState) -> Serial {
    let requested = stage.fleet.staging.as_ref().expect("something is asked for");
    let (serial, version) = (requested.serial, Some(requested.request.version.clone()));
    let refusal = (state == StagingState::Refused).then_some(StagingRefusal::Artifact);
    let report = stage.fleet.agents.get_mut(&agent(number)).and_then(|host| host.report.as_mut()).expect("a report");
    let sentence = "its own words".to_owned();
    report.staging =
        Some(Staging { serial, version, state, since_ms: GIVEN, done_bytes: 1, total_bytes: 4, refusal, sentence });
    serial
}

fn silence(stage: &mut Stage, number: u8) {
    stage.fleet.agents.get_mut(&agent(number)).expect("a host").heard = Heard::Silent { since_ms: 5 };
}

#[test]
fn every_host_is_asked_at_once_and_the_order_ends_with_the_last_of_them() {
    let mut stage = site();
    stage.give(stage_on(1..=3));
    assert_eq!(stage.fleet.staging.as_ref().expect("asked").request.hosts.len(), 3);
    assert_eq!(stage.settle(), Some(BlockerKind::Delivery));
    for number in 1..=3 {
        says(&mut stage, number, StagingState::Fetching);
    }
    assert_eq!(stage.settle(), Some(BlockerKind::Staging));
    for number in 1..=3 {
        says(&mut stage, number, StagingState::Staged);
        stage.settle();
    }
    assert_eq!(stage.end(), (Outcome::Done, "1.5.0 is staged on 3 hosts".into()));
    assert_eq!(stage.fleet.staging, None, "nothing is asked of hosts that come later");
    let said: Vec<&str> = stage.order().lines.iter().map(|line| line.what.as_str()).collect();
    assert!(said.iter().any(|line| *line == format!("{} has 1.5.0 in place: its own words", agent(2))), "{said:?}");
}

#[test]
fn a_host_that_refuses_does_not_stop_the_others_and_is_named_with_its_reason() {
    let mut stage = site();
    stage.give(stage_on(1..=3));
    says(&mut stage, 2, StagingState::Refused);
    assert_eq!(stage.settle(), Some(BlockerKind::Delivery), "the others go on");
    says(&mut stage, 1, StagingState::Staged);
    says(&mut stage, 3, StagingState::Staged);
    stage.settle();
    let (outcome, reason) = stage.end();
    assert_eq!(outcome, Outcome::Failed);
    let refuses = format!("{} refuses 1.5.0 (artifact): its own words", agent(2));
    assert!(reason.starts_with("1.5.0 is staged on 2 of 3 hosts") && reason.ends_with(&refuses), "{reason}");
}

#[test]
fn a_host_that_is_away_is_waited_for_by_name_and_what_others_said_before_stands() {
    let mut stage = site();
    stage.give(stage_on(1..=2));
    says(&mut stage, 1, StagingState::Staged);
    silence(&mut stage, 2);
    assert_eq!(stage.settle(), Some(BlockerKind::AgentSilent));
    let Step::Wait { blocker, .. } = stage.decide() else { panic!("it waits") };
    assert!(blocker.waiting_for.contains(agent(2).as_str()), "{}", blocker.waiting_for);
    silence(&mut stage, 1);
    stage.fleet.agents.get_mut(&agent(2)).expect("a host").heard = Heard::Yes;
    says(&mut stage, 2, StagingState::Staged);
    stage.settle();
    assert_eq!(stage.end().0, Outcome::Done, "the first one is away now, and had ended before");
}

#[test]
fn an_answer_to_an_older_request_is_none() {
    let mut stage = site();
    stage.give(stage_on([1]));
    let serial = says(&mut stage, 1, StagingState::Staged);
    stage.fleet.staging.as_mut().expect("asked").serial = Serial(serial.0 + 1);
    assert_eq!(stage.settle(), Some(BlockerKind::Delivery));
}

#[test]
fn an_answer_about_another_version_is_none_though_a_restored_store_counts_the_same_again() {
    let mut stage = site();
    stage.give(stage_on([1]));
    says(&mut stage, 1, StagingState::Staged);
    let host = stage.fleet.agents.get_mut(&agent(1)).expect("a host");
    let told = host.report.as_mut().and_then(|report| report.staging.as_mut()).expect("told");
    told.version = Some(version("1.4.0"));
    assert_eq!(stage.settle(), Some(BlockerKind::Delivery));
}

#[test]
fn an_agent_that_cannot_read_the_request_is_waited_for_with_its_reason() {
    let mut stage = site();
    stage.give(stage_on([1]));
    says(&mut stage, 1, StagingState::Waiting);
    let host = stage.fleet.agents.get_mut(&agent(1)).expect("a host");
    host.report.as_mut().and_then(|report| report.staging.as_mut()).expect("told").serial = Serial(0);
    assert_eq!(stage.settle(), Some(BlockerKind::Store));
}

#[test]
fn a_host_that_is_retired_meanwhile_is_no_reason_to_wait() {
    let mut stage = site();
    stage.give(stage_on(1..=2));
    says(&mut stage, 1, StagingState::Staged);
    stage.fleet.agents.remove(&agent(2));
    stage.settle();
    assert_eq!(stage.end().0, Outcome::Failed);
    assert_eq!(stage.order().staged[&agent(2)], HostEnd::Gone);
}

#[test]
fn an_order_that_many_hosts_refuse_at_length_fits_into_the_store() {
    let mut stage = site();
    stage.give(stage_on(1..=3));
    says(&mut stage, 1, StagingState::Refused);
    let host = stage.fleet.agents.get_mut(&agent(1)).expect("a host");
    host.report.as_mut().and_then(|report| report.staging.as_mut()).expect("told").sentence = "ä".repeat(5000);
    stage.settle();
    let entry = encode(&stage.order().staged).expect("json").len();
    let line = encode(&stage.order().lines).expect("json").len();
    assert!(entry < 600 && line < 3000, "{entry} and {line} bytes");
    // 64 lines, two bytes for each of these characters, and etcd takes 1.5 MiB.
    assert!(entry * 2000 + line * 64 < 3 << 19);
}

#[test]
fn what_somebody_deleted_is_asked_again_of_those_who_have_not_ended() {
    let mut stage = site();
    stage.give(stage_on(1..=2));
    says(&mut stage, 1, StagingState::Staged);
    stage.settle();
    stage.fleet.staging = None;
    stage.settle();
    let asked = &stage.fleet.staging.as_ref().expect("asked again").request.hosts;
    assert_eq!(asked.iter().collect::<Vec<_>>(), [&agent(2)]);
    says(&mut stage, 2, StagingState::Staged);
    stage.settle();
    assert_eq!(stage.end().0, Outcome::Done);
}

#[test]
fn a_staging_that_is_cancelled_asks_nothing_any_more() {
    let mut stage = site();
    stage.give(stage_on(1..=2));
    says(&mut stage, 1, StagingState::Staged);
    stage.settle();
    stage.cancel().expect("it is open");
    assert_eq!(stage.fleet.staging, None);
    assert_eq!(stage.end(), (Outcome::Undone, "cancelled by bob".into()));
}

#[test]
fn a_rollout_that_begins_ends_a_staging_whether_it_stages_itself_or_not() {
    for stages_itself in [false, true] {
        let mut stage = site();
        stage.give(stage_on(1..=2));
        let id = "7f3a2c".parse().expect("an id");
        if stages_itself {
            let requested = stage.fleet.staging.as_mut().expect("asked");
            requested.request.cause.rollout = Some(id);
        }
        stage.rollout = Some(RunningRollout { id: "7f3a2c".parse().expect("an id"), moves_lease: false });
        let theirs = stage.fleet.staging.clone().filter(|_| stages_itself);
        stage.settle();
        let (outcome, reason) = stage.end();
        assert!(outcome == Outcome::Undone && reason.contains("rollout 7f3a2c runs"), "{reason}");
        assert_eq!(stage.fleet.staging, theirs, "what the rollout asks for stays");
    }
}

#[test]
fn the_request_of_somebody_else_is_left_alone() {
    let mut stage = site();
    stage.give(stage_on(1..=2));
    let requested = stage.fleet.staging.as_mut().expect("asked");
    requested.request.cause.step += 1;
    let theirs = stage.fleet.staging.clone();
    stage.settle();
    assert_eq!(stage.end().0, Outcome::Undone);
    assert_eq!(stage.fleet.staging, theirs);
}

#[test]
fn nothing_else_waits_for_a_staging() {
    let mut stage = site();
    stage.give(stage_on(1..=3));
    let staging = stage.order().clone();
    stage.others.push(staging);
    stage.try_give(handoff(Some(1)), None).expect("the lease moves");
    stage.try_give(drain(1), None).expect("a host is drained");
}

#[test]
fn what_cannot_be_staged_is_refused_at_once() {
    let refusal = |change: fn(&mut Stage), what: What| {
        let mut stage = site();
        change(&mut stage);
        stage.try_give(what, None).expect_err("refused")
    };
    assert_eq!(refusal(|_| (), stage_on([])), Refused::NoHosts);
    assert_eq!(refusal(|_| (), stage_on([9])), Refused::UnknownAgent(agent(9)));
    let old = |stage: &mut Stage| {
        stage.fleet.agents.get_mut(&agent(2)).expect("a host").registration.stages = None;
    };
    let too_old = refusal(old, stage_on(1..=3));
    assert!(matches!(&too_old, Refused::CannotStage { agent: host, .. } if *host == agent(2)), "{too_old}");
    let runs = |stage: &mut Stage| {
        let id = "7f3a2c".parse().expect("an id");
        stage.rollout = Some(RunningRollout { id, moves_lease: false });
    };
    assert!(matches!(refusal(runs, stage_on([1])), Refused::RolloutHasItsVersion(_)));
    let another = |stage: &mut Stage| {
        stage.give(stage_on([1]));
        let open = stage.order().clone();
        stage.others.push(handover::core::standing::StandingOrder { number: 6, ..open });
    };
    assert!(matches!(refusal(another, stage_on([2])), Refused::OtherStaging { number: 6, .. }));
}
