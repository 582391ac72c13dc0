//! The way back.

use std::time::Duration;

use handover::core::event::{BackStep, Event, Outcome};
use handover::core::fleet::Heard;
use handover::core::next::Decision;
use handover::core::order::Order;
use handover::core::progress::State;
use handover_proto::assignment::LeaseWish::{Eligible, Never};
use handover_proto::blocker::BlockerKind;
use handover_proto::lifecycle::Lifecycle;
use handover_proto::numbers::Serial;

use crate::world::{World, agent, blockers, empty_fleet, event, obey, slot};

/// Two of three hosts serve the new version wholly, the third a quarter; then `abort`.
fn aborted() -> World {
    let mut world = World::new(3, "");
    world.until_step(9);
    world.until(BlockerKind::Soak);
    world.order(Order::Abort);
    world
}

fn outcome(world: &World) -> (Outcome, String) {
    match &world.progress.state {
        State::Ended { outcome, reason, .. } => (*outcome, reason.clone()),
        other => panic!("it has not ended: {other:?}"),
    }
}

fn crash(world: &mut World, number: u8) {
    let here = world.report(number).slots.get_mut(&slot("b")).expect("a slot");
    here.crashes = 1;
    here.instance = None;
}

#[test]
fn all_hosts_go_back_at_once_in_one_transaction() {
    let mut world = aborted();
    let Decision::Do(act) = world.lap() else { panic!("a decision") };
    assert_eq!(act.assignments.len(), 3);
    for number in 1..=3 {
        assert_eq!(world.weights(number), [(100, 100), (0, 0)]);
        let [current, candidate] = ["a", "b"].map(|name| world.wish(number, name).expect("a wish"));
        assert_eq!((current.lifecycle, current.lease), (Lifecycle::Serving, Eligible));
        assert_eq!(
            (candidate.lifecycle, candidate.lease),
            (Lifecycle::Ready, Never),
            "it runs until the lease is back"
        );
    }
}

#[test]
fn a_trigger_brings_the_routes_back_in_the_transaction_that_decides_it() {
    let mut world = World::new(3, "");
    world.until_step(1);
    world.until(BlockerKind::Soak);
    crash(&mut world, 1);
    let Decision::Do(act) = world.lap() else { panic!("a decision") };
    assert!(matches!(act.event, Event::Back { .. }));
    assert_eq!(act.assignments.keys().collect::<Vec<_>>(), [&agent(1)]);
    assert_eq!(world.weights(1), [(100, 100), (0, 0)]);
}

#[test]
fn it_ends_with_the_current_version_alone_and_the_reason() {
    let mut world = aborted();
    world.until_the_end();
    assert_eq!(outcome(&world), (Outcome::RolledBack, "because".into()));
    for number in 1..=3 {
        assert_eq!(world.weights(number), [(100, 100), (0, 0)]);
        assert_eq!(world.wish(number, "b").expect("a wish").lifecycle, Lifecycle::Terminated);
        assert!(world.fleet.instance(&agent(number), &slot("b")).is_none());
    }
}

#[test]
fn hosts_that_were_not_reached_yet_are_not_touched() {
    let mut world = World::new(3, "");
    world.until_step(1);
    let before = world.fleet.agents[&agent(3)].assigned.clone();
    world.order(Order::Rollback);
    world.until_the_end();
    assert_eq!(world.fleet.agents[&agent(3)].assigned, before);
    assert_eq!(outcome(&world).0, Outcome::RolledBack);
}

#[test]
fn candidates_that_are_gone_or_hang_keep_nobody_waiting() {
    let mut world = aborted();
    world.lap();
    for number in 1..=3 {
        let host = world.host(number);
        let reached = host.report.as_ref().expect("a report").reached;
        obey(&agent(number), host);
        // Its agent takes the routes, but cannot make the rest true: the candidate does not answer.
        let report = host.report.as_mut().expect("a report");
        report.reached = reached;
        report.slots.get_mut(&slot("b")).and_then(|here| here.instance.as_mut()).expect("an instance").ready = false;
    }
    assert_eq!(event(&world.lap()), &Event::BackEntered { step: BackStep::Lease });
    assert_eq!(event(&world.lap()), &Event::BackEntered { step: BackStep::Stop });
}

#[test]
fn a_host_whose_current_version_is_not_ready_keeps_its_candidate_until_it_is() {
    let mut world = aborted();
    world.instance(2, "a").ready = false;
    let Decision::Do(act) = world.lap() else { panic!("a decision") };
    assert_eq!(act.assignments.keys().collect::<Vec<_>>(), [&agent(1), &agent(3)], "the others go back at once");
    assert_eq!(world.weights(2), [(0, 0), (100, 100)]);
    for number in [1, 3] {
        obey(&agent(number), world.host(number));
    }
    assert_eq!(event(&world.lap()), &Event::BackEntered { step: BackStep::Lease });
    assert_eq!(event(&world.lap()), &Event::BackEntered { step: BackStep::Stop });
    for number in [1, 3] {
        obey(&agent(number), world.host(number));
    }
    assert_eq!(blockers(&world.lap()), [BlockerKind::Readiness, BlockerKind::Operator]);
    assert_eq!(world.weights(2), [(0, 0), (100, 100)], "better the new version than none");
    world.instance(2, "a").ready = true;
    assert_eq!(event(&world.lap()), &Event::Assigned { agents: vec![agent(2)] });
    world.until_the_end();
    assert_eq!((world.weights(2), outcome(&world).0), ([(100, 100), (0, 0)], Outcome::RolledBack));
}

#[test]
fn where_neither_version_is_ready_the_routes_go_back_for_when_the_current_one_is() {
    let mut world = aborted();
    world.instance(2, "a").ready = false;
    world.instance(2, "b").ready = false;
    let Decision::Do(act) = world.lap() else { panic!("a decision") };
    assert_eq!(act.assignments.len(), 3);
}

#[test]
fn a_host_that_takes_its_routes_late_is_waited_for_only_so_long() {
    let mut world = aborted();
    world.lap();
    for number in [1, 3] {
        obey(&agent(number), world.host(number));
    }
    let Decision::Wait { blockers: waits, until } = world.lap() else { panic!("a wait") };
    assert_eq!((waits.len(), waits[0].kind), (1, BlockerKind::Delivery));
    let until = until.expect("a deadline");
    world.pass(until - world.now.boot);
    assert_eq!(event(&world.lap()), &Event::BackEntered { step: BackStep::Lease });
}

#[test]
fn a_host_that_is_not_heard_keeps_only_the_end_waiting_and_is_told_through_the_store() {
    let mut world = aborted();
    world.host(2).heard = Heard::Silent { since_ms: 0 };
    let Decision::Do(act) = world.lap() else { panic!("a decision") };
    assert_eq!(act.assignments.keys().collect::<Vec<_>>(), [&agent(1), &agent(3)]);
    for step in [BackStep::Lease, BackStep::Stop] {
        for number in [1, 3] {
            obey(&agent(number), world.host(number));
        }
        assert_eq!(event(&world.lap()), &Event::BackEntered { step });
    }
    assert_eq!(world.weights(2), [(100, 100), (0, 0)], "stored, for when it comes back");
    for number in [1, 3] {
        obey(&agent(number), world.host(number));
    }
    assert_eq!(blockers(&world.lap()), [BlockerKind::AgentSilent, BlockerKind::Operator]);
    world.pass(Duration::from_secs(60));
    world.lap();
    let (outcome, reason) = outcome(&world);
    assert_eq!(outcome, Outcome::Failed);
    assert!(reason.contains("because") && reason.contains("app-02"), "{reason}");
}

#[test]
fn nothing_is_changed_unseen_while_too_few_others_serve() {
    let mut world = aborted();
    for number in [2, 3] {
        world.host(number).heard = Heard::Silent { since_ms: 0 };
    }
    world.lap();
    for _ in 0..2 {
        obey(&agent(1), world.host(1));
        world.lap();
    }
    obey(&agent(1), world.host(1));
    world.pass(Duration::from_secs(3600));
    assert_eq!(blockers(&world.lap()), [BlockerKind::Floor, BlockerKind::Floor, BlockerKind::Operator]);
    assert_eq!(world.weights(2), [(0, 0), (100, 100)]);
    world.host(3).heard = Heard::Yes;
    world.until_the_end();
    assert_eq!(outcome(&world).0, Outcome::Failed, "app-02 is still away");
}

#[test]
fn an_operator_can_take_over_what_cannot_be_undone() {
    let mut world = aborted();
    world.instance(2, "a").ready = false;
    world.lap();
    for _ in 0..2 {
        for number in [1, 3] {
            obey(&agent(number), world.host(number));
        }
        world.lap();
    }
    world.order(Order::Abort);
    let (outcome, reason) = outcome(&world);
    assert!(outcome == Outcome::Failed && reason.contains("ann"), "{reason}");
}

#[test]
fn a_failed_bring_up_stops_what_it_started() {
    let mut world = World::of(empty_fleet(2), "");
    world.until_step(1);
    world.until(BlockerKind::Soak);
    let here = world.report(1).slots.get_mut(&slot("a")).expect("a slot");
    here.crashes = 1;
    world.until_the_end();
    assert_eq!(outcome(&world).0, Outcome::Failed);
    for number in 1..=2 {
        assert!(world.fleet.instance(&agent(number), &slot("a")).is_none());
        assert_eq!(world.wish(number, "a").expect("a wish").lifecycle, Lifecycle::Terminated);
    }
}

#[test]
fn it_does_not_end_before_every_candidate_is_seen_gone() {
    let mut world = aborted();
    for _ in 0..3 {
        world.lap();
        world.obey();
    }
    assert!(matches!(world.progress.state, State::GoingBack { step: BackStep::Stop, .. }));
    world.report(1).reached = Serial(1);
    assert_eq!(blockers(&world.lap())[0], BlockerKind::Start);
    world.obey();
    assert!(matches!(event(&world.lap()), Event::Ended { outcome: Outcome::RolledBack, .. }));
}

#[test]
fn once_back_nothing_that_the_candidates_do_turns_it_round() {
    let mut world = aborted();
    for _ in 0..50 {
        let decision = world.lap();
        assert!(
            !matches!(decision, Decision::Do(act) if matches!(act.event, Event::Entered { .. } | Event::Resumed { .. }))
        );
        world.obey();
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(outcome(&world).0, Outcome::RolledBack);
}
