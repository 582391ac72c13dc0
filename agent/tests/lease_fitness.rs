//! A host or a service that does not fit the lease's numbers takes no turn, and says why. Plain functions.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

mod lease_bench;

use std::time::Duration;

use handover_agent::lease::event::Event;
use handover_agent::lease::fitness::{HostFacts, KillTime};
use handover_agent::lease::record::Told;
use handover_agent::lease::waiting::Waiting;
use handover_proto::blocker::BlockerKind;
use lease_bench::{Bench, Mood, ms};

/// What keeps instance 1, alone in the world, from holding.
fn refusal(bench: &Bench) -> String {
    assert_eq!((bench.told(1), bench.did("Move")), (Told::Stopped, 0), "it takes nothing: {:?}", bench.waits);
    let unfit = matches!(bench.waits, Some(Waiting::Unfit(_)));
    assert!(unfit, "{:?}", bench.waits);
    bench.waits.as_ref().expect("a reason").to_string()
}

fn says(text: &str, words: &[&str]) {
    words.iter().for_each(|word| assert!(text.contains(word), "{word} is not in: {text}"));
}

#[test]
fn a_service_that_reports_progress_too_seldom_takes_nothing() {
    let mut bench = Bench::new();
    bench.says.progress_interval_ms = Some(1_001);
    bench.report(1);
    says(&refusal(&bench), &["1.001s", "2s", "1s", "K4"]);
    bench.says.progress_interval_ms = Some(1_000);
    bench.restart(1);
    assert!(bench.is_held_by(2), "{:?}", bench.waits);
}

#[test]
fn a_service_with_shorter_units_is_held_to_them() {
    let mut bench = Bench::new();
    (bench.says.c_unit_ms, bench.says.progress_interval_ms) = (Some(500), Some(251));
    bench.report(1);
    says(&refusal(&bench), &["251ms", "500ms", "250ms", "K4"]);
}

#[test]
fn a_database_that_lets_a_statement_outlive_its_unit_keeps_the_service_from_holding() {
    let mut bench = Bench::new();
    bench.says.statement_timeout_ms = Some(2_001);
    bench.report(1);
    says(&refusal(&bench), &["2.001s", "2s", "K6", "statement_timeout"]);
    bench.says.statement_timeout_ms = Some(2_000);
    bench.restart(1);
    assert!(bench.is_held_by(2), "{:?}", bench.waits);
}

fn on(host: HostFacts) -> Bench {
    let mut bench = Bench::new();
    bench.core = bench.core.on_host(host);
    bench.report(1);
    bench
}

#[test]
fn nothing_is_taken_before_the_kill_was_tried_and_found_quick_enough() {
    let mut bench = on(HostFacts { kill: KillTime::UnderWay, ..HostFacts::default() });
    refusal(&bench);
    assert_eq!(bench.waits.as_ref().map(Waiting::kind), Some(BlockerKind::Start));
    bench.hear(Event::KillTried(KillTime::Took(ms(501))));
    says(&refusal(&bench), &["501ms", "1s", "500ms", "c_kill"]);
    assert_eq!(bench.waits.as_ref().map(Waiting::kind), Some(BlockerKind::Operator));
    bench.hear(Event::KillTried(KillTime::Failed("no such program".to_owned())));
    says(&refusal(&bench), &["no such program"]);
    bench.hear(Event::KillTried(KillTime::Took(ms(500))));
    assert!(bench.is_held_by(1), "{:?}", bench.waits);
}

#[test]
fn a_watchdog_that_waits_longer_than_a_third_of_the_ttl_is_refused() {
    let with = |ms| on(HostFacts { watchdog: Some(Duration::from_millis(ms)), ..HostFacts::default() });
    says(&refusal(&with(3_334)), &["3.334s", "10s", "3.333", "K5", "WatchdogSec"]);
    assert!(with(3_333).is_held_by(1));
}

#[test]
fn an_agent_whose_restart_outlasts_the_lease_says_so_and_takes_no_other_turn() {
    let restarted_after = |slow: Duration| {
        let bench = Bench::holding();
        let (memory, now) = (bench.saved.clone(), bench.now);
        let mut next = Bench::with(Default::default(), bench.store, memory);
        let host = HostFacts { began: Some(now), ..HostFacts::default() };
        (next.core, next.now) = (next.core.on_host(host), now.plus(slow));
        next.report(1);
        assert_eq!(next.told(1), Told::Active, "the turn that it has goes on");
        next
    };
    assert_eq!(restarted_after(ms(5_150)).waits, None, "D_soft - base is 6.15 s, the interval 1 s");
    let slow = restarted_after(ms(5_151));
    says(&slow.waits.as_ref().expect("a reason").to_string(), &["5.151s", "5.15s", "K5"]);
}

#[test]
fn whoever_holds_goes_on_though_it_is_found_unfit_later() {
    let mut bench = Bench::holding();
    bench.hear(Event::KillTried(KillTime::Took(ms(900))));
    bench.pass(ms(3_000));
    assert_eq!(bench.told(1), Told::Active);
    assert!(matches!(bench.waits, Some(Waiting::Unfit(_))), "and says why it would not take another turn");
    bench.mood = Mood::Away;
    bench.pass(ms(10_000));
    assert_eq!(bench.told(1), Told::Quiesce);
}
