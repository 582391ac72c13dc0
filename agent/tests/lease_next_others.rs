//! What others write, lose or copy must neither stop a holder nor make two. Plain functions: no runtime, no clock, no
//! network.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

mod lease_bench;

use std::time::Duration;

use handover_agent::lease::event::Event;
use handover_agent::lease::fitness::HostFacts;
use handover_agent::lease::record::{AckState, Told};
use handover_agent::lease::step::LeaseStep;
use handover_agent::lease::suspect::Suspicion;
use handover_agent::lease::waiting::Waiting;
use handover_agent::lease::wanted::Life;
use handover_proto::lease::{self, Candidate, Stamp, Turn};
use lease_bench::{Bench, Mood, keys, ms, owner};

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn an_intent_or_a_roster_that_cannot_be_read_stops_no_holder_and_keeps_takers_waiting() {
    for key in [keys().intent(), keys().roster()] {
        let mut bench = Bench::holding();
        bench.put(key.clone(), &"x", 0);
        bench.pass(ms(12_000));
        assert_eq!(bench.told(1), Told::Active, "{key} is for those who take: {:?}", bench.waits);

        let mut bench = Bench::new();
        bench.other_holds(9);
        bench.report(1);
        bench.pass(ms(2_500));
        assert!(bench.view().candidates.values().any(|seen| seen.value.ready), "it could take the lease");
        bench.put(key.clone(), &"x", 0);
        bench.delete(keys().beat());
        bench.pass(MINUTE);
        assert_eq!(bench.told(1), Told::Stopped, "nobody knows whom {key} names");
        assert!(matches!(bench.waits, Some(Waiting::Corrupt(_))), "{:?}", bench.waits);
        bench.delete(key);
        bench.list(&[1, 9]);
        bench.pass(MINUTE);
        assert!(bench.is_held_by(1), "{:?}", bench.waits);
    }
}

#[test]
fn a_copy_does_not_work_under_the_turn_that_the_other_copy_of_its_host_minted() {
    let mut bench = Bench::holding();
    let held = bench.view().holder.and_then(|seen| seen.value.held().cloned()).expect("it holds");
    let me = owner(1);
    let op = "00000000000000ff".parse().expect("an op");
    let turn = Turn { owner: &me, lease_id: held.lease_id, ttl_s: held.ttl_s, op, stamp: Stamp::default() };
    let theirs = lease::mint(&keys(), &bench.view(), &turn).expect("its own turn");
    let at = bench.now;
    bench.mood = Mood::Late;
    bench.hear(Event::Suspected { what: Suspicion::Copied, at });
    bench.pass(ms(1_000));
    assert!(!bench.held.is_empty(), "its own T5 is on its way");
    assert!(bench.store.txn(&theirs).expect("a write").succeeded, "the other copy was faster");
    bench.mood = Mood::Good;
    for _ in 0..200 {
        bench.pass(ms(100));
        assert_ne!(bench.told(1), Told::Active, "the other copy works under this token");
    }
    assert!(bench.lease_of(1).reason.contains("copied"), "{}", bench.lease_of(1).reason);
}

#[test]
fn a_copied_candidate_takes_nothing_any_more() {
    let mut bench = Bench::new();
    bench.other_holds(9);
    bench.report(1);
    bench.pass(ms(2_500));
    let at = bench.now;
    bench.hear(Event::Suspected { what: Suspicion::Copied, at });
    bench.other_releases(9);
    bench.pass(MINUTE);
    assert!(!bench.is_held_by(1));
    assert_eq!(bench.waits, Some(Waiting::Copied));
}

#[test]
fn under_a_freeze_the_lease_stays_where_it_is() {
    let mut bench = Bench::holding();
    bench.put(keys().freeze(), &"{}", 0);
    bench.change(1, |local| local.life = Life::GiveUp);
    bench.pass(ms(5_000));
    assert!(bench.is_held_by(1), "given up, nobody could take it");
    assert_eq!(bench.waits, Some(Waiting::Frozen));

    let mut bench = Bench::holding();
    bench.put(keys().freeze(), &"{}", 0);
    bench.change(1, |local| local.life = Life::Dead { proven: true });
    bench.report_as(2, |local| local.owner.agent = owner(1).agent);
    bench.pass(ms(5_000));
    assert!(bench.is_held_by(2), "its own agent's next process: {:?}", bench.waits);

    let mut bench = Bench::holding();
    bench.put(keys().freeze(), &"{}", 0);
    bench.restart(1);
    bench.pass(MINUTE);
    assert!(!bench.is_held_by(2), "another agent's may not");
    assert_eq!(bench.waits, Some(Waiting::Frozen));
}

#[test]
fn whoever_cannot_write_its_state_file_takes_no_turn() {
    let mut bench = Bench::new();
    bench.disk_full = true;
    bench.other_holds(9);
    bench.report(1);
    bench.pass(ms(2_500));
    assert!(bench.view().candidates.values().all(|seen| !seen.value.ready), "it could not record a turn");
    bench.other_releases(9);
    bench.pass(ms(5_000));
    assert!(matches!(bench.waits, Some(Waiting::Disk(Some(_)))), "{:?}", bench.waits);
    assert!(!bench.is_held_by(1));
    bench.disk_full = false;
    bench.pass(ms(5_000));
    assert!(bench.is_held_by(1), "{:?}", bench.waits);
}

#[test]
fn a_store_that_is_not_believed_is_not_written_to_over_and_over() {
    let mut bench = Bench::new();
    let mut past = bench.store.clone();
    bench.other_holds(9);
    bench.report(1);
    bench.pass(ms(2_500));
    past.restores += 1;
    bench.restore(past);
    bench.pass(ms(5_000));
    assert!(matches!(bench.waits, Some(Waiting::Corrupt(_))), "{:?}", bench.waits);
    bench.steps.clear();
    bench.pass(MINUTE);
    assert_eq!((bench.did("PutCandidate"), bench.did("Move")), (0, 0));
    assert!(bench.did("Read") <= 250, "four a second: {}", bench.did("Read"));
}

#[test]
fn an_agent_with_another_ttl_that_may_not_take_the_lease_keeps_nobody_from_it() {
    let mut bench = Bench::new();
    bench.other_holds(9);
    bench.list(&[1, 9]);
    bench.report(1);
    let stranger = Candidate { ttl_s: 20, ..bench.candidate(0) };
    bench.offer(&stranger);
    bench.pass(ms(2_500));
    bench.delete(keys().beat());
    bench.pass(MINUTE);
    assert!(bench.is_held_by(1), "app-0 is not listed, so app-1 need not be like it: {:?}", bench.waits);
}

#[test]
fn a_service_may_take_its_time_to_begin_however_often_its_lease_is_renewed_meanwhile() {
    let mut slow = Bench::new();
    slow.report_as(1, |local| local.eligible = false);
    slow.obeys = None;
    slow.change(1, |local| local.eligible = true);
    assert_eq!(slow.told(1), Told::Active, "{:?}", slow.waits);
    slow.pass(ms(4_500));
    assert!(slow.did("Renew") >= 5, "two before the turn, and more since: {}", slow.did("Renew"));
    let begins = |step: &&LeaseStep| matches!(step, LeaseStep::Tell { record, .. } if record.told == Told::Active);
    assert_eq!(slow.steps.iter().filter(begins).count(), 1, "one call, which it may answer for seconds");
    slow.answers(1, AckState::Started);
    assert_eq!(slow.told(1), Told::Active);
}

#[test]
fn an_outage_of_the_store_is_not_taken_for_a_slow_restart() {
    let bench = Bench::holding();
    let (memory, now) = (bench.saved.clone(), bench.now);
    let mut next = Bench::with(Default::default(), bench.store, memory);
    next.core = next.core.on_host(HostFacts { began: Some(now), ..HostFacts::default() });
    next.now = now.plus(ms(100));
    next.mood = Mood::Away;
    next.report(1);
    next.pass(ms(40_000));
    next.mood = Mood::Good;
    next.pass(ms(2_000));
    assert_eq!(next.told(1), Told::Active, "{:?}", next.waits);
    assert_eq!(next.waits, None, "it missed renewals because etcd was away, not because it starts slowly");
}
