//! The way forward, step by step.

use std::time::Duration;

use handover::core::event::{Event, Outcome};
use handover::core::fleet::{Fleet, Heard};
use handover::core::next::Decision;
use handover::core::order::Order;
use handover::core::progress::State;
use handover_proto::assignment::LeaseWish::{Eligible, Never};
use handover_proto::blocker::BlockerKind;
use handover_proto::lifecycle::Lifecycle;

use crate::world::{World, agent, blockers, empty_fleet, event, serving_fleet};

fn assigned(decision: &Decision) -> Vec<String> {
    match decision {
        Decision::Do(act) => act.assignments.keys().map(ToString::to_string).collect(),
        other => panic!("assignments were expected, not {other:?}"),
    }
}

/// The states of both slots, as they are wished.
fn wishes(world: &World, number: u8) -> [Option<Lifecycle>; 2] {
    ["a", "b"].map(|name| world.wish(number, name).map(|wish| wish.lifecycle))
}

#[test]
fn the_first_lap_starts_the_first_waves_candidate_beside_the_current_version() {
    let mut world = World::new(3, "");
    let decision = world.lap();
    assert_eq!(event(&decision), &Event::Assigned { agents: vec![agent(1)] });
    assert_eq!(wishes(&world, 1), [Some(Lifecycle::Serving), Some(Lifecycle::Ready)]);
    assert_eq!(world.weights(1), [(100, 100), (0, 0)]);
    let [current, candidate] = ["a", "b"].map(|name| world.wish(1, name).expect("a wish").lease);
    assert_eq!((current, candidate), (Eligible, Never));
    assert_eq!(wishes(&world, 2), [Some(Lifecycle::Serving), None], "other waves are not touched");
}

#[test]
fn every_assignment_carries_rollout_step_plan_hash_and_term() {
    let mut world = World::new(2, "");
    world.until_step(2);
    let assignment = world.fleet.agents[&agent(1)].assignment().expect("an assignment").clone();
    assert_eq!(assignment.cause.rollout.map(|id| id.to_string()), Some("7f3a2c".into()));
    assert_eq!((assignment.cause.step, assignment.cause.plan_hash.as_str()), (2, world.plan.hash()));
    assert_eq!(assignment.term, world.now.term);
}

#[test]
fn a_whole_rollout_ends_with_the_new_version_alone() {
    let mut world = World::new(3, "");
    world.until_the_end();
    let ended = Event::Ended { outcome: Outcome::Done, reason: String::new() };
    assert_eq!(world.events().last(), Some(&&ended));
    for number in 1..=3 {
        assert_eq!(wishes(&world, number), [Some(Lifecycle::Terminated), Some(Lifecycle::Serving)]);
        assert_eq!(world.weights(number)[1], (100, 100));
        assert_eq!(world.wish(number, "b").expect("a wish").lease, Eligible);
    }
    let entered = world.events().iter().filter(|event| matches!(event, Event::Entered { .. })).count();
    assert_eq!(entered, world.plan.steps.len() - 1, "every step once");
}

#[test]
fn the_shares_of_a_host_go_25_then_100_of_the_reads_then_the_writes() {
    let mut world = World::new(2, "");
    let mut shares = Vec::new();
    for step in 1..=3 {
        world.until_step(step);
        shares.push(world.weights(1));
    }
    assert_eq!(shares, [[(75, 100), (25, 0)], [(0, 100), (100, 0)], [(0, 0), (100, 100)]]);
    assert_eq!(wishes(&world, 1), [Some(Lifecycle::Ready), Some(Lifecycle::Serving)], "kept warm");
    assert_eq!(world.weights(2), [(100, 100), (0, 0)]);
}

#[test]
fn the_current_version_is_kept_warm_until_the_last_soak_has_passed() {
    let mut world = World::new(2, "");
    let retire = world.plan.steps.len() as u32 - 1;
    world.until_step(retire - 1);
    world.until(BlockerKind::Soak);
    world.pass(Duration::from_millis(29_900));
    assert_eq!(blockers(&world.lap()), [BlockerKind::Soak]);
    assert!((1..=2).all(|number| wishes(&world, number)[0] == Some(Lifecycle::Ready)));
    world.pass(Duration::from_millis(100));
    assert_eq!(event(&world.lap()), &Event::Entered { step: retire });
    assert!((1..=2).all(|number| wishes(&world, number)[0] == Some(Lifecycle::Terminated)));
}

#[test]
fn each_thing_that_is_missing_is_named_as_what_is_waited_for() {
    let mut world = World::new(3, "");
    world.lap();
    assert_eq!(blockers(&world.lap()), [BlockerKind::Delivery]);
    world.obey();
    world.instance(1, "b").ready = false;
    world.instance(1, "b").unmet = vec!["schema (not active)".into()];
    let Decision::Wait { blockers: waits, .. } = world.lap() else { panic!("a wait") };
    assert_eq!(waits[0].kind, BlockerKind::Readiness);
    assert!(
        waits[0].waiting_for.contains("app-01") && waits[0].waiting_for.contains("schema (not active)"),
        "{waits:?}"
    );
    world.obey();
    world.lap();
    world.obey();
    world.instance(1, "b").reads = 0;
    assert_eq!(blockers(&world.lap()), [BlockerKind::Gate], "the gate does not say what was assigned");
    world.host(1).heard = Heard::Silent { since_ms: 77 };
    let Decision::Wait { blockers: waits, .. } = world.lap() else { panic!("a wait") };
    assert_eq!((waits[0].kind, waits[0].since_ms), (BlockerKind::AgentSilent, 77));
}

#[test]
fn an_agents_own_blocker_is_passed_on_with_its_name() {
    let mut world = World::new(3, "");
    world.lap();
    world.obey();
    let report = world.report(1);
    report.reached = handover_proto::numbers::Serial(1);
    report.blocker = Some(handover_proto::blocker::Blocker {
        kind: BlockerKind::Disk,
        since_ms: 5,
        waiting_for: "space on /var".into(),
    });
    let Decision::Wait { blockers: waits, .. } = world.lap() else { panic!("a wait") };
    assert_eq!((waits[0].kind, waits[0].waiting_for.as_str()), (BlockerKind::Disk, "app-01: space on /var"));
}

#[test]
fn a_candidate_that_is_not_ready_in_time_sends_it_back_and_says_what_was_missing() {
    let mut world = World::new(3, "");
    world.lap();
    world.obey();
    world.instance(1, "b").ready = false;
    world.instance(1, "b").unmet = vec!["http (refused)".into()];
    world.pass(Duration::from_millis(59_999));
    assert_eq!(blockers(&world.lap()), [BlockerKind::Readiness]);
    world.pass(Duration::from_millis(1));
    let decision = world.lap();
    let Event::Back { by, reason } = event(&decision) else { panic!("{decision:?}") };
    assert!(
        reason.contains("app-01") && reason.contains("60s") | reason.contains("1m") && reason.contains("http"),
        "{reason}"
    );
    assert_eq!(by, "handover");
}

#[test]
fn the_start_deadline_does_not_judge_an_agent_that_is_not_heard() {
    let mut world = World::new(3, "");
    world.lap();
    world.host(1).heard = Heard::Silent { since_ms: 0 };
    world.pass(Duration::from_secs(3600));
    assert_eq!(blockers(&world.lap()), [BlockerKind::AgentSilent]);
}

#[test]
fn a_candidate_that_crashed_sends_it_back_at_once() {
    let mut world = World::new(3, "");
    world.lap();
    world.obey();
    let here = world.report(1).slots.get_mut(&crate::world::slot("b")).expect("a slot");
    (here.crashes, here.last_exit) = (1, Some("exit status 3".into()));
    let decision = world.lap();
    let Event::Back { reason, .. } = event(&decision) else { panic!("{decision:?}") };
    assert!(reason.contains("app-01") && reason.contains("exit status 3"), "{reason}");
}

#[test]
fn crashes_that_were_counted_before_the_assignment_was_taken_are_not_the_candidates() {
    let mut world = World::new(3, "");
    world.report(1).slots.get_mut(&crate::world::slot("b")).expect("a slot").crashes = 4;
    world.lap();
    assert_eq!(blockers(&world.lap()), [BlockerKind::Delivery]);
}

#[test]
fn fewer_serving_hosts_than_the_floor_hold_everything_and_are_named() {
    let mut world = World::new(3, "");
    world.until_step(1);
    world.until(BlockerKind::Soak);
    for number in [2, 3] {
        world.instance(number, "a").ready = false;
    }
    world.pass(Duration::from_secs(10));
    let Decision::Wait { blockers: waits, .. } = world.lap() else { panic!("a wait") };
    assert_eq!(waits[0].kind, BlockerKind::Floor);
    let text = &waits[0].waiting_for;
    assert!(text.contains("app-02, app-03") && text.contains("1 of 3") && text.contains("min_serving is 2"), "{text}");
    world.instance(3, "a").ready = true;
    assert_eq!(event(&world.lap()), &Event::Entered { step: 2 });
}

#[test]
fn traffic_is_not_taken_from_a_host_whose_replacement_just_failed() {
    let mut world = World::new(3, "[health]\nunready_dwell = \"1h\"\n");
    world.until_step(2);
    world.until(BlockerKind::Soak);
    assert_eq!(world.weights(1), [(0, 100), (100, 0)]);
    world.instance(1, "b").ready = false;
    world.pass(Duration::from_secs(10));
    assert_eq!(blockers(&world.lap()), [BlockerKind::Readiness]);
    assert_eq!(world.weights(1), [(0, 100), (100, 0)], "its writes stay where they are");
}

#[test]
fn with_a_floor_of_zero_a_version_that_never_works_is_replaced() {
    let mut world = World::new(2, "[rollout]\nmin_serving = 0\n");
    for _ in 0..200 {
        for number in 1..=2 {
            let report = world.report(number);
            let current = report.slots.get_mut(&crate::world::slot("a")).and_then(|here| here.instance.as_mut());
            if let Some(current) = current {
                current.ready = false;
                report.reached = handover_proto::numbers::Serial(1);
            }
        }
        if let Decision::Ended(outcome) = world.lap() {
            assert_eq!(outcome, Outcome::Done);
            return;
        }
        world.obey();
        world.pass(Duration::from_secs(1));
    }
    panic!("it hangs in {:?}", world.progress.state);
}

#[test]
fn a_pause_holds_what_is_met_and_a_resume_goes_on() {
    let mut world = World::new(3, "");
    world.until_step(1);
    world.until(BlockerKind::Soak);
    world.order(Order::Pause);
    world.pass(Duration::from_secs(3600));
    let Decision::Wait { blockers: waits, .. } = world.lap() else { panic!("a wait") };
    assert_eq!(waits[0].kind, BlockerKind::Paused);
    assert!(waits[0].waiting_for.contains("ann") && waits[0].waiting_for.contains("because"), "{waits:?}");
    world.order(Order::Resume);
    assert_eq!(event(&world.lap()), &Event::Entered { step: 2 });
}

#[test]
fn in_a_pause_limits_stay_in_force_but_deadlines_do_not() {
    let mut world = World::new(3, "");
    world.lap();
    world.order(Order::Pause);
    world.obey();
    world.instance(1, "b").ready = false;
    world.pass(Duration::from_secs(3600));
    assert_eq!(blockers(&world.lap()), [BlockerKind::Paused], "the start deadline has passed long ago");
    let here = world.report(1).slots.get_mut(&crate::world::slot("b")).expect("a slot");
    here.crashes = 1;
    assert!(matches!(event(&world.lap()), Event::Back { .. }));
}

#[test]
fn a_fleet_without_a_version_is_brought_up_and_may_hold_the_lease() {
    let mut world = World::of(empty_fleet(3), "");
    assert_eq!(assigned(&world.lap()), ["app-01", "app-02", "app-03"]);
    assert_eq!(wishes(&world, 2), [Some(Lifecycle::Ready), None]);
    assert_eq!(world.wish(2, "a").expect("a wish").lease, Never);
    world.until_the_end();
    assert_eq!(wishes(&world, 2), [Some(Lifecycle::Serving), None]);
    assert_eq!((world.weights(2)[0], world.wish(2, "a").expect("a wish").lease), ((100, 100), Eligible));
    assert!(matches!(world.progress.state, State::Ended { outcome: Outcome::Done, .. }));
}

#[test]
fn more_hosts_than_fit_one_transaction_are_assigned_in_several() {
    let mut world = World::of(serving_fleet(150), "[rollout]\nwave_size = 150\n");
    let (first, second) = (assigned(&world.lap()), assigned(&world.lap()));
    assert_eq!((first.len(), second.len()), (100, 50));
    assert!(first.iter().all(|agent| !second.contains(agent)));
    assert!(blockers(&world.lap()).iter().all(|kind| *kind == BlockerKind::Delivery));
}

#[test]
fn a_host_that_was_away_gets_its_assignment_when_it_is_heard_again() {
    let mut world = World::new(2, "");
    world.host(1).heard = Heard::Silent { since_ms: 0 };
    assert_eq!(blockers(&world.lap()), [BlockerKind::AgentSilent], "what it would lose cannot be seen");
    world.host(1).heard = Heard::Yes;
    assert_eq!(assigned(&world.lap()), ["app-01"]);
}

#[test]
fn a_host_that_is_gone_at_the_very_end_fails_it_honestly_with_its_last_word_stored() {
    let mut world = World::new(3, "");
    let retire = world.plan.steps.len() as u32 - 1;
    world.until_step(retire - 1);
    world.until(BlockerKind::Soak);
    world.pass(Duration::from_secs(30));
    world.lap();
    world.host(3).heard = Heard::Silent { since_ms: 0 };
    (1..=2).for_each(|number| crate::world::obey(&agent(number), world.host(number)));
    assert_eq!(wishes(&world, 3)[0], Some(Lifecycle::Terminated));
    assert_eq!(blockers(&world.lap()), [BlockerKind::AgentSilent]);
    world.pass(Duration::from_secs(60));
    let decision = world.lap();
    let Event::Ended { outcome: Outcome::Failed, reason } = event(&decision) else { panic!("{decision:?}") };
    assert!(reason.contains("app-03") && reason.contains("1.1.0 serves"), "{reason}");
}

#[test]
fn a_coordinator_that_folds_the_journal_decides_what_its_predecessor_would_have() {
    let mut world = World::with_holder(3, 3, "");
    for _ in 0..400 {
        let folded = handover::core::progress::Progress::fold(&world.plan, &world.records).expect("legal");
        assert_eq!(folded, world.progress);
        let decision = world.lap();
        if matches!(decision, Decision::Ended(_)) {
            return;
        }
        world.obey();
        world.hand_over();
        world.pass(Duration::from_millis(700));
    }
    panic!("it never ended: {:?}", world.progress.state);
}

#[test]
fn a_fleet_that_vanished_from_the_store_moves_nothing() {
    let mut world = World::new(3, "");
    world.until_step(1);
    world.fleet = Fleet::default();
    assert_eq!(blockers(&world.lap()), [BlockerKind::AgentSilent]);
}
