//! Parking, certificates, and the era after a restore. Plain functions: no runtime, no clock, no network.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

mod lease_bench;

use handover_agent::lease::certificate::Certified;
use handover_agent::lease::event::Event;
use handover_agent::lease::memory::Memory;
use handover_agent::lease::record::{AckState, Told};
use handover_agent::lease::settings::LeaseSettings;
use handover_agent::lease::state::Move;
use handover_agent::lease::step::LeaseStep;
use handover_agent::lease::waiting::Waiting;
use handover_agent::lease::wanted::Life;
use handover_proto::blocker::BlockerKind;
use handover_proto::lease::{EraValue, HolderState, StopProof};
use handover_proto::numbers::{Era, Token};
use lease_bench::store::ModelStore;
use lease_bench::{Bench, Mood, id, keys, ms};

fn moves(bench: &Bench) -> Vec<Move> {
    let kind = |step: &LeaseStep| match step {
        LeaseStep::Move { kind, .. } => Some(*kind),
        _ => None,
    };
    bench.steps.iter().filter_map(kind).collect()
}

fn restart(bench: Bench, memory: Option<Memory>) -> Bench {
    let now = bench.now;
    let mut next = Bench::with(LeaseSettings::default(), bench.store, memory);
    next.now = now;
    next.report(1);
    next
}

// Parking.

#[test]
fn a_parked_lease_is_free_after_quiesced_under_the_intents_op_and_stays_free_while_frozen() {
    let mut bench = Bench::holding();
    bench.put(keys().freeze(), &"by an operator", 0);
    bench.obeys = None;
    let op = bench.park(1);
    assert_eq!((bench.told(1), moves(&bench).len(), bench.last_call(1).op), (Told::Quiesce, 0, Some(op.clone())));
    assert!(bench.saved.as_ref().expect("saved").turns[&id(1)].leaving, "as before every T4");
    bench.obeys = Some(AckState::Quiesced);
    bench.answers(1, AckState::Quiesced);
    assert_eq!(moves(&bench), [Move::Release(StopProof::Quiesced)]);
    let holder = bench.view().holder.expect("a holder key").value;
    assert!(matches!(&holder.state, HolderState::Free(free) if free.stop_proof == StopProof::Quiesced));
    assert_eq!((holder.op, bench.view().open_intent()), (op, None), "the intent is consumed");
    bench.pass(ms(20_000));
    assert_eq!((moves(&bench).len(), bench.waits.clone()), (1, Some(Waiting::Frozen)));
    bench.delete(keys().freeze());
    assert_eq!(bench.told(1), Told::Active, "and taken up again without the freeze");
}

#[test]
fn a_service_that_does_not_quiesce_in_time_keeps_a_lease_that_was_to_be_parked() {
    let mut bench = Bench::holding();
    bench.obeys = None;
    let op = bench.park(1);
    assert_eq!(bench.told(1), Told::Quiesce);
    bench.pass(ms(3_050));
    assert_eq!((bench.told(1), bench.view().candidates[&id(1)].value.declined.clone()), (Told::Active, Some(op)));
    assert!(moves(&bench).is_empty());
}

#[test]
fn parking_begins_only_with_a_durable_record() {
    let mut bench = Bench::holding();
    (bench.disk_full, bench.obeys) = (true, None);
    bench.park(1);
    assert_eq!(bench.told(1), Told::Active);
    assert!(matches!(bench.waits, Some(Waiting::Disk(Some(_)))), "{:?}", bench.waits);
}

#[test]
fn an_intent_to_park_a_holder_that_is_gone_keeps_nobody_from_taking() {
    let mut bench = Bench::holding();
    bench.obeys = None;
    bench.park(1);
    bench.obeys = Some(AckState::Quiesced);
    bench.change(1, |local| local.life = Life::Dead { proven: true });
    bench.report(2);
    assert!(bench.is_held_by(2));
}

// Certificates.

/// Instance 1 held and worked; the store is away and its soft deadline has passed.
fn cut_off() -> (Bench, Token) {
    let mut bench = Bench::holding();
    let token = bench.published(1).token.expect("a token");
    (bench.mood, bench.obeys) = (Mood::Away, None);
    bench.pass(ms(6_500));
    assert_eq!(bench.told(1), Told::Quiesce);
    (bench, token)
}

fn ask(bench: &mut Bench, token: Token) -> Certified {
    bench.hear(Event::CertifyAsked(token));
    bench.core.certify(token)
}

#[test]
fn nothing_is_certified_while_the_service_may_work_or_for_tokens_that_nobody_knows() {
    let mut bench = Bench::holding();
    let token = bench.published(1).token.expect("a token");
    assert!(matches!(ask(&mut bench, token), Certified::No(_)));
    assert_eq!((bench.told(1), moves(&bench).len()), (Told::Active, 0), "asking changes nothing");
    assert!(matches!(ask(&mut bench, Token::from_wire(1)), Certified::No(_)));
    let (mut cut, token) = cut_off();
    assert!(matches!(ask(&mut cut, token), Certified::No(_)), "it has not acknowledged");
    let (mut leaving, _) = Bench::asked();
    leaving.mood = Mood::Slow;
    leaving.answers(1, AckState::Quiesced);
    let token = leaving.published(1).token.expect("a token");
    assert!(matches!(ask(&mut leaving, token), Certified::No(_)), "its own T3 is on the way");
}

#[test]
fn a_stopped_service_is_certified_only_once_the_state_file_says_so() {
    let (mut bench, token) = cut_off();
    bench.disk_full = true;
    bench.answers(1, AckState::Quiesced);
    assert_eq!(ask(&mut bench, token), Certified::Unwritten);
    bench.disk_full = false;
    bench.pass(ms(500));
    let certified = bench.core.certify(token);
    assert!(
        matches!(certified, Certified::Stopped { proof: StopProof::Quiesced, may_return: true, since: Some(_) }),
        "{certified:?}"
    );
    assert!(bench.saved.as_ref().expect("saved").turns[&id(1)].leaving);
}

#[test]
fn a_certified_turn_never_works_again_and_goes_on_only_under_a_new_token() {
    let (mut bench, token) = cut_off();
    bench.answers(1, AckState::Quiesced);
    assert!(matches!(ask(&mut bench, token), Certified::Stopped { .. }));
    bench.obeys = Some(AckState::Quiesced);
    bench.mood = Mood::Good;
    bench.pass(ms(1_000));
    assert_eq!(moves(&bench), [Move::Mint], "though its etcd lease had survived");
    assert!(bench.told(1) == Told::Active && bench.published(1).token > Some(token));
}

#[test]
fn an_agent_that_died_after_it_certified_does_not_work_under_that_token_either() {
    let (mut bench, token) = cut_off();
    bench.answers(1, AckState::Quiesced);
    assert!(matches!(ask(&mut bench, token), Certified::Stopped { .. }));
    let memory = bench.saved.clone();
    let next = restart(bench, memory);
    assert_eq!(moves(&next), [Move::Mint]);
    assert!(next.published(1).token > Some(token));
    let worked = |step: &LeaseStep| matches!(step, LeaseStep::Tell { record, .. } if record.told == Told::Active && record.token == Some(token));
    assert!(!next.steps.iter().any(worked));
}

#[test]
fn a_dead_process_is_certified_as_dead_and_does_not_come_back() {
    let (mut bench, token) = cut_off();
    bench.change(1, |local| local.life = Life::Dead { proven: false });
    assert!(matches!(ask(&mut bench, token), Certified::No(_)));
    bench.change(1, |local| local.life = Life::Dead { proven: true });
    let certified = ask(&mut bench, token);
    assert!(matches!(certified, Certified::Stopped { proof: StopProof::Dead, may_return: false, .. }), "{certified:?}");
}

// The era.

fn raise(store: &mut ModelStore, era: u16) {
    let value = serde_json::to_vec(&EraValue::of(Era(era))).expect("json");
    let then = vec![handover_proto::txn::Op::put(keys().era(), value)];
    assert!(store.txn(&handover_proto::txn::Txn { then, ..Default::default() }).expect("a put").succeeded);
}

/// Instance 1 holds; then the store is put back to a moment before its turn, perhaps as another cluster.
fn restored(other_cluster: bool) -> (Bench, Option<Token>) {
    let mut bench = Bench::new();
    let past = bench.store.clone();
    bench.report(1);
    let token = bench.published(1).token;
    bench.pass(ms(1_000));
    bench.steps.clear();
    bench.restore(ModelStore { restores: u64::from(other_cluster), ..past });
    bench.pass(ms(4_000));
    (bench, token)
}

#[test]
fn a_restored_store_is_refused_by_holders_and_the_blocker_names_the_command() {
    for other_cluster in [false, true] {
        let (mut bench, _) = restored(other_cluster);
        assert_eq!((bench.told(1), moves(&bench).len()), (Told::Quiesce, 0), "no T5");
        let waits = bench.waits.clone().expect("it waits");
        assert_eq!(waits.kind(), BlockerKind::Operator);
        assert!(waits.to_string().contains("handover lease era --raise --by NAME --second NAME"), "{waits}");
        bench.pass(ms(30_000));
        assert_eq!((bench.told(1), moves(&bench).len()), (Told::Quiesce, 0));
    }
}

#[test]
fn a_store_that_went_back_is_refused_by_the_next_agent_process_too() {
    let (bench, _) = restored(false);
    let memory = bench.saved.clone();
    let next = restart(bench, memory);
    assert!(matches!(next.waits, Some(Waiting::Corrupt(_))) && moves(&next).is_empty(), "{:?}", next.waits);
}

#[test]
fn an_agent_that_was_away_while_the_store_was_restored_notices_it_by_the_last_turn() {
    let mut bench = Bench::holding();
    let beat = bench.view().beat.expect("a beat").lease;
    let mut old = Bench::with(LeaseSettings::default(), bench.store.clone(), None);
    bench.store.revoke(beat);
    bench.pass(ms(1_000));
    let memory = bench.saved.clone();
    assert_eq!(moves(&bench), [Move::Mint]);
    old.pass(ms(100));
    assert!(old.view().turn_revision() < memory.as_ref().expect("saved").last_turn, "an earlier turn stands there");
    let next = restart(old, memory);
    assert!(matches!(next.waits, Some(Waiting::Corrupt(_))) && moves(&next).is_empty(), "{:?}", next.waits);
}

#[test]
fn after_the_era_was_raised_the_lease_goes_on_with_higher_tokens_once_nobody_can_work_any_more() {
    for other_cluster in [false, true] {
        let (mut bench, token) = restored(other_cluster);
        raise(&mut bench.store, 1);
        bench.pass(ms(11_000));
        assert_eq!(moves(&bench).len(), 0, "whoever held before the loss may have a deadline left");
        bench.pass(ms(1_500));
        assert_eq!((bench.told(1), bench.is_held_by(1)), (Told::Active, true), "{:?}", bench.waits);
        let raised = bench.published(1).token;
        assert!(raised > token && raised.is_some_and(|token| token.era() == Era(1)));
        assert_eq!(bench.saved.as_ref().expect("saved").era, Era(1), "the next process expects it");
    }
}

#[test]
fn another_cluster_with_the_same_era_is_not_believed_by_an_agent_that_remembers() {
    let mut bench = Bench::holding();
    raise(&mut bench.store, 1);
    bench.pass(ms(13_000));
    let memory = bench.saved.clone().expect("saved");
    assert_eq!(memory.era, Era(1));
    let mut other = ModelStore { restores: 1, ..ModelStore::default() };
    raise(&mut other, 1);
    let mut next = Bench::with(LeaseSettings::default(), other, Some(memory));
    next.report(1);
    next.pass(ms(15_000));
    assert!(matches!(next.waits, Some(Waiting::Corrupt(_))) && moves(&next).is_empty(), "{:?}", next.waits);
    raise(&mut next.store, 2);
    next.pass(ms(13_000));
    assert_eq!(next.told(1), Told::Active);
}

#[test]
fn an_era_key_that_went_back_stops_everybody() {
    let mut bench = Bench::holding();
    raise(&mut bench.store, 2);
    bench.pass(ms(13_000));
    assert_eq!(bench.told(1), Told::Active);
    bench.delete(keys().era());
    assert_eq!(bench.told(1), Told::Quiesce);
    let waits = bench.waits.clone().expect("it waits").to_string();
    assert!(waits.contains("era key shows 0 after 2") && waits.contains("above 2"), "{waits}");
}

#[test]
fn an_era_that_fits_no_token_stops_everybody_until_it_is_replaced_and_is_not_remembered() {
    let mut bench = Bench::holding();
    let token = bench.published(1).token;
    bench.put(keys().era(), &serde_json::json!({ "v": 1, "era": 40_000 }), 0);
    assert_eq!(bench.told(1), Told::Quiesce);
    let waits = bench.waits.clone().expect("it waits").to_string();
    assert!(waits.contains("40000") && waits.contains("handover lease era --raise --by NAME --second NAME"), "{waits}");
    raise(&mut bench.store, 1);
    bench.pass(ms(30_000));
    assert_eq!(bench.told(1), Told::Active, "{:?}", bench.waits);
    assert!(bench.published(1).token > token && bench.published(1).token.is_some_and(|token| token.era() == Era(1)));
}

#[test]
fn an_agent_that_renews_nothing_notices_a_restore_by_its_reads() {
    let mut bench = Bench::new();
    bench.other_holds(9);
    bench.report_as(1, |local| local.eligible = false);
    let past = bench.store.clone();
    for _ in 0..5 {
        bench.put(keys().freeze(), &"by an operator", 0);
    }
    bench.pass(ms(2_000));
    assert_eq!(bench.waits, None);
    bench.restore(past);
    bench.pass(ms(4_000));
    let waits = bench.waits.clone().expect("it waits");
    assert!(matches!(&waits, Waiting::Corrupt(why) if why.contains("went back from revision")), "{waits}");
}

#[test]
fn what_another_cluster_showed_is_forgotten_when_the_known_one_answers_again() {
    let mut bench = Bench::holding();
    let log = bench.store.log.clone();
    let other = ModelStore { restores: 1, revision: 1_000, log, ..ModelStore::default() };
    let known = std::mem::replace(&mut bench.store, other);
    bench.pass(ms(1_500));
    assert!(matches!(bench.waits, Some(Waiting::Corrupt(_))), "{:?}", bench.waits);
    // Its watch shows changes with revisions far ahead.
    let gone = handover_store::client::Change { key: keys().holder(), value: None };
    bench.hear(Event::Changed { revision: 1_001, changes: vec![gone] });
    bench.store = known;
    bench.pass(ms(2_000));
    assert_eq!((bench.told(1), bench.waits.clone()), (Told::Active, None));
}

#[test]
fn one_stale_read_moves_nothing_and_stops_nobody() {
    let mut bench = Bench::holding();
    let token = bench.published(1).token;
    let mut past = bench.store.clone();
    past.revision -= 1;
    let present = std::mem::replace(&mut bench.store, past);
    bench.pass(ms(1_000));
    assert_eq!(bench.told(1), Told::Active);
    bench.store = present;
    bench.pass(ms(3_000));
    assert_eq!((bench.told(1), bench.published(1).token, bench.waits.clone()), (Told::Active, token, None));
}
