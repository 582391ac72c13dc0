//! The lease moves: by order, at its time, back if the heir does not work; or it does not, and why.

use std::time::Duration;

use handover::core::standing::give::Refused;
use handover::core::standing::next::Step;
use handover::core::standing::{Freeze, Outcome, Phase, What};
use handover_proto::blocker::BlockerKind;
use handover_proto::lease::{IntentKind, LeaseCause};

use super::stage::{GIVEN, Stage, drain, handoff};
use crate::world::{agent, hold, instance_id, slot};

const HOUR: u64 = 3_600_000;

fn heir(stage: &Stage) -> String {
    stage.intent().expect("an intent").to.expect("an heir").to_string()
}

fn id(number: u8) -> String {
    instance_id(&agent(number), &slot("a")).to_string()
}

#[test]
fn the_holder_is_asked_at_once_and_the_order_is_over_when_the_heir_works() {
    let mut stage = Stage::new(3);
    stage.give(handoff(None));
    let intent = stage.intent().expect("an intent in the same breath");
    assert_eq!((intent.kind, intent.from.to_string(), heir(&stage)), (IntentKind::Handoff, id(3), id(1)));
    assert_eq!((intent.cause.rollout, intent.cause.step, intent.term), (None, 7, stage.now.term));
    assert_eq!(stage.settle(), Some(BlockerKind::Quiesce));
    stage.follow(false);
    assert_eq!(stage.settle(), Some(BlockerKind::Lease), "moved is not done");
    assert!(matches!(stage.order().phase, Phase::Settling { .. }));
    let token = stage.fleet.lease.token().expect("a token");
    let id = instance_id(&agent(1), &slot("a"));
    stage.fleet.lease.candidates.get_mut(&id).expect("the heir").value.active = token;
    assert_eq!(stage.settle(), None);
    assert_eq!(stage.end(), (Outcome::Done, "app-01 (1.0.0) holds and works, turn 1".to_owned()));
    assert_eq!(stage.intent(), None, "the coordinator clears what is done");
}

#[test]
fn deciding_twice_asks_once() {
    let stage = Stage::new(3);
    let twice = [stage.try_give(handoff(None), None), stage.try_give(handoff(None), None)];
    let [first, second] = twice.map(|change| change.expect("it makes sense"));
    assert_eq!(first, second);
}

#[test]
fn the_heir_goes_by_rank_and_is_ready() {
    let mut stage = Stage::new(1);
    let best = instance_id(&agent(3), &slot("a"));
    let other = instance_id(&agent(2), &slot("a"));
    stage.fleet.lease.candidates.get_mut(&other).expect("a candidate").value.rank = 2;
    stage.give(handoff(None));
    assert_eq!(heir(&stage), best.to_string());
    let mut stage = Stage::new(1);
    stage.unready(2).give(handoff(None));
    assert_eq!(heir(&stage), best.to_string());
}

#[test]
fn who_holds_already_is_not_asked() {
    let mut stage = Stage::new(2);
    stage.give(handoff(Some(2)));
    assert_eq!((stage.end().0, stage.intent()), (Outcome::Done, None));
}

#[test]
fn one_at_a_time_waits_for_its_time_and_then_asks() {
    let mut stage = Stage::new(3);
    stage.give_at(handoff(Some(2)), GIVEN + HOUR, 60_000);
    assert_eq!((stage.settle(), stage.intent()), (Some(BlockerKind::Operator), None));
    let Step::Wait { until: Some(until), .. } = stage.decide() else { panic!("it waits") };
    assert!(until <= stage.now.boot + Duration::from_secs(60), "wall clocks step, so it is looked at often");
    stage.pass(Duration::from_secs(3600));
    assert_eq!((stage.settle(), heir(&stage)), (Some(BlockerKind::Quiesce), id(2)));
}

#[test]
fn one_that_is_due_waits_for_what_forbids_it_but_not_for_ever() {
    let mut stage = Stage::new(3);
    stage.give_at(handoff(Some(2)), GIVEN + 1000, 60_000).unready(2).pass(Duration::from_secs(2));
    assert_eq!((stage.settle(), stage.intent()), (Some(BlockerKind::Operator), None));
    stage.pass(Duration::from_secs(60));
    assert_eq!(stage.settle(), None);
    let (outcome, reason) = stage.end();
    assert_eq!(outcome, Outcome::Undone);
    assert!(reason.contains("late") && reason.contains("app-02 (1.0.0) is not ready"), "{reason}");
}

#[test]
fn a_time_that_has_passed_is_refused() {
    let stage = Stage::new(3);
    let refused = stage.try_give(handoff(None), Some((GIVEN - 60_000, HOUR)));
    assert_eq!(refused, Err(Refused::Past { ago: "1m".into() }));
}

#[test]
fn a_service_that_does_not_stop_keeps_the_lease_and_the_request_is_taken_back() {
    let mut stage = Stage::new(3);
    stage.give(handoff(None)).decline();
    assert_eq!(stage.settle(), None);
    let (outcome, reason) = stage.end();
    assert!(outcome == Outcome::Undone && reason.contains("5s to acknowledge QUIESCE"), "{reason}");
    assert_eq!(stage.intent(), None);
}

#[test]
fn a_holder_that_says_nothing_is_given_up_after_the_services_time_and_a_margin() {
    let mut stage = Stage::new(3);
    stage.give(handoff(None)).pass(Duration::from_secs(16));
    assert_eq!(stage.settle(), Some(BlockerKind::Quiesce));
    stage.pass(Duration::from_secs(2));
    assert_eq!((stage.settle(), stage.end().0, stage.intent()), (None, Outcome::Undone, None));
}

#[test]
fn what_others_did_to_the_request_is_believed_once_the_view_cannot_lag() {
    type Change = fn(&mut Stage);
    let cases: [(Change, &str); 3] = [
        (|stage| stage.fleet.lease.intent = None, "withdrawn"),
        (|stage| stage.fleet.lease.beat = None, "lost"),
        (
            |stage| {
                stage.fleet.lease.candidates.remove(&instance_id(&agent(1), &slot("a")));
            },
            "is gone",
        ),
    ];
    for (change, said) in cases {
        let mut stage = Stage::new(3);
        stage.give(handoff(None));
        change(&mut stage);
        assert_eq!(stage.settle(), Some(BlockerKind::Quiesce), "{said}: our own write may not be seen yet");
        stage.pass(Duration::from_secs(3));
        assert_eq!(stage.settle(), None, "{said}");
        let (outcome, reason) = stage.end();
        assert!(outcome == Outcome::Undone && reason.contains(said), "{reason}");
    }
}

#[test]
fn an_heir_that_does_not_work_gives_the_lease_back_after_five_seconds() {
    let mut stage = Stage::new(3);
    stage.give(handoff(Some(1))).follow(false);
    stage.settle();
    stage.pass(Duration::from_secs(5));
    assert_eq!(stage.settle(), Some(BlockerKind::Quiesce));
    let intent = stage.intent().expect("the mirror");
    assert_eq!((intent.kind, intent.from.to_string(), heir(&stage)), (IntentKind::Return, id(1), id(3)));
    stage.follow(true);
    assert_eq!(stage.settle(), None);
    assert!(stage.end().0 == Outcome::Undone && stage.end().1.contains("it went back"), "{:?}", stage.end());
}

#[test]
fn where_the_lease_cannot_go_back_a_human_is_told_after_half_a_minute() {
    let mut stage = Stage::new(3);
    stage.give(handoff(Some(1))).follow(false);
    stage.settle();
    stage.unready(3).pass(Duration::from_secs(29));
    assert_eq!(stage.settle(), Some(BlockerKind::Lease));
    stage.pass(Duration::from_secs(1));
    assert_eq!((stage.settle(), stage.end().0), (None, Outcome::Failed));
}

#[test]
fn an_heir_whose_beat_is_gone_for_a_moment_is_waited_for() {
    let mut stage = Stage::new(3);
    stage.give(handoff(Some(1))).follow(false).settle();
    stage.fleet.lease.beat = None;
    assert_eq!(stage.pass(Duration::from_secs(29)).settle(), Some(BlockerKind::Lease));
    hold(&mut stage.fleet.lease, &agent(1), "a", "1.0.0", 5000);
    assert_eq!((stage.settle(), stage.end().0), (None, Outcome::Done), "with a new token");

    let mut stage = Stage::new(3);
    stage.give(handoff(Some(1))).follow(false).settle();
    stage.fleet.lease.beat = None;
    assert_eq!(stage.pass(Duration::from_secs(30)).settle(), None);
    assert_eq!((stage.end().0, stage.intent()), (Outcome::Failed, None), "its request is taken back");
}

#[test]
fn a_release_names_nobody_and_is_over_when_nobody_holds() {
    let mut stage = Stage::new(3);
    stage.give(What::Release { freeze: true });
    let intent = stage.intent().expect("an intent");
    assert_eq!((intent.kind, intent.to), (IntentKind::Park, None));
    assert_eq!(stage.settle(), Some(BlockerKind::Quiesce));
    stage.follow(false);
    assert_eq!((stage.settle(), stage.end().0, stage.intent()), (None, Outcome::Done, None));
}

#[test]
fn what_was_carried_out_and_overtaken_by_the_next_turn_is_done() {
    let release = || {
        let mut stage = Stage::new(3);
        stage.give(What::Release { freeze: false });
        stage
    };
    let mut stage = release();
    stage.turn(1, LeaseCause::Acquire, 2);
    assert!(matches!(stage.cancel(), Err(Refused::CarriedOut { .. })), "it has been released");
    assert_eq!((stage.settle(), stage.intent()), (None, None));
    assert_eq!(stage.end(), (Outcome::Done, "app-03 has released the lease".to_owned()));

    let mut stage = release();
    stage.turn(1, LeaseCause::TakeOver, 1).pass(Duration::from_secs(3)).settle();
    assert_eq!(stage.end().0, Outcome::Undone, "it was lost, and not released");

    let mut stage = Stage::new(3);
    stage.give(handoff(Some(1))).turn(1, LeaseCause::Renewed, 2);
    assert_eq!((stage.settle(), stage.end().0), (None, Outcome::Done), "the heir has a new token already");
}

#[test]
fn a_release_that_is_not_followed_takes_its_own_freeze_back_and_nobody_else_s() {
    let theirs = Freeze { v: 1, by: "eve".into(), because: "a migration".into(), at_ms: 5 };
    for before in [None, Some(theirs)] {
        let mut stage = Stage::new(3);
        stage.freeze = before.clone();
        stage.give(What::Release { freeze: true });
        assert!(stage.freeze.is_some() && (before.is_none() || stage.freeze == before), "{:?}", stage.freeze);
        stage.decline().settle();
        assert_eq!((stage.end().0, stage.freeze.as_ref()), (Outcome::Undone, before.as_ref()));

        stage.freeze = before.clone();
        stage.give_at(What::Release { freeze: true }, GIVEN + HOUR, 0).cancel().expect("it waits");
        assert_eq!(stage.freeze, before, "one that never began froze nothing");
    }
}

#[test]
fn what_waits_or_is_only_asked_for_can_be_cancelled_and_what_is_done_cannot() {
    let mut stage = Stage::new(3);
    stage.give_at(handoff(None), GIVEN + HOUR, 0).cancel().expect("it waits");
    assert_eq!(stage.end().0, Outcome::Undone);
    assert!(matches!(stage.cancel(), Err(Refused::Over { number: 7, .. })));

    let mut stage = Stage::new(3);
    stage.give(handoff(None)).cancel().expect("it is only asked for");
    assert_eq!((stage.end().0, stage.intent()), (Outcome::Undone, None));

    let mut stage = Stage::new(3);
    stage.give(handoff(None)).follow(false);
    assert!(matches!(stage.cancel(), Err(Refused::CarriedOut { .. })), "the holder has followed it");
    stage.settle();
    let refused = stage.cancel().expect_err("it has moved").to_string();
    assert!(refused.contains("to app-01"), "{refused}");
}

#[test]
fn the_log_of_an_order_is_bounded_and_keeps_its_beginning() {
    let mut stage = Stage::new(1);
    stage.give(drain(1));
    let first = stage.order().lines[0].clone();
    for _ in 0..100 {
        stage.follow(true).settle();
        // The host takes the lease over again and again, before it can be kept from it.
        crate::world::hold(&mut stage.fleet.lease, &agent(1), "a", "1.0.0", 5000);
        stage.settle();
    }
    assert!(stage.order().lines.len() <= 64, "{}", stage.order().lines.len());
    assert_eq!(stage.order().lines[0], first);
}

#[test]
fn a_turn_of_long_ago_still_finds_the_order_that_asked_for_it() {
    let mut stage = Stage::new(3);
    stage.give(handoff(None)).follow(true).settle();
    let op = stage.fleet.lease.holder.as_ref().expect("a holder").value.op.clone();
    assert!(stage.order().is_over() && stage.order().has_asked(&op));
    assert!(!stage.order().has_asked(&stage.order().op));
}

#[test]
fn a_database_that_has_seen_a_higher_token_is_no_heir() {
    let mut stage = Stage::new(3);
    let high = handover_proto::numbers::Token::new(handover_proto::numbers::Era(1), 1).expect("a token");
    let first = instance_id(&agent(1), &slot("a"));
    stage.fleet.lease.candidates.get_mut(&first).expect("a candidate").value.stored_token = Some(high);
    let refused = stage.try_give(handoff(Some(1)), None).expect_err("it would be refused there").to_string();
    assert!(refused.contains("higher token"), "{refused}");
    stage.give(handoff(None));
    assert_eq!(heir(&stage), id(2));
}
