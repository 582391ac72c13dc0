//! What is refused, each with its reason.

use std::time::Duration;

use handover::core::standing::give::Refused;
use handover::core::standing::{Freeze, RunningRollout, What};
use handover_proto::blocker::BlockerKind;
use handover_proto::lease::{Free, HolderState, StopProof};

use super::stage::{GIVEN, Stage, drain, handoff};
use crate::world::{agent, hold};

fn refusal(change: impl FnOnce(&mut Stage), what: What) -> Refused {
    let mut stage = Stage::new(3);
    change(&mut stage);
    stage.try_give(what, None).expect_err("it is refused")
}

fn rollout(moves_lease: bool) -> Option<RunningRollout> {
    Some(RunningRollout { id: "7f3a2c".parse().expect("an id"), moves_lease })
}

#[test]
fn without_a_holder_there_is_nothing_to_hand_over() {
    let never = |stage: &mut Stage| (stage.fleet.lease.holder, stage.fleet.lease.beat) = (None, None);
    assert_eq!(refusal(never, handoff(None)), Refused::NobodyHolds);
    let free = |stage: &mut Stage| {
        let holder = stage.fleet.lease.holder.as_mut().expect("a holder");
        let last = holder.value.owner().clone();
        holder.value.state = HolderState::Free(Free { last, stop_proof: StopProof::Dead });
        stage.fleet.lease.beat = None;
    };
    assert_eq!(refusal(free, handoff(None)), Refused::NobodyHolds);
    assert_eq!(refusal(|stage| stage.fleet.lease.beat = None, handoff(None)), Refused::Lost(agent(3)));
}

#[test]
fn keys_that_contradict_each_other_move_nothing() {
    let corrupt = |stage: &mut Stage| stage.fleet.lease.beat.as_mut().expect("a beat").mod_revision = 49;
    assert!(matches!(refusal(corrupt, handoff(None)), Refused::Corrupt(_)));
}

#[test]
fn a_store_without_space_moves_nothing() {
    let alarm = |stage: &mut Stage| stage.alarms.push("NOSPACE (a:2379)".into());
    assert_eq!(refusal(alarm, handoff(None)), Refused::Alarm("NOSPACE (a:2379)".into()));
    assert_eq!(refusal(alarm, What::Release { freeze: false }), Refused::Alarm("NOSPACE (a:2379)".into()));
}

#[test]
fn a_rollout_that_moves_the_lease_is_not_disturbed_and_another_one_is() {
    let at_its_step = refusal(|stage| stage.rollout = rollout(true), handoff(None));
    assert!(matches!(at_its_step, Refused::RolloutMovesLease(_)));
    let mut stage = Stage::new(3);
    stage.rollout = rollout(false);
    stage.try_give(handoff(None), None).expect("the lease is not in its hands");
}

#[test]
fn a_frozen_lease_moves_nothing_but_can_be_released() {
    let frozen = |stage: &mut Stage| {
        stage.freeze = Some(Freeze { v: 1, by: "ann".into(), because: "maintenance".into(), at_ms: 1 });
    };
    let refused = refusal(frozen, handoff(None)).to_string();
    assert!(refused.contains("ann (maintenance)") && refused.contains("lease unfreeze"), "{refused}");
    let mut stage = Stage::new(3);
    frozen(&mut stage);
    stage.try_give(What::Release { freeze: false }, None).expect("nobody takes it up then");
    assert_eq!(stage.try_give(What::Freeze, None), Err(Refused::Already("frozen")));
    assert!(matches!(refusal(|_| {}, What::Unfreeze), Refused::Already(_)));
}

#[test]
fn the_heir_must_be_there_and_ready() {
    assert_eq!(refusal(|_| {}, handoff(Some(9))), Refused::UnknownAgent(agent(9)));
    let refused = refusal(
        |stage| {
            stage.unready(2);
        },
        handoff(Some(2)),
    );
    let refused = refused.to_string();
    assert!(refused.contains("app-02 (1.0.0) is not ready"), "{refused}");
    let nobody = refusal(
        |stage| {
            stage.unready(1).unready(2);
        },
        handoff(None),
    );
    assert!(matches!(nobody, Refused::NobodyReady { .. }), "{nobody}");
}

#[test]
fn one_order_moves_at_a_time_and_one_that_waits_for_its_time_does_not_count() {
    let mut first = Stage::new(3);
    first.give(handoff(None));
    let moving = first.order().clone();
    let busy = refusal(|stage| stage.others.push(moving), handoff(None));
    assert!(matches!(busy, Refused::OtherOrder { number: 7, .. }), "{busy}");
    let mut later = Stage::new(3);
    later.give_at(handoff(None), GIVEN + 1000, 0);
    let mut stage = Stage::new(3);
    stage.others.push(later.order().clone());
    stage.try_give(handoff(None), None).expect("it is not its time yet");
}

#[test]
fn of_two_orders_whose_time_has_come_the_older_one_goes_and_what_has_begun_is_not_held_up() {
    let due = |number: u64| {
        let mut stage = Stage::new(3);
        stage.give_at(handoff(None), GIVEN + 1000, 60_000).pass(Duration::from_secs(2));
        stage.order.as_mut().expect("it was given").number = number;
        stage
    };
    let (mut older, mut newer) = (due(7), due(8));
    older.others.push(newer.order().clone());
    newer.others.push(older.order().clone());
    assert_eq!((older.settle(), newer.settle()), (Some(BlockerKind::Quiesce), Some(BlockerKind::Operator)));
    assert!(older.intent().is_some() && newer.intent().is_none());

    let mut begun = Stage::new(2);
    begun.give(drain(1)).order.as_mut().expect("it was given").number = 9;
    begun.others.push(due(7).order().clone());
    hold(&mut begun.fleet.lease, &agent(1), "a", "1.0.0", 5000);
    assert_eq!(begun.settle(), Some(BlockerKind::Quiesce), "the host that leaves gives the lease up first");
}

#[test]
fn a_request_that_somebody_else_made_is_not_overwritten() {
    let mut other = Stage::new(3);
    other.give(handoff(None));
    let intent = other.fleet.lease.intent.clone();
    assert!(matches!(refusal(|stage| stage.fleet.lease.intent = intent, handoff(None)), Refused::OpenIntent(_)));
}

#[test]
fn a_host_is_not_drained_below_the_floor_nor_under_a_rollout_nor_twice() {
    let unready = |stage: &mut Stage| {
        let host = stage.fleet.agents.get_mut(&agent(1)).expect("a host");
        let slots = &mut host.report.as_mut().expect("a report").slots;
        slots.values_mut().filter_map(|slot| slot.instance.as_mut()).for_each(|found| found.ready = false);
    };
    assert_eq!(refusal(unready, drain(2)), Refused::Floor { agent: agent(2), left: 1, min_serving: 2 });
    let mut stage = Stage::new(3);
    unready(&mut stage);
    stage.try_give(drain(1), None).expect("it does not serve as it is");
    assert!(matches!(refusal(|stage| stage.rollout = rollout(false), drain(1)), Refused::RolloutRuns(_)));
    assert_eq!(refusal(|_| {}, drain(9)), Refused::UnknownAgent(agent(9)));
    let mut first = Stage::new(3);
    first.give(drain(1));
    let order = first.order().clone();
    let twice = refusal(|stage| stage.others.push(order), drain(1));
    assert_eq!(twice, Refused::Drained { number: 7, agent: agent(1) });
}
