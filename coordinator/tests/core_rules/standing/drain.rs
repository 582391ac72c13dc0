//! A host leaves step by step, and always comes back.

use std::time::Duration;

use handover::core::fleet::Heard;
use handover::core::floor;
use handover::core::plan::PlanError;
use handover::core::standing::give::Refused;
use handover::core::standing::{Outcome, Phase};
use handover_proto::assignment::LeaseWish;
use handover_proto::blocker::{Blocker, BlockerKind};
use handover_proto::lifecycle::Lifecycle;

use super::stage::{Stage, drain};
use crate::world::{agent, hold, plan, slot, spec};

/// Drained up to the moment at which it gets no traffic any more.
fn emptied(mut stage: Stage, number: u8) -> Stage {
    stage.give(drain(number)).obey();
    stage.settle();
    stage.pass(Duration::from_secs(5));
    stage.settle();
    stage
}

#[test]
fn the_lease_goes_first_then_balancers_are_told_and_only_then_does_traffic_go() {
    let mut stage = Stage::new(2);
    let before = stage.assignment(2);
    stage.give(drain(2));
    assert_eq!((stage.settle(), stage.assignment(2)), (Some(BlockerKind::Quiesce), before.clone()));
    stage.follow(true);
    assert_eq!(stage.settle(), Some(BlockerKind::Delivery), "the agent is to say that it leaves");
    let leaving = stage.assignment(2);
    assert!(leaving.leaving && leaving.routes == before.routes, "its gate serves on");
    assert_eq!(leaving.slots[&slot("a")].lease, LeaseWish::Never, "it does not take the lease again");
    assert!(!floor::serving(&stage.fleet).contains(&agent(2)), "balancers have no use of it any more");
    stage.obey();
    assert_eq!(stage.settle(), Some(BlockerKind::Drain), "balancers get time");
    stage.pass(Duration::from_secs(5));
    assert_eq!(stage.settle(), Some(BlockerKind::Delivery));
    let empty = stage.assignment(2);
    assert_eq!((empty.slots[&slot("a")].lifecycle, empty.routes.len()), (Lifecycle::Ready, 0));
    stage.obey();
    assert_eq!(stage.settle(), None);
    assert!(matches!(stage.order().phase, Phase::Drained { .. }) && !stage.order().is_over());

    stage.cancel().expect("undrain");
    assert_eq!(stage.settle(), Some(BlockerKind::Delivery));
    let back = stage.assignment(2);
    assert_eq!((&back.slots, &back.routes, back.leaving), (&before.slots, &before.routes, false), "as it was");
    stage.obey();
    assert_eq!((stage.settle(), stage.end().0), (None, Outcome::Done));
}

#[test]
fn a_drain_begins_only_when_the_balancers_say_so_and_why_names_them() {
    let mut stage = Stage::new(3);
    stage.give(drain(1)).obey();
    let silent = Blocker {
        kind: BlockerKind::BalancerUnreachable,
        since_ms: 5,
        waiting_for: "HAProxy does not answer on /run/haproxy/admin.sock".into(),
    };
    let front = |stage: &mut Stage, pending: bool| {
        let report = stage.fleet.agents.get_mut(&agent(1)).and_then(|host| host.report.as_mut()).expect("a report");
        (report.front_pending, report.blocker) = (pending, pending.then(|| silent.clone()));
    };
    front(&mut stage, true);
    stage.pass(Duration::from_secs(700));
    assert_eq!(stage.settle(), Some(BlockerKind::BalancerUnreachable), "no time makes it begin");
    assert!(!stage.assignment(1).routes.is_empty(), "its gate serves on");
    front(&mut stage, false);
    assert_eq!(stage.settle(), Some(BlockerKind::Drain), "now balancers have their time");
}

#[test]
fn a_host_that_its_balancers_do_not_send_to_does_not_count_as_serving() {
    let mut stage = Stage::new(3);
    let pending = |stage: &mut Stage, pending| {
        let host = stage.fleet.agents.get_mut(&agent(2)).expect("a host");
        host.report.as_mut().expect("a report").front_pending = pending;
    };
    assert!(floor::serving(&stage.fleet).contains(&agent(2)));
    pending(&mut stage, true);
    assert!(!floor::serving(&stage.fleet).contains(&agent(2)));
    let refused = stage.try_give(drain(1), None).expect_err("two of three would be out");
    assert!(matches!(refused, Refused::Floor { left: 1, .. }), "{refused:?}");
    let itself = stage.try_give(drain(2), None);
    assert!(itself.is_ok(), "{itself:?}");
}

#[test]
fn a_host_without_the_lease_leaves_at_once() {
    let mut stage = Stage::new(3);
    stage.give(drain(1));
    assert!(stage.intent().is_none() && stage.assignment(1).leaving);
}

#[test]
fn as_long_as_requests_arrive_the_host_serves_them() {
    let mut stage = Stage::new(3);
    stage.give(drain(1)).obey();
    stage.settle();
    stage.quiet = Duration::from_millis(900);
    stage.pass(Duration::from_secs(300));
    assert_eq!(stage.settle(), Some(BlockerKind::Drain));
    assert!(!stage.assignment(1).routes.is_empty());
    stage.pass(Duration::from_secs(300));
    stage.settle();
    assert!(!stage.assignment(1).leaving, "given up, and given back");
    stage.obey();
    stage.settle();
    let (outcome, reason) = stage.end();
    assert!(outcome == Outcome::Undone && reason.contains("requests still arrive"), "{reason}");
}

#[test]
fn a_host_that_took_the_lease_in_between_hands_it_over_again() {
    let mut stage = Stage::new(3);
    stage.give(drain(1)).obey();
    stage.settle();
    hold(&mut stage.fleet.lease, &agent(1), "a", "1.0.0", 5000);
    assert_eq!(stage.settle(), Some(BlockerKind::Quiesce));
    assert!(stage.intent().is_some());
    stage.follow(true);
    stage.settle();
    assert!(matches!(stage.order().phase, Phase::Leaving { .. }));
    let before = stage.order().before.clone().expect("what it was");
    assert!(!before.leaving, "what is given back is what was before the order");
}

#[test]
fn a_host_that_a_rollout_left_out_of_its_balancers_is_given_back_by_drain_and_undrain() {
    let mut stage = Stage::new(2);
    let host = stage.fleet.agents.get_mut(&agent(1)).expect("an agent");
    host.assigned.as_mut().expect("assigned").assignment.leaving = true;
    stage.give(drain(1));
    assert!(!stage.order().before.clone().expect("what it was").leaving);
    stage.cancel().expect("undrain");
    assert!(!stage.assignment(1).leaving);
}

#[test]
fn a_drain_whose_lease_cannot_move_leaves_the_host_as_it_is() {
    let mut stage = Stage::new(1);
    let before = stage.assignment(1);
    stage.give(drain(1)).decline();
    assert_eq!(stage.settle(), None);
    assert_eq!((stage.end().0, stage.assignment(1), stage.intent()), (Outcome::Undone, before, None));
}

#[test]
fn a_lease_that_cannot_move_later_gives_the_host_back() {
    let mut stage = emptied(Stage::new(3), 1);
    hold(&mut stage.fleet.lease, &agent(1), "a", "1.0.0", 5000);
    stage.settle();
    stage.decline();
    stage.settle();
    assert!(!stage.assignment(1).routes.is_empty(), "its traffic is back");
    stage.obey();
    assert_eq!((stage.settle(), stage.end().0), (None, Outcome::Undone));
}

#[test]
fn a_silent_host_is_named_and_waited_for() {
    let mut stage = Stage::new(3);
    stage.give(drain(1));
    stage.fleet.agents.get_mut(&agent(1)).expect("a host").heard = Heard::Silent { since_ms: 5 };
    assert_eq!(stage.settle(), Some(BlockerKind::AgentSilent));
}

#[test]
fn work_in_flight_is_waited_for_in_the_agents_own_words() {
    let mut stage = emptied(Stage::new(3), 1);
    stage.obey();
    let host = stage.fleet.agents.get_mut(&agent(1)).expect("a host");
    let report = host.report.as_mut().expect("a report");
    report.reached = handover_proto::numbers::Serial(0);
    let waiting_for = "slot a: 1.0.0 drains: 4 requests (oldest 9s)".to_owned();
    report.blocker = Some(handover_proto::blocker::Blocker { kind: BlockerKind::Drain, since_ms: 1, waiting_for });
    let handover::core::standing::next::Step::Wait { blocker, .. } = stage.decide() else { panic!("it waits") };
    assert!(blocker.waiting_for.contains("4 requests"), "{}", blocker.waiting_for);
}

#[test]
fn no_rollout_is_planned_while_a_host_is_out() {
    let mut stage = emptied(Stage::new(3), 1);
    stage.fleet.drained.insert(agent(1), 7);
    let refused = plan(&spec(""), &stage.fleet).expect_err("a host is out");
    assert!(matches!(refused, PlanError::Drained { order: 7, .. }) && refused.to_string().contains("handover undrain"));
}

#[test]
fn a_host_that_leaves_is_given_back_if_its_heir_loses_the_lease_to_another_one() {
    let mut stage = Stage::new(3);
    let before = stage.assignment(1);
    stage.give(drain(1)).obey();
    // It takes the lease over, before it can be kept from it, and hands it over to one that loses it.
    hold(&mut stage.fleet.lease, &agent(1), "a", "1.0.0", 5000);
    assert_eq!(stage.settle(), Some(BlockerKind::Quiesce));
    stage.follow(false);
    assert_eq!(stage.settle(), Some(BlockerKind::Lease));
    hold(&mut stage.fleet.lease, &agent(3), "a", "1.0.0", 6000);
    assert_eq!(stage.settle(), Some(BlockerKind::Delivery), "it is to take its traffic back");
    let back = stage.assignment(1);
    assert_eq!((&back.slots, &back.routes, back.leaving), (&before.slots, &before.routes, false), "as it was");
    stage.obey();
    assert_eq!((stage.settle(), stage.end().0, stage.intent()), (None, Outcome::Failed, None));
}
