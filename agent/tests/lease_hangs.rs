//! What the keeper does with a service that hangs while it holds. Plain functions: no runtime, no clock, no network.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

mod lease_bench;

use std::time::Duration;

use handover_agent::lease::event::Event;
use handover_agent::lease::record::Told;
use handover_agent::lease::state::Move;
use handover_agent::lease::step::LeaseStep;
use handover_agent::lease::suspect::Suspicion;
use handover_agent::lease::waiting::Waiting;
use handover_agent::lease::wanted::Life;
use handover_proto::lease::StopProof;
use lease_bench::{Bench, id, ms};

/// A bench on which instance 1 holds, has just answered, and now answers nothing any more. Its last answer is at most
/// one interval old.
fn gone_silent() -> Bench {
    let mut bench = Bench::holding();
    bench.pass(ms(3_000));
    bench.obeys = None;
    bench.steps.clear();
    bench
}

#[test]
fn a_holder_whose_service_answers_nothing_is_killed_after_the_stall_and_released_with_proof() {
    let mut bench = gone_silent();
    bench.pass(ms(8_950));
    assert_eq!((bench.told(1), bench.did("Kill")), (Told::Active, 0), "its etcd lease is safe all the time");
    bench.pass(ms(1_100));
    assert_eq!((bench.told(1), bench.did("Kill")), (Told::Quiesce, 1));
    assert!(bench.published(1).reason.contains("has not answered for"), "{}", bench.published(1).reason);
    assert!(matches!(bench.waits, Some(Waiting::Kill { .. })), "{:?}", bench.waits);
    assert_eq!(bench.did("Move"), 0, "killed is not dead");
    bench.change(1, |local| local.life = Life::Dead { proven: true });
    let release = Move::Release(StopProof::Dead);
    assert!(bench.steps.iter().any(|step| matches!(step, LeaseStep::Move { kind, .. } if *kind == release)));
    assert!(!bench.is_held_by(1));
}

#[test]
fn a_service_that_says_it_works_and_gets_on_with_nothing_is_killed_too() {
    let mut bench = Bench::holding();
    (bench.says.in_flight, bench.says.progress) = (1, Some(40));
    bench.pass(ms(2_000));
    for unit in 41..60 {
        bench.says.progress = Some(unit);
        bench.pass(ms(2_000));
    }
    assert_eq!(bench.did("Kill"), 0, "slow is not stuck");
    bench.pass(ms(8_000));
    assert_eq!(bench.did("Kill"), 0);
    bench.pass(ms(1_500));
    assert!(bench.did("Kill") >= 1);
    assert!(bench.published(1).reason.contains("no progress"), "{}", bench.published(1).reason);
}

#[test]
fn an_idle_service_that_answers_holds_for_ever() {
    let mut bench = Bench::holding();
    (bench.says.in_flight, bench.says.progress) = (0, Some(40));
    bench.pass(ms(60_000));
    assert_eq!((bench.told(1), bench.did("Kill")), (Told::Active, 0));
}

#[test]
fn a_service_that_thaws_in_time_goes_on() {
    let mut bench = gone_silent();
    bench.pass(ms(8_900));
    bench.obeys = Some(handover_agent::lease::record::AckState::Quiesced);
    bench.pass(ms(30_000));
    assert_eq!((bench.told(1), bench.did("Kill")), (Told::Active, 0));
}

#[test]
fn longer_units_are_given_longer() {
    let mut bench = Bench::holding();
    bench.says.c_unit_ms = Some(4_000);
    bench.pass(ms(3_000));
    bench.obeys = None;
    bench.pass(ms(18_900));
    assert_eq!(bench.did("Kill"), 0, "five units of 4 s");
    bench.pass(ms(1_200));
    assert_eq!(bench.did("Kill"), 1);
}

#[test]
fn an_agent_that_stood_still_itself_gives_the_service_its_whole_time_again() {
    let mut bench = gone_silent();
    bench.pass(ms(4_000));
    let at = bench.now;
    bench.hear(Event::Suspected { what: Suspicion::Stalled(Duration::from_secs(1)), at });
    bench.pass(ms(9_900));
    assert_eq!(bench.did("Kill"), 0);
    bench.pass(ms(200));
    assert_eq!(bench.did("Kill"), 1);
}

#[test]
fn a_kill_is_never_taken_back_is_repeated_and_its_failure_shown() {
    let mut bench = gone_silent();
    bench.kill_trouble = Some("the kernel refused".to_owned());
    bench.pass(ms(10_100));
    assert_eq!(bench.did("Kill"), 1);
    let text = bench.waits.as_ref().expect("a reason").to_string();
    assert!(text.contains("which were killed") && text.contains("the kernel refused"), "{text}");
    bench.obeys = Some(handover_agent::lease::record::AckState::Quiesced);
    bench.pass(ms(5_000));
    assert_eq!(bench.told(1), Told::Quiesce, "whatever it answers");
    assert_eq!((bench.did("Kill"), bench.did("Move")), (6, 0), "once in c_kill");
    bench.kill_trouble = None;
    bench.pass(ms(1_000));
    let text = bench.waits.as_ref().expect("a reason").to_string();
    assert!(!text.contains("refused"), "{text}");
}

#[test]
fn a_hand_over_grants_the_service_its_own_time() {
    let (mut bench, _) = Bench::asked();
    assert_eq!((bench.told(1), bench.did("Kill")), (Told::Quiesce, 0), "asked to stop within 3 s");
    bench.pass(ms(3_050));
    assert_eq!((bench.told(1), bench.did("Kill")), (Told::Active, 0), "declined, not killed");
    bench.pass(ms(9_800));
    assert_eq!(bench.did("Kill"), 0, "counted from the last order");
    bench.pass(ms(300));
    assert_eq!(bench.did("Kill"), 1);
}

#[test]
fn parking_grants_the_service_its_own_time_too() {
    let mut bench = Bench::holding();
    bench.obeys = None;
    bench.park_within(1, ms(15_000));
    let began = bench.now;
    while bench.now.since(began) < ms(14_000) {
        assert_eq!(bench.told(1), Told::Quiesce);
        let seq = bench.last_call(1).seq;
        bench.hear(Event::Answered { instance: id(1), seq, result: Err("it is busy".to_owned()) });
        bench.pass(ms(300));
    }
    assert_eq!(bench.did("Kill"), 0, "a stall is ten seconds, and it was given fifteen");
}

#[test]
fn a_hanging_service_that_is_to_give_up_is_killed_though_its_lease_is_renewed() {
    let mut bench = gone_silent();
    bench.change(1, |local| local.life = Life::GiveUp);
    assert_eq!(bench.told(1), Told::Quiesce);
    let began = bench.now;
    while bench.now.since(began) < ms(9_900) {
        let limit = bench.last_limit(1);
        assert!(limit <= ms(3_000), "{limit:?}: it is asked several times in that time");
        bench.pass(limit);
        let seq = bench.last_call(1).seq;
        bench.hear(Event::Answered { instance: id(1), seq, result: Err("no answer in time".to_owned()) });
        bench.pass(ms(300));
    }
    assert!(bench.did("Tell") >= 4);
    bench.pass(ms(200));
    assert!(bench.did("Kill") >= 1);
}

#[test]
fn whoever_does_not_hold_is_not_killed_for_silence() {
    let mut bench = Bench::new();
    bench.other_holds(9);
    bench.report(1);
    bench.obeys = None;
    bench.pass(ms(60_000));
    assert_eq!(bench.did("Kill"), 0);
    assert!(bench.core.status(&Default::default(), None, bench.now, 0).instances.contains_key(&id(1)));
}
