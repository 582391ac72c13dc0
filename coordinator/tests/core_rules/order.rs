//! Refusals tell what to do instead.

use handover::core::event::Event;
use handover::core::order::{Order, Refused, order};
use handover::core::progress::State;

use crate::world::World;

fn refused(world: &World, what: Order) -> (Refused, String) {
    let refused = order(&world.plan, &world.progress, what, "ann", "because").expect_err("a refusal");
    let text = refused.to_string();
    assert!(text.contains("7f3a2c"), "it names the rollout: {text}");
    (refused, text)
}

#[test]
fn resume_without_a_pause_and_pause_in_a_pause_are_refused() {
    let mut world = World::new(3, "");
    assert!(matches!(refused(&world, Order::Resume).0, Refused::NotPaused { .. }));
    world.order(Order::Pause);
    let (error, text) = refused(&world, Order::Pause);
    assert!(matches!(error, Refused::Paused { .. }) && text.contains("because") && text.contains("resume"), "{text}");
}

#[test]
fn what_goes_back_is_not_turned_round_nor_paused() {
    let mut world = World::new(3, "");
    world.order(Order::Abort);
    for what in [Order::Pause, Order::Resume, Order::Abort, Order::Rollback] {
        assert!(matches!(refused(&world, what).0, Refused::GoesBack { .. }), "{what:?}");
    }
}

#[test]
fn from_the_step_that_retires_there_is_no_way_back_and_the_refusal_says_so() {
    let mut world = World::new(1, "");
    world.until_step(world.plan.steps.len() as u32 - 1);
    for what in [Order::Abort, Order::Rollback] {
        let (error, text) = refused(&world, what);
        assert!(matches!(error, Refused::NoReturn { .. }) && text.contains("roll out 1.0.0 again"), "{text}");
    }
}

#[test]
fn an_ended_rollout_takes_no_orders() {
    let mut world = World::new(1, "");
    world.until_the_end();
    for what in [Order::Pause, Order::Resume, Order::Abort, Order::Rollback] {
        assert!(matches!(refused(&world, what).0, Refused::Ended { .. }), "{what:?}");
    }
}

#[test]
fn who_and_why_stand_in_the_journal() {
    let mut world = World::new(3, "");
    world.order(Order::Rollback);
    let expected = Event::Back { by: "ann".into(), reason: "because".into() };
    assert_eq!(world.events().last(), Some(&&expected));
    assert!(matches!(world.progress.state, State::GoingBack { from_step: 0, .. }));
}
