//! What the keeper does when its host may have been away. Plain functions: no runtime, no clock, no network.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

mod lease_bench;

use std::time::Duration;

use handover_agent::lease::event::Event;
use handover_agent::lease::record::Told;
use handover_agent::lease::step::LeaseStep;
use handover_agent::lease::suspect::Suspicion;
use lease_bench::{Bench, Mood, ms};

const STALL: Suspicion = Suspicion::Stalled(Duration::from_secs(2));

fn suspect(bench: &mut Bench, what: Suspicion) {
    let at = bench.now;
    bench.hear(Event::Suspected { what, at });
}

#[test]
fn a_holder_that_may_have_been_away_stops_softly_until_a_renewal_that_began_afterwards() {
    let mut bench = Bench::holding();
    bench.pass(ms(400));
    let (token, mood) = (bench.published(1).token, Mood::Away);
    bench.mood = mood;
    suspect(&mut bench, STALL);
    assert_eq!(bench.told(1), Told::Quiesce);
    assert!(bench.published(1).reason.contains("stood still for 2s"), "{}", bench.published(1).reason);
    assert_eq!((bench.did("Renew"), bench.did("Kill")), (1, 0), "at once, not at the end of the interval");
    bench.mood = Mood::Good;
    bench.pass(ms(300));
    assert_eq!((bench.told(1), bench.published(1).token), (Told::Active, token), "the same turn goes on");
}

#[test]
fn a_renewal_that_was_sent_before_the_suspicion_does_not_dispel_it() {
    let mut bench = Bench::holding();
    bench.pass(ms(950));
    bench.mood = Mood::Slow;
    bench.pass(ms(100));
    let step = bench.steps.iter().rev().find(|step| step.name() == "Renew").cloned().expect("a renewal under way");
    let sent = bench.now.minus(ms(50));
    suspect(&mut bench, STALL);
    assert_eq!(bench.told(1), Told::Quiesce);
    let answered = bench.answer_renewal(&step, sent);
    bench.hear(answered);
    assert_eq!(bench.told(1), Told::Quiesce, "its answer came after, its request went before");
    let step = bench.steps.last().cloned().expect("a step");
    assert_eq!(step.name(), "Renew", "the next one begins at once");
    bench.now = bench.now.plus(ms(5));
    let answered = bench.answer_renewal(&step, bench.now.minus(ms(4)));
    bench.hear(answered);
    assert_eq!(bench.told(1), Told::Active);
}

#[test]
fn an_agent_that_does_not_know_yet_whether_it_holds_stops_the_service_too() {
    let mut holding = Bench::holding();
    holding.pass(ms(500));
    let memory = holding.saved.clone();
    let mut bench = Bench::with(Default::default(), holding.store, memory);
    bench.mood = Mood::Away;
    bench.report(1);
    assert_eq!(bench.told(1), Told::Unknown, "an agent restart alone is invisible");
    suspect(&mut bench, STALL);
    assert_eq!(bench.told(1), Told::Quiesce);
}

#[test]
fn a_candidate_that_may_have_been_away_takes_nothing_before_it_has_renewed() {
    let mut bench = Bench::new();
    bench.other_holds(9);
    bench.report(1);
    bench.pass(ms(2_500));
    bench.mood = Mood::Slow;
    suspect(&mut bench, STALL);
    bench.other_releases(9);
    assert_eq!(bench.did("Move"), 0, "its own lease may be long gone: {:?}", bench.waits);
    let step = bench.steps.iter().rev().find(|step| step.name() == "Renew").cloned().expect("it renews");
    bench.now = bench.now.plus(ms(5));
    bench.mood = Mood::Good;
    let answered = bench.answer_renewal(&step, bench.now.minus(ms(4)));
    bench.hear(answered);
    assert!(bench.is_held_by(1), "{:?}", bench.waits);
}

#[test]
fn a_copied_host_works_only_under_a_new_token() {
    let mut bench = Bench::holding();
    let token = bench.published(1).token;
    suspect(&mut bench, Suspicion::Copied);
    assert!(
        bench.steps.iter().any(|step| matches!(step, LeaseStep::Tell { record, .. } if record.told == Told::Quiesce))
    );
    bench.pass(ms(500));
    assert_eq!(bench.told(1), Told::Active);
    assert!(bench.published(1).token > token, "both copies had the old one");
}

#[test]
fn there_is_much_to_lose_for_whoever_holds_or_could_and_for_nobody_else() {
    let mut bench = Bench::new();
    bench.report_as(1, |local| local.eligible = false);
    assert!(!bench.core.has_much_to_lose());
    bench.change(1, |local| local.eligible = true);
    assert!(bench.core.has_much_to_lose() && bench.is_held_by(1));
    assert_eq!(bench.told(1), Told::Active);
}
