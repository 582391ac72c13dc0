//! Error rates, readiness and soaks, over time.

use std::time::Duration;

use handover::core::event::Event;
use handover::core::fleet::{Counts, Heard};
use handover::core::next::Decision;
use handover::core::progress::State;
use handover_proto::blocker::BlockerKind;

use crate::world::{World, blockers, event};

const LONG_SOAK: &str = "[rollout]\nstep_soak = \"1h\"\n";

/// Three hosts; the candidate on app-01 has a quarter of the reads and is watched for an hour.
fn watched(more: &str) -> World {
    let mut world = World::new(3, &format!("{LONG_SOAK}{more}"));
    world.until_step(1);
    world.until(BlockerKind::Soak);
    assert_eq!(world.instance(1, "b").reads, 25);
    world
}

fn answers(world: &mut World, number: u8, reads: (u64, u64), writes: (u64, u64)) {
    let traffic = world.instance(number, "b").traffic.get_or_insert_default();
    let add = |counts: &mut Counts, (requests, bad): (u64, u64)| {
        counts.requests += requests;
        counts.bad += bad;
    };
    add(&mut traffic.reads, reads);
    add(&mut traffic.writes, writes);
}

/// Laps every 100 ms with these answers each, until it goes back; how long that took.
fn goes_back_within(
    world: &mut World,
    limit: Duration,
    mut each: impl FnMut(&mut World),
) -> Option<(Duration, String)> {
    let began = world.now.boot;
    while world.now.boot - began <= limit {
        each(world);
        if let Decision::Do(act) = world.lap()
            && let Event::Back { reason, .. } = act.event
        {
            return Some((world.now.boot - began, reason));
        }
        world.pass(Duration::from_millis(100));
    }
    None
}

#[test]
fn an_error_rate_above_the_limit_for_the_dwell_sends_it_back_with_the_numbers() {
    let mut world = watched("");
    let (after, reason) =
        goes_back_within(&mut world, Duration::from_secs(20), |world| answers(world, 1, (50, 10), (0, 0)))
            .expect("back");
    assert_eq!(after, Duration::from_secs(3), "the dwell, counted from the first fifty answers");
    assert!(reason.contains("of") && reason.contains("the limit is 5 %") && reason.contains("1.1.0"), "{reason}");
}

#[test]
fn an_error_rate_at_the_limit_never_does() {
    let mut world = watched("");
    assert_eq!(
        goes_back_within(&mut world, Duration::from_secs(20), |world| answers(world, 1, (100, 5), (0, 0))),
        None
    );
}

#[test]
fn one_burst_of_errors_that_is_over_does_not() {
    let mut world = watched("");
    let mut first = true;
    let result = goes_back_within(&mut world, Duration::from_secs(20), |world| {
        answers(world, 1, if first { (50, 50) } else { (5, 0) }, (0, 0));
        first = false;
    });
    assert_eq!(result, None);
}

#[test]
fn few_answers_are_gathered_over_a_longer_time_until_there_are_enough() {
    let mut world = watched("");
    let mut lap = 0;
    let (after, _) = goes_back_within(&mut world, Duration::from_secs(60), |world| {
        answers(world, 1, if lap % 2 == 0 { (1, 1) } else { (0, 0) }, (0, 0));
        lap += 1;
    })
    .expect("back");
    assert!((12_000..14_000).contains(&after.as_millis()), "fifty answers at five a second, and the dwell: {after:?}");
}

#[test]
fn bad_writes_show_among_many_good_reads() {
    let mut world = watched("");
    let (_, reason) =
        goes_back_within(&mut world, Duration::from_secs(20), |world| answers(world, 1, (1000, 0), (5, 3)))
            .expect("back");
    assert!(reason.contains("writes"), "{reason}");
}

#[test]
fn one_bad_host_shows_among_many_good_ones() {
    let mut world = World::new(3, "[rollout]\nwave_size = 3\nstep_soak = \"1h\"\n");
    world.until_step(1);
    world.until(BlockerKind::Soak);
    let (_, reason) = goes_back_within(&mut world, Duration::from_secs(20), |world| {
        answers(world, 1, (500, 0), (0, 0));
        answers(world, 2, (500, 0), (0, 0));
        answers(world, 3, (10, 9), (0, 0));
    })
    .expect("back");
    assert!(reason.contains("app-03"), "{reason}");
}

#[test]
fn answers_of_the_current_version_are_not_judged() {
    let mut world = watched("");
    let result = goes_back_within(&mut world, Duration::from_secs(20), |world| {
        let traffic = world.instance(1, "a").traffic.get_or_insert_default();
        traffic.reads = Counts { requests: traffic.reads.requests + 100, bad: traffic.reads.bad + 100 };
    });
    assert_eq!(result, None);
}

#[test]
fn counters_that_begin_anew_are_not_taken_for_a_huge_step() {
    let mut world = watched("");
    answers(&mut world, 1, (10_000, 0), (0, 0));
    world.lap();
    world.pass(Duration::from_secs(70));
    world.instance(1, "b").traffic.get_or_insert_default().reads = Counts { requests: 60, bad: 0 };
    assert_eq!(goes_back_within(&mut world, Duration::from_secs(20), |_| ()), None);
    let (_, reason) =
        goes_back_within(&mut world, Duration::from_secs(20), |world| answers(world, 1, (50, 50), (0, 0)))
            .expect("back");
    assert!(reason.contains("reads") || reason.contains("requests"), "{reason}");
}

#[test]
fn what_was_counted_before_a_coordinator_looked_is_not_held_against_the_candidate() {
    let mut world = watched("");
    answers(&mut world, 1, (1000, 1000), (0, 0));
    world.samples = Default::default();
    assert_eq!(goes_back_within(&mut world, Duration::from_secs(10), |world| answers(world, 1, (50, 0), (0, 0))), None);
}

#[test]
fn a_suspicion_that_cannot_be_confirmed_holds_the_step_until_it_is_forgotten() {
    let mut world = World::new(3, "[rollout]\nstep_soak = \"1s\"\n");
    world.until_step(1);
    world.until(BlockerKind::Soak);
    answers(&mut world, 1, (10, 5), (0, 0));
    world.lap();
    world.pass(Duration::from_secs(10));
    let decision = world.lap();
    assert_eq!(blockers(&decision), [BlockerKind::Samples], "five of ten are too few to go back and too many to go on");
    world.pass(Duration::from_secs(51));
    assert_eq!(event(&world.lap()), &Event::Entered { step: 2 });
}

#[test]
fn a_service_without_traffic_is_not_held() {
    let mut world = World::new(3, "[rollout]\nstep_soak = \"1s\"\n");
    world.until_step(1);
    world.until(BlockerKind::Soak);
    world.pass(Duration::from_secs(1));
    assert_eq!(event(&world.lap()), &Event::Entered { step: 2 });
}

/// What the pause says, if it is one for want of data.
fn unmeasured(world: &mut World) -> Option<String> {
    match event(&world.lap()) {
        Event::Paused { reason, unmeasured: true, .. } => Some(reason.clone()),
        _ => None,
    }
}

#[test]
fn a_candidate_whose_answers_nobody_counts_is_not_promoted_until_an_operator_vouches_for_each_step() {
    let mut world = World::new(3, "[rollout]\nstep_soak = \"1s\"\n");
    world.until_step(1);
    world.until(BlockerKind::Soak);
    world.instance(1, "b").traffic = None;
    assert_eq!(blockers(&world.lap()), [BlockerKind::Soak], "it is watched first");
    world.pass(Duration::from_secs(1));
    let reason = unmeasured(&mut world).expect("a pause");
    assert!(reason.contains("app-01") && reason.contains("1.1.0") && reason.contains("resume"), "{reason}");
    assert!(matches!(world.progress.state, State::Paused { step: 1, .. }));
    world.pass(Duration::from_secs(3600));
    assert_eq!(blockers(&world.lap()), [BlockerKind::Paused], "time alone promotes nothing");
    world.journal(Event::Resumed { by: "ann".into() });
    assert_eq!(event(&world.lap()), &Event::Entered { step: 2 }, "vouched for");
    world.until(BlockerKind::Soak);
    world.instance(1, "b").traffic = None;
    world.lap();
    world.pass(Duration::from_secs(1));
    assert!(unmeasured(&mut world).is_some(), "the word counted for one step only");
}

#[test]
fn a_pause_for_another_reason_does_not_vouch_for_what_nobody_measures() {
    let mut world = World::new(3, "[rollout]\nstep_soak = \"1s\"\n");
    world.until_step(1);
    world.until(BlockerKind::Soak);
    world.instance(1, "b").traffic = None;
    world.journal(Event::Paused { by: "ann".into(), reason: "lunch".into(), unmeasured: false });
    world.pass(Duration::from_secs(5));
    world.journal(Event::Resumed { by: "ann".into() });
    assert!(unmeasured(&mut world).is_some());
}

#[test]
fn a_spec_may_say_that_a_rollout_goes_on_without_data() {
    let mut world = World::new(3, "[rollout]\nstep_soak = \"1s\"\n[health]\nunmeasured = \"go-on\"\n");
    world.until_step(1);
    world.until(BlockerKind::Soak);
    world.instance(1, "b").traffic = None;
    world.pass(Duration::from_secs(1));
    assert_eq!(event(&world.lap()), &Event::Entered { step: 2 });
}

#[test]
fn a_serving_candidate_that_is_not_ready_for_the_dwell_sends_it_back() {
    let mut world = watched("");
    world.instance(1, "b").ready = false;
    let (after, reason) = goes_back_within(&mut world, Duration::from_secs(20), |_| ()).expect("back");
    assert_eq!(after, Duration::from_secs(2));
    assert!(reason.contains("app-01") && reason.contains("not ready"), "{reason}");
}

#[test]
fn one_that_is_ready_again_in_time_does_not_but_its_soak_starts_anew() {
    let mut world = World::new(3, "[rollout]\nstep_soak = \"5s\"\n");
    world.until_step(1);
    world.until(BlockerKind::Soak);
    world.pass(Duration::from_millis(4500));
    world.instance(1, "b").ready = false;
    assert_eq!(blockers(&world.lap()), [BlockerKind::Readiness]);
    world.pass(Duration::from_millis(1900));
    world.instance(1, "b").ready = true;
    assert_eq!(blockers(&world.lap()), [BlockerKind::Soak], "though 6.4 s have passed since the shift");
    world.pass(Duration::from_millis(4900));
    assert_eq!(blockers(&world.lap()), [BlockerKind::Soak]);
    world.pass(Duration::from_millis(100));
    assert_eq!(event(&world.lap()), &Event::Entered { step: 2 });
}

#[test]
fn a_candidate_whose_agent_is_not_heard_neither_passes_nor_fails() {
    let mut world = watched("");
    world.instance(1, "b").ready = false;
    world.lap();
    world.host(1).heard = Heard::Silent { since_ms: 5 };
    assert_eq!(goes_back_within(&mut world, Duration::from_secs(120), |_| ()), None);
    assert_eq!(blockers(&world.lap()), [BlockerKind::AgentSilent]);
    world.host(1).heard = Heard::Yes;
    let (after, _) = goes_back_within(&mut world, Duration::from_secs(20), |_| ()).expect("back");
    assert_eq!(after, Duration::from_secs(2), "the dwell starts when it is heard again");
}

#[test]
fn a_new_coordinator_starts_every_dwell_anew() {
    let mut world = watched("");
    world.instance(1, "b").ready = false;
    world.lap();
    world.pass(Duration::from_millis(1999));
    world.samples = Default::default();
    world.lap();
    assert_eq!(world.progress.state, State::Running { step: 1 });
    world.pass(Duration::from_secs(2));
    assert!(matches!(event(&world.lap()), Event::Back { .. }));
}
