//! The keeper's decisions when something is uncertain: outcomes, losses, restarts, the past of the store.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

mod lease_bench;

use handover_agent::lease::deadline::Boot;
use handover_agent::lease::event::Event;
use handover_agent::lease::memory::Memory;
use handover_agent::lease::next::Now;
use handover_agent::lease::record::{AckState, Told};
use handover_agent::lease::settings::LeaseSettings;
use handover_agent::lease::started::Illegal;
use handover_agent::lease::state::{Move, Order};
use handover_agent::lease::step::LeaseStep;
use handover_agent::lease::waiting::Waiting;
use handover_agent::lease::wanted::{LeaseState, Life};
use handover_proto::lease::{EraValue, Stamp};
use handover_proto::numbers::Era;
use handover_store::client::Renewal;
use lease_bench::{Bench, Mood, id, keys, ms, owner};

fn moves(bench: &Bench) -> Vec<Move> {
    let kind = |step: &LeaseStep| match step {
        LeaseStep::Move { kind, .. } => Some(*kind),
        _ => None,
    };
    bench.steps.iter().filter_map(kind).collect()
}

/// The order of ACTIVE that follows position `from` in the steps.
fn goes_on_after(bench: &Bench, name: &str) -> bool {
    let at = bench.steps.iter().rposition(|step| step.name() == name).expect(name);
    bench.steps[at..].iter().any(|step| matches!(step, LeaseStep::Order { order: Order::Active, .. }))
}

#[test]
fn a_transaction_that_happened_without_an_answer_is_found_by_reading() {
    let (mut bench, _) = Bench::asked();
    bench.mood = Mood::Deaf;
    bench.answers(1, AckState::Quiesced);
    assert_eq!((moves(&bench), bench.is_held_by(2)), (vec![Move::HandOver], true));
    assert_eq!(bench.told(1), Told::Stopped);
    assert!(!goes_on_after(&bench, "Move"));
}

#[test]
fn while_an_outcome_is_unknown_the_service_stays_stopped_and_the_lease_is_renewed() {
    let (mut bench, op) = Bench::asked();
    bench.mood = Mood::Late;
    bench.delete(keys().freeze());
    let record = bench.last_call(1);
    // The answer to the transaction and every read are lost for a while.
    let event = bench.ack(id(1), &record, AckState::Quiesced);
    bench.mood = Mood::Away;
    bench.hear(event);
    bench.steps.clear();
    bench.pass(ms(3_000));
    assert_eq!((bench.told(1), bench.waits.clone()), (Told::Quiesce, Some(Waiting::Outcome(op))));
    assert!(bench.did("Renew") >= 2 && bench.did("Read") >= 2 && moves(&bench).is_empty());
}

#[test]
fn a_hand_over_on_its_way_keeps_the_service_stopped_even_if_the_successor_steps_back() {
    let (mut bench, _) = Bench::asked();
    bench.mood = Mood::Slow;
    bench.answers(1, AckState::Quiesced);
    assert_eq!(moves(&bench), [Move::HandOver]);
    let mut successor = bench.view().candidates[&id(2)].value.clone();
    (successor.ready, successor.prepared_for) = (false, None);
    let lease = successor.lease_id;
    bench.put(keys().candidate(&id(2)), &successor, lease);
    bench.pass(ms(500));
    assert_eq!((bench.told(1), bench.did("Decline")), (Told::Quiesce, 0));
}

#[test]
fn a_deadline_is_counted_from_the_moment_before_the_request_was_sent() {
    let mut bench = Bench::holding();
    bench.mood = Mood::Slow;
    let before = bench.published(1).deadlines.expect("a right");
    bench.pass(ms(1_000));
    let Some(LeaseStep::Renew { instance, lease, barrier, expected, .. }) = bench.steps.pop() else {
        panic!("a renewal is due")
    };
    let sent = bench.now;
    bench.pass(ms(700));
    let (ttl, keep_alive) = (bench.store.keep_alive(lease, u64::MAX), bench.store.origin());
    let answer = bench.store.txn(&barrier).map(|barrier| Renewal { ttl, keep_alive, barrier });
    bench.hear(Event::Renewed { instance, sent, expected, barrier, result: answer });
    let after = bench.published(1).deadlines.expect("a right");
    assert_eq!(after.soft, sent.plus(ms(6_150)));
    assert!(after.soft > before.soft && after.soft.since(bench.now) == ms(5_450));
}

#[test]
fn a_hand_over_that_may_still_arrive_lets_the_service_go_on_only_under_a_new_token() {
    let (mut bench, _) = Bench::asked();
    let token = bench.published(1).token;
    bench.mood = Mood::Late;
    bench.answers(1, AckState::Quiesced);
    let stray = bench.held.remove(0);
    // The successor is gone, so that there is nothing to repeat.
    bench.mood = Mood::Good;
    bench.delete(keys().candidate(&id(2)));
    bench.obeys = Some(AckState::Quiesced);
    bench.pass(ms(1_000));
    assert_eq!(moves(&bench).last(), Some(&Move::Mint));
    assert!(bench.told(1) == Told::Active && bench.published(1).token > token);
    // And when it does arrive, it is void.
    assert!(!bench.store.txn(&stray).expect("an answer").succeeded);
    assert!(bench.is_held_by(1));
}

#[test]
fn a_lost_beat_stops_the_service_and_a_fresh_lease_brings_a_new_turn() {
    let mut bench = Bench::holding();
    let (token, old) = (bench.published(1).token, bench.view().beat.expect("a beat").lease);
    bench.store.revoke(old);
    bench.settle();
    assert_eq!(moves(&bench), [Move::Mint]);
    assert!(bench.told(1) == Told::Active && bench.published(1).token > token);
    assert_ne!(bench.view().beat.expect("a beat").lease, old);
    let order = bench.steps.iter().position(|step| step.name() == "Order").expect("stopped first");
    assert!(order < bench.steps.iter().position(|step| step.name() == "Move").expect("T5"));
}

#[test]
fn a_lost_beat_brings_no_new_turn_before_the_service_has_stopped() {
    let mut bench = Bench::holding();
    bench.obeys = None;
    let beat = bench.view().beat.expect("a beat").lease;
    bench.store.revoke(beat);
    bench.pass(ms(3_000));
    assert!(moves(&bench).is_empty() && matches!(bench.waits, Some(Waiting::Quiesce(_))));
}

#[test]
fn a_holder_without_a_beat_is_taken_over_from_after_the_quarantine_and_not_a_moment_before() {
    let mut bench = Bench::new();
    let lease = bench.other_holds(9);
    bench.report(1);
    bench.store.revoke(lease);
    bench.settle();
    let quarantine = LeaseSettings::default().quarantine_of(ms(10_000));
    assert!(matches!(bench.waits, Some(Waiting::Quarantine { end: Some(_), .. })), "{:?}", bench.waits);
    assert_eq!(bench.did("Read"), 1, "confirmed at once");
    bench.pass(quarantine - ms(1));
    assert!(moves(&bench).is_empty());
    bench.pass(ms(1));
    assert_eq!((moves(&bench), bench.told(1)), (vec![Move::TakeOver], Told::Active));
}

#[test]
fn a_holder_that_comes_back_in_the_quarantine_keeps_the_lease() {
    let mut bench = Bench::new();
    let lease = bench.other_holds(9);
    bench.report(1);
    bench.store.revoke(lease);
    bench.pass(ms(8_000));
    let (nine, lease_id) = (owner(9), bench.store.grant(ms(10_000), u64::MAX).id);
    let op = "00000000000000fe".parse().expect("an op");
    let turn = handover_proto::lease::Turn { owner: &nine, lease_id, ttl_s: 10, op, stamp: Stamp::default() };
    let mint = handover_proto::lease::mint(&keys(), &bench.view(), &turn).expect("its own");
    assert!(bench.store.txn(&mint).expect("a write").succeeded);
    bench.pass(ms(8_000));
    assert!(moves(&bench).is_empty() && bench.is_held_by(9));
    bench.store.revoke(lease_id);
    bench.pass(ms(8_000));
    assert!(moves(&bench).is_empty(), "the count began anew");
    bench.pass(ms(4_000));
    assert!(bench.is_held_by(1));
}

#[test]
fn a_free_lease_is_left_to_one_with_traffic_for_a_moment_only() {
    let mut bench = Bench::new();
    bench.prepare(2, None);
    bench.report_as(1, |local| (local.serving, local.rank) = (false, 1));
    assert_eq!((bench.waits.clone(), moves(&bench).len()), (Some(Waiting::Courtesy(id(2))), 0));
    bench.pass(ms(1_000));
    assert_eq!(moves(&bench), [Move::Acquire]);

    let mut with_traffic = Bench::new();
    with_traffic.prepare(2, None);
    with_traffic.report(1);
    assert_eq!(moves(&with_traffic), [Move::Acquire], "among those with traffic, the first wins");
}

#[test]
fn an_open_intent_for_another_keeps_an_instance_from_taking_and_for_itself_is_fulfilled() {
    let mut bench = Bench::holding();
    let op = bench.ask(1, 3);
    bench.prepare(3, None);
    bench.change(1, |local| local.life = Life::Dead { proven: true });
    bench.report(2);
    assert_eq!((bench.waits.clone(), bench.is_held_by(2)), (Some(Waiting::IntentForOther(op.clone())), false));
    bench.report(3);
    assert_eq!((bench.is_held_by(3), bench.view().holder.expect("held").value.op), (true, op));
}

#[test]
fn an_intent_for_an_instance_that_is_gone_keeps_nobody_waiting() {
    let mut bench = Bench::holding();
    bench.ask(1, 3);
    bench.change(1, |local| local.life = Life::Dead { proven: true });
    bench.report(2);
    assert!(bench.is_held_by(2), "no coordinator has to clear it first: {:?}", bench.waits);
}

#[test]
fn a_holder_that_lost_its_beat_while_it_was_asked_to_hand_over_begins_a_new_turn_first() {
    let (mut bench, _) = Bench::asked();
    bench.delete(keys().beat());
    bench.answers(1, AckState::Quiesced);
    bench.pass(ms(1_500));
    let first = moves(&bench).first().copied();
    assert_eq!(first, Some(Move::Mint), "T3 compares the beat, and would be refused for ever: {:?}", bench.waits);
}

#[test]
fn a_lost_turn_fences_the_service_at_once() {
    let mut bench = Bench::holding();
    bench.obeys = None;
    let token = bench.published(1).token;
    // Break-glass: an operator gives it to somebody else.
    let mut holder = bench.view().holder.expect("held").value;
    if let handover_proto::lease::HolderState::Held(held) = &mut holder.state {
        held.owner = owner(9);
    }
    bench.put(keys().holder(), &holder, 0);
    bench.delete(keys().beat());
    assert_eq!((bench.told(1), bench.published(1).token), (Told::Fenced, token));
    bench.answers(1, AckState::Quiesced);
    assert_eq!(bench.told(1), Told::Stopped);
}

#[test]
fn contradicting_keys_stop_everybody() {
    let mut bench = Bench::holding();
    let beat = bench.view().beat.expect("a beat");
    bench.put(keys().beat(), &beat.value, beat.lease);
    assert!(bench.told(1) == Told::Quiesce && matches!(bench.waits, Some(Waiting::Corrupt(_))));
    bench.change(1, |local| local.life = Life::Dead { proven: true });
    assert!(moves(&bench).is_empty(), "an operator has to look");
}

#[test]
fn a_raised_era_stops_the_holder_and_brings_a_token_of_the_new_era_after_the_quarantine() {
    let mut bench = Bench::holding();
    let token = bench.published(1).token;
    bench.put(keys().era(), &EraValue::of(Era(1)), 0);
    bench.pass(ms(11_000));
    assert_eq!((bench.told(1), moves(&bench).len()), (Told::Quiesce, 0));
    assert!(matches!(bench.waits, Some(Waiting::Unproven(_))), "{:?}", bench.waits);
    bench.pass(ms(200));
    assert_eq!((moves(&bench), bench.told(1)), (vec![Move::Mint], Told::Active));
    let raised = bench.published(1).token;
    assert!(raised > token && raised.is_some_and(|token| token.era() == Era(1)));
}

#[test]
fn another_cluster_is_refused_also_by_the_next_agent_process() {
    let bench = Bench::holding();
    let mut memory = bench.saved.clone().expect("saved");
    memory.cluster = Some(lease_bench::store::CLUSTER + 1);
    let mut next = Bench::with(LeaseSettings::default(), bench.store, Some(memory));
    next.report(1);
    assert!(matches!(next.waits, Some(Waiting::Corrupt(_))) && moves(&next).is_empty());
    assert_ne!(next.told(1), Told::Active);
}

/// A new agent process for the same instance and store.
fn restart(bench: Bench, memory: Option<Memory>) -> Bench {
    let now = bench.now;
    let mut next = Bench::with(LeaseSettings::default(), bench.store, memory);
    next.now = now;
    next.report(1);
    next
}

#[test]
fn a_restarted_agent_goes_on_under_the_same_token_and_lease() {
    let bench = Bench::holding();
    let (token, beat) = (bench.published(1).token, bench.view().beat.expect("a beat"));
    let memory = bench.saved.clone();
    assert!(memory.is_some());
    let next = restart(bench, memory);
    assert_eq!((next.told(1), next.published(1).token, moves(&next).len()), (Told::Active, token, 0));
    assert_eq!((next.view().beat.expect("a beat").lease, next.did("Grant")), (beat.lease, 0));
    assert!(next.steps.iter().all(|step| !matches!(step, LeaseStep::Order { order: Order::Quiesce(_), .. })));
}

#[test]
fn a_restarted_agent_says_unknown_until_a_renewal_is_accepted_and_then_stops_the_service() {
    let bench = Bench::holding();
    let memory = bench.saved.clone();
    let mut next = Bench::with(LeaseSettings::default(), bench.store, memory);
    (next.mood, next.obeys) = (Mood::Away, None);
    next.report(1);
    assert_eq!((next.told(1), next.did("Tell")), (Told::Unknown, 0));
    next.pass(ms(1_000));
    assert_eq!(next.told(1), Told::Quiesce);
    next.pass(ms(2_000));
    assert_eq!(next.did("Kill"), 1, "nobody knows its deadline any more");
}

#[test]
fn an_agent_that_died_in_a_hand_over_asks_the_service_again_and_mints_a_new_token() {
    let (bench, _) = Bench::asked();
    let (token, memory) = (bench.published(1).token, bench.saved.clone());
    assert!(memory.as_ref().expect("saved").turns[&id(1)].leaving);
    let mut bench = bench;
    bench.delete(keys().intent());
    let next = restart(bench, memory);
    assert_eq!(moves(&next), [Move::Mint]);
    assert!(next.told(1) == Told::Active && next.published(1).token > token);
}

#[test]
fn an_agent_that_lost_its_state_file_trusts_nothing_and_mints_a_new_token() {
    let bench = Bench::holding();
    let token = bench.published(1).token;
    let next = restart(bench, None);
    assert_eq!(moves(&next), [Move::Mint]);
    assert!(next.published(1).token > token);
}

#[test]
fn an_agent_whose_state_file_is_of_an_earlier_turn_mints_a_token_above_the_one_in_the_database() {
    let bench = Bench::holding();
    let earlier = bench.saved.clone();
    let second = restart(bench, None);
    let token = second.published(1).token.expect("a second turn");
    let now = second.now;
    let mut next = Bench::with(LeaseSettings::default(), second.store, earlier);
    next.now = now;
    next.says.stored_token = Some(token.get().to_string());
    next.report(1);
    next.pass(ms(3_000));
    assert_eq!(moves(&next), [Move::Mint], "{:?}", next.waits);
    assert!(next.told(1) == Told::Active && next.published(1).token > Some(token));
}

#[test]
fn after_another_boot_nothing_of_the_state_file_is_used() {
    let bench = Bench::holding();
    let mut memory = bench.saved.clone().expect("saved");
    memory.boot_id = "an earlier boot".to_owned();
    let next = restart(bench, Some(memory));
    assert_eq!(moves(&next), [Move::Mint]);
}

#[test]
fn a_turn_that_ended_while_the_agent_was_away_is_fenced() {
    let bench = Bench::holding();
    let (token, memory) = (bench.published(1).token, bench.saved.clone());
    let mut bench = bench;
    let txn = handover_proto::lease::release(
        &keys(),
        &bench.view(),
        &id(1),
        handover_proto::lease::StopProof::Operator,
        "00000000000000fd".parse().expect("an op"),
        Stamp::default(),
    );
    assert!(bench.store.txn(&txn.expect("held")).expect("a write").succeeded);
    let mut next = Bench::with(LeaseSettings::default(), bench.store, memory);
    next.obeys = None;
    next.report(1);
    assert_eq!(
        (next.told(1), next.published(1).token, next.lease_of(1).state),
        (Told::Fenced, token, LeaseState::Fenced)
    );
}

#[test]
fn steps_that_do_not_fit_the_state_are_refused_and_change_nothing() {
    let bench = Bench::holding();
    let (instance, stranger) = (id(1), id(7));
    let mut core = bench.core.clone();
    let now = Boot::from_ns(2_000_000_000_000);
    let order = |order| LeaseStep::Order { instance: instance.clone(), order };
    let adopt = LeaseStep::Adopt { instance: instance.clone(), lease: 5, ttl: ms(10_000), used: false };
    for step in [order(Order::Stopped), adopt] {
        assert!(matches!(core.started(&step, now), Err(Illegal::Arrow { .. })), "{step:?}");
    }
    let unknown = LeaseStep::Leave { instance: stranger };
    assert!(matches!(core.started(&unknown, now), Err(Illegal::Unknown { .. })));
    let read = LeaseStep::Read(handover_proto::lease::read(&keys()));
    core.started(&read, now).expect("the first");
    assert_eq!(core.started(&read, now), Err(Illegal::Twice("Read")));
    let grant = LeaseStep::Grant { instance, ttl: ms(10_000) };
    core.started(&grant, now).expect("the first");
    assert_eq!(core.started(&grant, now), Err(Illegal::Twice("Grant")));
    assert!(core.started(&LeaseStep::Revoke { lease: 99 }, now).is_err());
    let op = "00000000000000fc".parse().expect("an op");
    core.next(&Now { boot: now, wall_ms: 0, op }).expect("still able to decide");
}
