//! The keeper's decisions, one rule at a time. Plain functions: no runtime, no clock, no network.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

mod lease_bench;

use handover_agent::lease::event::Event;
use handover_agent::lease::record::{Ack, AckState, Told};
use handover_agent::lease::state::Move;
use handover_agent::lease::step::LeaseStep;
use handover_agent::lease::waiting::Waiting;
use handover_agent::lease::wanted::{LeaseState, Life};
use handover_proto::lease::{self, Stamp, StopProof};
use lease_bench::{Bench, Mood, id, keys, ms};

fn moves(bench: &Bench) -> Vec<Move> {
    let kind = |step: &LeaseStep| match step {
        LeaseStep::Move { kind, .. } => Some(*kind),
        _ => None,
    };
    bench.steps.iter().filter_map(kind).collect()
}

#[test]
fn a_lease_is_renewed_twice_and_the_service_greeted_before_anything_is_taken() {
    let mut bench = Bench::new();
    bench.report(1);
    let names: Vec<&str> = bench.steps.iter().map(LeaseStep::name).collect();
    let first = |name: &str| names.iter().position(|n| *n == name).expect(name);
    let before = &names[..first("Move")];
    assert_eq!(before.iter().filter(|name| **name == "Renew").count(), 2, "{names:?}");
    assert!(
        before.contains(&"Tell") && first("Grant") < first("PutCandidate") && first("PutCandidate") < first("Renew")
    );
    assert_eq!(moves(&bench), [Move::Acquire]);
    assert!(bench.is_held_by(1) && bench.lease_of(1).state == LeaseState::Holder);
}

#[test]
fn a_service_that_was_never_reached_keeps_its_instance_from_taking() {
    let mut bench = Bench::new();
    bench.obeys = None;
    bench.report(1);
    assert!(matches!(bench.waits, Some(Waiting::Greeting(_))) && moves(&bench).is_empty());
}

#[test]
fn instances_that_are_not_eligible_or_not_ready_do_not_take_and_a_holder_goes_on() {
    let mut bench = Bench::new();
    bench.other_holds(9);
    bench.report(1);
    bench.change(1, |local| local.ready = false);
    let mut bench = Bench::holding();
    bench.change(1, |local| (local.eligible, local.ready, local.serving) = (false, false, false));
    bench.pass(ms(5_000));
    assert_eq!((bench.told(1), moves(&bench).len()), (Told::Active, 0));

    let mut idle = Bench::new();
    idle.obeys = None;
    idle.report(1);
    idle.change(1, |local| local.ready = false);
    assert_eq!(idle.waits, Some(Waiting::Readiness));
    idle.change(1, |local| local.eligible = false);
    assert_eq!(idle.waits, None);
}

#[test]
fn a_unit_longer_than_configured_keeps_an_instance_from_taking() {
    let mut bench = Bench::new();
    bench.obeys = None;
    bench.report(1);
    let mut event = bench.ack(id(1), &bench.last_call(1), AckState::Quiesced);
    if let Event::Answered { result: Ok(ack), .. } = &mut event {
        ack.c_unit_ms = Some(2_001);
    }
    bench.hear(event);
    assert!(matches!(bench.waits, Some(Waiting::UnitTooLong { .. })), "{:?}", bench.waits);
}

#[test]
fn accepted_renewals_move_the_deadline_forward_and_tell_the_service() {
    let mut bench = Bench::holding();
    let first = bench.published(1);
    bench.pass(ms(3_000));
    let later = bench.published(1);
    let soft = |published: &handover_agent::lease::record::Published| published.deadlines.expect("a right").soft;
    assert!(soft(&later).since(soft(&first)) >= ms(2_900) && later.seq > first.seq);
    assert!(bench.did("Tell") >= 3 && bench.did("Order") == 0, "extended, never interrupted");
    assert!(soft(&later).since(bench.now) <= ms(6_150));
}

#[test]
fn without_renewals_the_service_is_told_to_stop_at_the_soft_deadline_and_killed_at_the_hard_one() {
    let mut bench = Bench::holding();
    bench.pass(ms(1_000));
    let deadlines = bench.published(1).deadlines.expect("a right");
    (bench.mood, bench.obeys) = (Mood::Away, None);
    bench.pass(deadlines.soft.since(bench.now) - ms(1));
    assert_eq!(bench.told(1), Told::Active);
    bench.pass(ms(1));
    assert_eq!(bench.told(1), Told::Quiesce);
    bench.pass(deadlines.hard.since(bench.now) - ms(1));
    assert_eq!(bench.did("Kill"), 0);
    bench.pass(ms(1));
    assert_eq!(bench.did("Kill"), 1);
    bench.pass(ms(1_000));
    assert_eq!(bench.did("Kill"), 2, "again, until its end is reported");
    bench.change(1, |local| local.life = Life::Dead { proven: true });
    bench.pass(ms(5_000));
    assert_eq!(bench.did("Kill"), 2);
}

#[test]
fn a_service_that_acknowledged_in_time_is_not_killed_and_goes_on_when_the_store_is_back() {
    let mut bench = Bench::holding();
    let token = bench.published(1).token;
    bench.mood = Mood::Away;
    bench.pass(ms(20_000));
    assert_eq!((bench.told(1), bench.lease_of(1).state, bench.did("Kill")), (Told::Quiesce, LeaseState::Stopped, 0));
    assert!(matches!(bench.waits, Some(Waiting::Renewal(Some(_)))), "{:?}", bench.waits);
    bench.mood = Mood::Good;
    bench.pass(ms(1_000));
    assert_eq!((bench.told(1), bench.published(1).token, moves(&bench).len()), (Told::Active, token, 0));
}

#[test]
fn an_acknowledgement_for_another_token_or_number_or_of_another_kind_is_none() {
    let (mut bench, _) = Bench::asked();
    assert_eq!(bench.told(1), Told::Quiesce);
    let spoil: [fn(&mut Ack); 4] =
        [|ack| ack.seq -= 1, |ack| ack.token = None, |ack| ack.v = 2, |ack| ack.state = AckState::Started];
    for spoil in spoil {
        let record = bench.last_call(1);
        let mut event = bench.ack(id(1), &record, AckState::Quiesced);
        if let Event::Answered { result: Ok(ack), .. } = &mut event {
            spoil(ack);
        }
        bench.hear(event);
        assert!(moves(&bench).is_empty() && bench.lease_of(1).state == LeaseState::Quiescing);
        bench.pass(ms(300));
    }
    bench.pass(ms(300));
    bench.answers(1, AckState::Failed);
    assert!(moves(&bench).is_empty());
    bench.pass(ms(300));
    bench.answers(1, AckState::Quiesced);
    assert_eq!(moves(&bench), [Move::HandOver]);
}

#[test]
fn the_lease_is_handed_over_only_after_quiesced_and_then_the_old_turn_ends() {
    let (mut bench, op) = Bench::asked();
    assert!(moves(&bench).is_empty() && bench.is_held_by(1));
    assert_eq!(bench.last_call(1).op, Some(op.clone()));
    bench.answers(1, AckState::Quiesced);
    assert_eq!((moves(&bench), bench.is_held_by(2)), (vec![Move::HandOver], true));
    assert_eq!(bench.view().holder.expect("held").value.op, op);
    assert_eq!((bench.told(1), bench.lease_of(1).state), (Told::Stopped, LeaseState::Candidate));
    assert_eq!(bench.did("Revoke"), 1, "a lease that carried a beat carries no other");
}

#[test]
fn nothing_begins_before_the_successor_is_prepared_and_then_it_is_declined() {
    let mut bench = Bench::holding();
    let op = bench.ask(1, 2);
    bench.prepare(2, None);
    assert_eq!((bench.told(1), bench.waits.clone()), (Told::Active, Some(Waiting::Successor(op.clone()))));
    bench.pass(ms(9_900));
    assert_eq!(bench.did("Decline"), 0);
    bench.pass(ms(200));
    assert_eq!(bench.view().candidates[&id(1)].value.declined, Some(op));
    assert_eq!(bench.told(1), Told::Active);
}

#[test]
fn a_successor_that_vanishes_before_the_transaction_leaves_the_holder_at_work() {
    let (mut bench, op) = Bench::asked();
    assert_eq!(bench.told(1), Told::Quiesce);
    bench.delete(keys().candidate(&id(2)));
    assert_eq!((bench.told(1), bench.view().candidates[&id(1)].value.declined.clone()), (Told::Active, Some(op)));
}

#[test]
fn a_withdrawn_intent_brings_the_service_back_to_work() {
    let (mut bench, _) = Bench::asked();
    bench.delete(keys().intent());
    assert_eq!((bench.told(1), bench.did("Decline")), (Told::Active, 0));
}

#[test]
fn a_service_that_does_not_quiesce_in_time_declines_and_a_late_acknowledgement_moves_nothing() {
    let (mut bench, op) = Bench::asked();
    let asked = bench.last_call(1);
    bench.pass(ms(3_050));
    assert_eq!((bench.told(1), bench.view().candidates[&id(1)].value.declined.clone()), (Told::Active, Some(op)));
    let event = bench.ack(id(1), &asked, AckState::Quiesced);
    bench.hear(event);
    assert!(moves(&bench).is_empty() && bench.told(1) == Told::Active);
}

#[test]
fn no_hand_over_and_no_release_begins_without_a_durable_record() {
    let mut bench = Bench::holding();
    (bench.disk_full, bench.obeys) = (true, None);
    let op = bench.ask(1, 2);
    bench.prepare(2, Some(&op));
    assert_eq!(bench.told(1), Told::Active);
    assert!(matches!(bench.waits, Some(Waiting::Disk(Some(_)))), "{:?}", bench.waits);
    bench.disk_full = false;
    bench.pass(ms(500));
    assert_eq!(bench.told(1), Told::Quiesce);
    assert!(bench.saved.as_ref().expect("saved").turns[&id(1)].leaving);
}

#[test]
fn a_frozen_lease_neither_moves_nor_is_taken() {
    let mut bench = Bench::holding();
    bench.put(keys().freeze(), &"by an operator", 0);
    let op = bench.ask(1, 2);
    bench.prepare(2, Some(&op));
    assert_eq!((bench.told(1), moves(&bench).len()), (Told::Active, 0));
    let mut free = Bench::new();
    free.put(keys().freeze(), &"by an operator", 0);
    free.report(1);
    assert_eq!((free.waits.clone(), moves(&free).len()), (Some(Waiting::Frozen), 0));
}

#[test]
fn a_proved_death_releases_at_once_and_an_unproved_one_never() {
    let mut bench = Bench::holding();
    bench.change(1, |local| local.life = Life::Dead { proven: false });
    bench.pass(ms(3_000));
    assert_eq!((moves(&bench).len(), bench.waits.clone()), (0, Some(Waiting::DeadUnproven)));
    assert_eq!(bench.did("Renew") + bench.did("Revoke"), 0, "the beat runs out by itself");
    bench.change(1, |local| local.life = Life::Dead { proven: true });
    assert_eq!(moves(&bench), [Move::Release(StopProof::Dead)]);
    assert!(bench.lease_of(1).may_stop);
}

#[test]
fn an_instance_that_is_not_reported_any_more_is_dead_without_proof() {
    let mut bench = Bench::holding();
    bench.hear(Event::Wanted(Default::default()));
    bench.pass(ms(3_000));
    assert_eq!((moves(&bench).len(), bench.did("Forget")), (0, 0));
    let beat = bench.view().beat.expect("a beat").lease;
    bench.store.revoke(beat);
    bench.pass(ms(20_000));
    assert_eq!(bench.did("Forget"), 0, "its turn stands in the store");
}

#[test]
fn a_holder_that_gives_up_releases_after_quiesced_and_may_stop_only_then() {
    let mut bench = Bench::holding();
    bench.obeys = None;
    bench.change(1, |local| local.life = Life::GiveUp);
    assert_eq!((bench.told(1), moves(&bench).len(), bench.lease_of(1).may_stop), (Told::Quiesce, 0, false));
    bench.answers(1, AckState::Quiesced);
    assert_eq!(moves(&bench), [Move::Release(StopProof::Quiesced)]);
    assert!(bench.lease_of(1).may_stop && bench.view().beat.is_none());
    assert_eq!(bench.did("Grant"), 0, "it is no candidate any more");
}

#[test]
fn a_holder_that_gives_up_hands_over_if_an_intent_says_so() {
    let (mut bench, _) = Bench::asked();
    bench.change(1, |local| local.life = Life::GiveUp);
    bench.answers(1, AckState::Quiesced);
    assert_eq!((moves(&bench), bench.is_held_by(2)), (vec![Move::HandOver], true));
}

#[test]
fn a_candidate_that_gives_up_lets_go_of_its_lease_and_may_stop() {
    let mut bench = Bench::new();
    bench.other_holds(9);
    bench.report(1);
    assert!(bench.view().candidates.contains_key(&id(1)));
    bench.change(1, |local| local.life = Life::GiveUp);
    assert!(!bench.view().candidates.contains_key(&id(1)) && bench.lease_of(1).may_stop);
}

/// Instance 1 has taken a free lease, and its service has not answered ACTIVE yet.
fn taking_up_work() -> Bench {
    let mut bench = Bench::new();
    bench.other_holds(9);
    bench.report(1);
    bench.obeys = None;
    let op = "00000000000000ff".parse().expect("an op");
    let freed = lease::release(&keys(), &bench.view(), &id(9), StopProof::Dead, op, Stamp::default()).expect("9 holds");
    assert!(bench.store.txn(&freed).expect("a write").succeeded);
    bench.settle();
    assert!(bench.is_held_by(1) && bench.last_call(1).told == Told::Active);
    bench.steps.retain(|step| step.name() == "Tell");
    bench.pass(ms(100));
    bench
}

#[test]
fn what_is_only_for_the_record_waits_until_the_new_holder_works() {
    let records = |bench: &Bench| (bench.did("Save") > 0, bench.did("PutCandidate") > 0);
    let mut bench = taking_up_work();
    let holds = |bench: &Bench| bench.saved.as_ref().is_some_and(|memory| memory.turns.contains_key(&id(1)));
    assert_eq!((records(&bench), holds(&bench)), ((false, false), false));
    bench.answers(1, AckState::Started);
    assert_eq!((records(&bench), holds(&bench)), ((true, true), true));

    let mut refuses = taking_up_work();
    refuses.answers(1, AckState::Failed);
    assert_eq!(records(&refuses), (true, true), "it does not wait for a service that cannot");
}

#[test]
fn a_record_that_a_hand_over_waits_for_is_written_though_the_service_has_not_answered() {
    let mut bench = taking_up_work();
    let op = bench.ask(1, 2);
    bench.prepare(2, Some(&op));
    assert!(bench.saved.as_ref().is_some_and(|memory| memory.turns.get(&id(1)).is_some_and(|turn| turn.leaving)));
}
