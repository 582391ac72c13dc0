//! The lease in a rollout: asked for once, never moved.

use std::time::Duration;

use handover::core::event::{BackStep, Event, Outcome};
use handover::core::next::{Ask, Decision};
use handover::core::order::Order;
use handover::core::progress::State;
use handover_proto::assignment::LeaseWish::{Eligible, Never};
use handover_proto::blocker::BlockerKind;
use handover_proto::lease::IntentKind;

use crate::world::{World, agent, blockers, event, hold, instance_id, intent, slot};

const LEASE: u32 = 12;

/// At the step that moves the lease, with everything else met; app-03's current instance holds.
fn before_the_move() -> World {
    let mut world = World::with_holder(3, 3, "");
    world.until_step(LEASE);
    world.obey();
    world
}

fn asked(decision: &Decision) -> (IntentKind, String, String) {
    match event(decision) {
        Event::Asked { intent, from, to, .. } => (*intent, from.to_string(), to.to_string()),
        other => panic!("a request was expected, not {other:?}"),
    }
}

fn id(number: u8, name: &str) -> String {
    instance_id(&agent(number), &slot(name)).to_string()
}

fn decline(world: &mut World) {
    let open = intent(world).expect("an intent");
    let holder = world.fleet.lease.candidates.get_mut(&open.from).expect("the holder");
    holder.value.declined = Some(open.op);
}

#[test]
fn until_the_lease_step_only_the_current_version_may_hold_and_from_it_on_only_the_new_one() {
    let mut world = World::with_holder(3, 3, "");
    for step in 1..LEASE {
        world.until_step(step);
        assert!((1..=3).all(|n| world.wish(n, "a").expect("a wish").lease == Eligible), "step {step}");
        assert!((1..=3).all(|n| world.wish(n, "b").is_none_or(|wish| wish.lease == Never)), "step {step}");
    }
    world.until_step(LEASE);
    assert!((1..=3).all(|n| world.wish(n, "a").expect("a wish").lease == Never));
    assert!((1..=3).all(|n| world.wish(n, "b").expect("a wish").lease == Eligible));
}

#[test]
fn the_holder_is_asked_once_to_hand_over_to_the_candidate_that_soaked_longest() {
    let mut world = before_the_move();
    assert_eq!(intent(&world), None, "never before");
    let decision = world.lap();
    assert_eq!(asked(&decision), (IntentKind::Handoff, id(3, "a"), id(1, "b")));
    let written = intent(&world).expect("an intent");
    assert_eq!((written.term, written.cause.step, written.quiesce_timeout_ms), (world.now.term, LEASE, 30_000));
    for _ in 0..50 {
        assert_eq!(blockers(&world.lap()), [BlockerKind::Quiesce]);
        world.pass(Duration::from_millis(500));
    }
}

#[test]
fn a_frozen_lease_is_not_asked_for_and_the_wait_names_the_freeze() {
    let mut world = before_the_move();
    world.fleet.lease.frozen = true;
    assert_eq!(blockers(&world.lap()), [BlockerKind::Operator]);
    assert_eq!(intent(&world), None);
    world.pass(Duration::from_secs(60));
    let decision = world.lap();
    let Event::Paused { reason, .. } = event(&decision) else { panic!("{decision:?}") };
    assert!(reason.contains("unfreeze"), "{reason}");

    let mut world = before_the_move();
    world.fleet.lease.frozen = true;
    assert_eq!(blockers(&world.lap()), [BlockerKind::Operator]);
    world.fleet.lease.frozen = false;
    assert_eq!(asked(&world.lap()), (IntentKind::Handoff, id(3, "a"), id(1, "b")));
}

#[test]
fn a_restarted_coordinator_does_not_ask_again() {
    let mut world = before_the_move();
    world.lap();
    let op = intent(&world).expect("an intent").op;
    world.progress = handover::core::progress::Progress::fold(&world.plan, &world.records).expect("legal");
    world.samples = Default::default();
    assert_eq!(blockers(&world.lap()), [BlockerKind::Quiesce]);
    assert_eq!(intent(&world).expect("an intent").op, op);
}

#[test]
fn deciding_twice_the_same_gives_the_same_request() {
    let mut world = before_the_move();
    assert_eq!(world.decide(), world.decide());
}

#[test]
fn it_goes_on_once_the_new_holder_works_and_clears_the_intent() {
    let mut world = before_the_move();
    world.lap();
    world.hand_over();
    let new = instance_id(&agent(1), &slot("b"));
    let working = world.fleet.lease.candidates[&new].value.active;
    world.fleet.lease.candidates.get_mut(&new).expect("it").value.active = None;
    assert_eq!(blockers(&world.lap()), [BlockerKind::Lease], "it holds, but its service has not said that it works");
    world.fleet.lease.candidates.get_mut(&new).expect("it").value.active = working;
    let Decision::Do(act) = world.lap() else { panic!("a decision") };
    assert_eq!((act.event, act.ask), (Event::Entered { step: LEASE + 1 }, Some(Ask::Withdraw)));
}

#[test]
fn a_new_holder_that_never_works_sends_it_back() {
    let mut world = before_the_move();
    world.lap();
    world.hand_over();
    world.fleet.lease.candidates.get_mut(&instance_id(&agent(1), &slot("b"))).expect("it").value.active = None;
    world.pass(Duration::from_secs(45));
    let decision = world.lap();
    let Event::Back { reason, .. } = event(&decision) else { panic!("{decision:?}") };
    assert!(reason.contains("app-01") && reason.contains("does not work"), "{reason}");
}

#[test]
fn a_holder_that_declines_pauses_it_and_is_asked_anew_after_a_resume() {
    let mut world = before_the_move();
    world.lap();
    let first = intent(&world).expect("an intent").op;
    decline(&mut world);
    let decision = world.lap();
    let Event::Paused { reason, .. } = event(&decision) else { panic!("{decision:?}") };
    assert!(reason.contains("app-03") && reason.contains("QUIESCE"), "{reason}");
    world.order(Order::Resume);
    assert_eq!(asked(&world.lap()).0, IntentKind::Handoff);
    assert_ne!(intent(&world).expect("an intent").op, first);
    world.until_the_end();
    assert!(matches!(world.progress.state, State::Ended { outcome: Outcome::Done, .. }));
}

#[test]
fn a_holder_that_never_answers_pauses_it() {
    let mut world = before_the_move();
    world.lap();
    world.pass(Duration::from_secs(45));
    assert!(matches!(event(&world.lap()), Event::Paused { .. }));
}

#[test]
fn when_the_heir_is_gone_another_one_is_asked_for() {
    let mut world = before_the_move();
    world.lap();
    world.fleet.lease.candidates.remove(&instance_id(&agent(1), &slot("b")));
    assert_eq!(blockers(&world.lap()), [BlockerKind::Quiesce], "the view may lag behind the journal");
    world.pass(Duration::from_secs(2));
    assert_eq!(asked(&world.lap()), (IntentKind::Handoff, id(3, "a"), id(2, "b")));
}

#[test]
fn a_holder_whose_process_was_restarted_is_asked_under_its_new_name() {
    let mut world = before_the_move();
    world.lap();
    let held = world.fleet.lease.holder.as_mut().expect("a holder");
    let handover_proto::lease::HolderState::Held(turn) = &mut held.value.state else { panic!("held") };
    turn.owner.instance = "00000000000000ff".parse().expect("an instance");
    held.value.op = "00000000000000bb".parse().expect("an op");
    assert_eq!(asked(&world.lap()).1, "00000000000000ff");
}

#[test]
fn nobody_is_asked_while_no_candidate_is_ready_to_take_it() {
    let mut world = before_the_move();
    for seen in world.fleet.lease.candidates.values_mut() {
        seen.value.ready = false;
    }
    assert_eq!(blockers(&world.lap()), [BlockerKind::Lease]);
    world.pass(Duration::from_secs(45));
    assert!(matches!(event(&world.lap()), Event::Paused { .. }));
}

#[test]
fn a_holder_that_died_is_not_asked_but_a_take_over_waited_for() {
    let mut world = before_the_move();
    world.fleet.lease.beat = None;
    assert_eq!(blockers(&world.lap()), [BlockerKind::LeaseDark]);
    hold(&mut world.fleet.lease, &agent(2), "b", "1.1.0", 90);
    assert_eq!(event(&world.lap()), &Event::Entered { step: LEASE + 1 });
}

#[test]
fn another_current_instance_that_took_over_meanwhile_is_the_one_that_is_asked() {
    let mut world = before_the_move();
    hold(&mut world.fleet.lease, &agent(2), "a", "1.0.0", 90);
    assert_eq!(asked(&world.lap()), (IntentKind::Handoff, id(2, "a"), id(1, "b")));
}

#[test]
fn a_service_without_a_scheduler_waits_for_no_holder() {
    let mut world = World::new(3, "");
    world.until_step(LEASE);
    world.obey();
    assert_eq!(event(&world.lap()), &Event::Entered { step: LEASE + 1 });
}

#[test]
fn keys_that_contradict_each_other_pause_it() {
    let mut world = before_the_move();
    world.fleet.lease.beat.as_mut().expect("a beat").mod_revision = 3;
    let decision = world.lap();
    let Event::Paused { reason, .. } = event(&decision) else { panic!("{decision:?}") };
    assert!(reason.contains("corrupt"), "{reason}");
}

#[test]
fn on_the_way_back_a_candidate_is_asked_to_return_it() {
    let mut world = before_the_move();
    world.until_step(LEASE + 1);
    world.order(Order::Rollback);
    world.lap();
    world.obey();
    assert_eq!(event(&world.lap()), &Event::BackEntered { step: BackStep::Lease });
    assert_eq!(asked(&world.lap()), (IntentKind::Return, id(1, "b"), id(3, "a")));
    assert_eq!(blockers(&world.lap()), [BlockerKind::Quiesce]);
    assert!((1..=3).all(|n| world.fleet.instance(&agent(n), &slot("b")).is_some()), "it has to hand over first");
    world.hand_over();
    let Decision::Do(act) = world.lap() else { panic!("a decision") };
    assert_eq!((act.event, act.ask), (Event::BackEntered { step: BackStep::Stop }, Some(Ask::Withdraw)));
    world.until_the_end();
    assert!(matches!(world.progress.state, State::Ended { outcome: Outcome::RolledBack, .. }));
}

fn returning() -> World {
    let mut world = before_the_move();
    world.until_step(LEASE + 1);
    world.order(Order::Rollback);
    world.lap();
    world.obey();
    world.lap();
    world
}

#[test]
fn a_candidate_that_declines_to_return_it_or_never_answers_is_stopped_anyway() {
    let mut world = returning();
    world.lap();
    decline(&mut world);
    assert_eq!(event(&world.lap()), &Event::BackEntered { step: BackStep::Stop });
    let mut world = returning();
    world.lap();
    world.pass(Duration::from_secs(45));
    assert_eq!(event(&world.lap()), &Event::BackEntered { step: BackStep::Stop });
}

#[test]
fn a_candidate_holder_that_is_gone_or_not_heard_is_not_asked() {
    let mut world = returning();
    world.fleet.lease.beat = None;
    assert_eq!(event(&world.lap()), &Event::BackEntered { step: BackStep::Stop });
    let mut world = returning();
    world.host(1).heard = handover::core::fleet::Heard::Silent { since_ms: 0 };
    assert_eq!(event(&world.lap()), &Event::BackEntered { step: BackStep::Stop });
}

#[test]
fn a_lease_that_never_moved_is_not_asked_for_on_the_way_back() {
    let mut world = World::with_holder(3, 3, "");
    world.until_step(5);
    world.order(Order::Rollback);
    world.until_the_end();
    assert!(!world.events().iter().any(|event| matches!(event, Event::Asked { .. })));
}

#[test]
fn an_open_request_is_withdrawn_before_anything_else_when_it_goes_back() {
    let mut world = before_the_move();
    world.lap();
    let op = intent(&world).expect("an intent").op;
    world.order(Order::Rollback);
    let Decision::Do(act) = world.lap() else { panic!("a decision") };
    assert_eq!((act.event, act.ask), (Event::Withdrawn { op }, Some(Ask::Withdraw)));
    world.until_the_end();
    assert!(matches!(world.progress.state, State::Ended { outcome: Outcome::RolledBack, .. }));
}

#[test]
fn an_operators_own_request_goes_first_and_is_not_overwritten() {
    let mut world = before_the_move();
    let mut theirs = World::with_holder(3, 3, "");
    theirs.until_step(LEASE);
    theirs.obey();
    theirs.lap();
    let mut open = theirs.fleet.lease.intent.clone().expect("an intent");
    (open.value.cause.rollout, open.value.cause.step) = (None, 4);
    world.fleet.lease.intent = Some(open);
    let decision = world.decide();
    assert_eq!(blockers(&decision), [BlockerKind::Lease]);
    let Decision::Wait { blockers, .. } = decision else { panic!("it waits") };
    assert!(blockers[0].waiting_for.contains("order 4"), "{}", blockers[0].waiting_for);
    world.fleet.lease.intent = None;
    assert_eq!(asked(&world.decide()).0, IntentKind::Handoff);
}

#[test]
fn a_rollout_that_moves_on_leaves_an_operators_open_request_alone() {
    let mut world = before_the_move();
    world.lap();
    let mut open = world.fleet.lease.intent.take().expect("an intent");
    open.value.cause.rollout = None;
    let mut world = World::with_holder(3, 3, "");
    world.until_step(2);
    world.fleet.lease.intent = Some(open);
    while matches!(world.progress.state, State::Running { step: 2 }) {
        world.lap();
        world.obey();
        world.pass(Duration::from_secs(1));
    }
    assert!(intent(&world).is_some());
}
