//! Versions that take turns in a host's one slot: plans, the way there, the way back.

mod chance;
mod freeze;
mod given_back;
mod lease;
mod site;

use std::time::Duration;

use handover::core::event::{BackStep, Event, Outcome};
use handover::core::next::Decision;
use handover::core::order::Order;
use handover::core::plan::{Plan, PlanError};
use handover::core::progress::State;
use handover_proto::assignment::AtDeadline;
use handover_proto::assignment::LeaseWish::{Eligible, Never};
use handover_proto::blocker::BlockerKind;
use handover_proto::lease::IntentKind;

use crate::world::{agent, blockers, event, hold, plan, serving_fleet, slot, spec};
use site::{Move, STOP_FIRST, Site, single_slots};

fn sentences(plan: &Plan) -> String {
    let steps = plan.reply().steps;
    steps.iter().map(|step| format!("{} {}: {}\n", step.wave, step.kind, step.what)).collect()
}

fn refused(hosts: u8, more: &str) -> (PlanError, String) {
    let error = plan(&spec(&format!("[rollout]\nway = \"stop-first\"\n{more}")), &single_slots(hosts));
    let error = error.expect_err("no plan");
    let text = error.to_string();
    (error, text)
}

fn wish(site: &Site, number: u8) -> handover_proto::assignment::SlotWish {
    site.world.wish(number, "a").expect("a wish")
}

fn leaving(site: &Site, number: u8) -> bool {
    site.world.fleet.agents[&agent(number)].assignment().expect("an assignment").leaving
}

#[test]
fn the_dry_run_takes_host_after_host_out_and_moves_the_lease_before_the_holders() {
    let mut fleet = single_slots(3);
    hold(&mut fleet.lease, &agent(1), "a", "1.0.0", 50);
    let plan = plan(&spec(STOP_FIRST), &fleet).expect("a plan");
    let expected = "\
1 leave: take app-02 out of its balancers, while it still serves what comes
1 start: stop 1.0.0 on app-02 and start 1.1.0 in its place, until it serves
1 shift: with 1.1.0 on app-02, watch for 2s
2 leave: take app-03 out of its balancers, while it still serves what comes
2 start: stop 1.0.0 on app-03 and start 1.1.0 in its place, until it serves
2 shift: with 1.1.0 on app-03, watch for 2s
0 lease: hand the scheduler lease over to 1.1.0 on app-02
3 leave: take app-01 out of its balancers, while it still serves what comes
3 start: stop 1.0.0 on app-01 and start 1.1.0 in its place, until it serves
3 shift: with 1.1.0 on app-01, watch for 2s
0 soak: watch for 30s
";
    assert_eq!(sentences(&plan), expected);
    assert_eq!(plan.min_serving, 2);
}

#[test]
fn the_only_host_is_planned_only_if_its_gate_holds_for_as_long_as_a_start_may_take() {
    let held = plan(&spec(STOP_FIRST), &single_slots(1)).expect("a plan");
    assert!(sentences(&held).contains("in its place while its gate holds requests"), "{}", sentences(&held));
    assert!(!sentences(&held).contains("leave:") && held.min_serving == 0);
    let (error, text) = refused(1, "start_deadline = \"11s\"\n");
    assert!(matches!(error, PlanError::HoldsTooShortly { .. }), "going back takes as long again: {error:?}");
    for part in ["take 11s", "20s only", "start_deadline = \"10s\"", "gate.hold.time = \"22s\"", "app-01"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    refused(1, "start_deadline = \"20s\"\n");
    assert!(plan(&spec("[rollout]\nway = \"stop-first\"\nstart_deadline = \"10s\"\n"), &single_slots(1)).is_ok());
    for hold_ms in [None, Some(0)] {
        let text = plan(&spec(STOP_FIRST), &holding(1, hold_ms)).expect_err("no plan").to_string();
        assert!(text.contains("two serving hosts") && text.contains("1 of 1 serving hosts"), "{text}");
        assert!(text.contains("older than this coordinator: upgrade it"), "it would not say that it holds: {text}");
    }
}

/// Hosts whose gates hold so long, since nobody is told to send elsewhere; none: balancers are told.
fn holding(hosts: u8, hold_ms: Option<u64>) -> handover::core::fleet::Fleet {
    let mut fleet = single_slots(hosts);
    fleet.agents.values_mut().for_each(|host| host.registration.hold_ms = hold_ms);
    fleet
}

#[test]
fn hosts_that_leave_though_nobody_is_told_are_planned_only_if_their_gates_hold_for_as_long() {
    let error = plan(&spec(STOP_FIRST), &holding(3, Some(10_000))).expect_err("no plan");
    assert!(matches!(error, PlanError::HoldsTooShortly { .. }), "{error:?}");
    let error = plan(&spec(STOP_FIRST), &holding(3, Some(0))).expect_err("no plan");
    assert!(matches!(error, PlanError::NobodyTold { .. }) && error.to_string().contains("[balancer]"), "{error}");
    for hold_ms in [Some(16_000), None] {
        let plan = plan(&spec(STOP_FIRST), &holding(3, hold_ms)).expect("a plan");
        assert!((0..3).all(|wave| plan.leaves(wave)));
    }
}

#[test]
fn where_nobody_is_told_a_host_that_leaves_has_its_time_from_the_beginning_of_the_change() {
    let mut site = Site::of(holding(3, Some(16_000)), "", false);
    site.until_event(|event| matches!(event, Event::Entered { step: 1 }));
    site.step(0, Move::Take);
    assert!(matches!(site.lap(), Decision::Wait { until: Some(_), .. }), "it drains, and clients are held");
    site.world.pass(Duration::from_secs(9));
    assert!(matches!(event(&site.lap()), Event::Back { .. }));
}

#[test]
fn a_wave_below_the_floor_is_refused_with_all_numbers() {
    let (error, text) = refused(3, "min_serving = 3\n");
    assert!(matches!(error, PlanError::TakesTooMany { .. }), "{error:?}");
    assert!(text.contains("1 of 3") && text.contains("leaves 2") && text.contains("min_serving = 3"), "{text}");
    assert!(refused(4, "wave_size = 2\n").1.contains("leaves 2, and min_serving = 3"));
    assert!(refused(1, "min_serving = 1\n").1.contains("leaves 0, and min_serving = 1"));
}

#[test]
fn start_first_on_single_slots_is_refused_with_the_way_that_does() {
    let text = plan(&spec(""), &single_slots(2)).expect_err("no plan").to_string();
    assert!(text.contains("has 1 slot (a)") && text.contains("way = \"stop-first\""), "{text}");
}

#[test]
fn a_fleet_with_two_slots_changes_in_place_too_and_empty_hosts_are_brought_up() {
    let in_place = plan(&spec(STOP_FIRST), &serving_fleet(2)).expect("a plan");
    assert!(in_place.hosts.iter().all(|host| host.is_in_place() && host.candidate == slot("a")));
    let mut empty = crate::world::empty_fleet(2);
    empty.agents.values_mut().for_each(|host| host.registration.slots.retain(|name, _| *name == slot("a")));
    let up = plan(&spec(STOP_FIRST), &empty).expect("a plan");
    assert_eq!(up.reply().steps.iter().map(|step| step.kind.as_str()).collect::<Vec<_>>(), ["start", "shift", "lease"]);
}

#[test]
fn a_host_is_not_stopped_before_its_balancers_say_that_they_send_nothing() {
    let mut site = Site::new(2, "", false);
    assert_eq!(event(&site.lap()), &Event::Assigned { agents: vec![agent(1)] });
    assert!(leaving(&site, 1) && wish(&site, 1).version.as_str() == "1.0.0", "still served");
    assert_eq!(blockers(&site.lap()), [BlockerKind::Delivery]);
    site.step(0, Move::Take);
    for _ in 0..20 {
        site.world.pass(Duration::from_secs(10));
        assert_eq!(blockers(&site.lap()), [BlockerKind::Start], "the agent says better what it waits for");
    }
    site.step(0, Move::Balance);
    assert_eq!(event(&site.lap()), &Event::Entered { step: 1 });
    assert!(!leaving(&site, 1) && wish(&site, 1).version.as_str() == "1.1.0");
    assert_eq!(site.world.weights(1)[0], (100, 100), "it opens by itself");
}

#[test]
fn a_host_that_is_not_ready_goes_first_so_that_the_others_need_not_wait_for_it() {
    let mut fleet = single_slots(3);
    let report = fleet.agents.get_mut(&agent(2)).expect("an agent").report.as_mut().expect("a report");
    report.slots.get_mut(&slot("a")).expect("a slot").instance.as_mut().expect("an instance").ready = false;
    let mut site = Site::of(fleet, "", true);
    site.hosts[1].runs.as_mut().expect("it runs").ready = false;
    let hosts: Vec<_> = site.plan().hosts.iter().map(|host| host.agent.clone()).collect();
    assert_eq!(hosts, [2, 1, 3].map(agent), "and the holder's last");
    // 1.0.0 never gets well there.
    site.until(|site, _| site.world.progress.state == State::Running { step: 1 });
    assert_eq!(site.until_the_end(), Decision::Ended(Outcome::Done));
    assert_eq!(site.versions(), ["1.1.0"; 3]);
}

#[test]
fn the_next_host_leaves_only_when_the_one_before_is_sent_to_again() {
    let mut site = Site::new(2, "", false);
    site.until_event(|event| matches!(event, Event::Entered { step: 1 }));
    for what in [Move::Take, Move::Stop, Move::Start, Move::BecomeReady] {
        assert!(site.step(0, what), "{what:?}");
    }
    for _ in 0..20 {
        site.world.pass(Duration::from_millis(300));
        assert!(matches!(site.lap(), Decision::Wait { .. }), "its balancers have not taken it back");
        assert!(!leaving(&site, 2));
    }
    site.step(0, Move::Balance);
    site.until_event(|event| matches!(event, Event::Entered { step: 3 } | Event::Entered { step: 4 }));
}

#[test]
fn nobody_leaves_while_another_host_is_lost_and_the_wait_names_the_floor() {
    let mut site = Site::new(3, "", false);
    site.hosts[2].runs = None;
    let decision = site.lap();
    assert_eq!(blockers(&decision), [BlockerKind::Floor]);
    let Decision::Wait { blockers, .. } = decision else { panic!("a wait") };
    assert!(blockers[0].waiting_for.contains("app-03"), "{blockers:?}");
    assert!(!leaving(&site, 1));
}

#[test]
fn the_lease_is_away_before_the_holders_host_leaves_wherever_it_went_meanwhile() {
    let mut site = Site::new(3, "", true);
    // It was lost on app-03 and taken over on app-01, whose turn is the first.
    hold(&mut site.world.fleet.lease, &agent(1), "a", "1.0.0", 70);
    let decision = site.lap();
    let Event::Asked { intent: IntentKind::Handoff, from, to, .. } = event(&decision) else { panic!("{decision:?}") };
    assert_ne!(from, to);
    assert!(!leaving(&site, 1), "not before");
    assert_eq!(blockers(&site.lap()), [BlockerKind::Quiesce]);
    site.until_event(|event| matches!(event, Event::Assigned { agents } if *agents == [agent(1)]));
    assert_eq!(wish(&site, 1).lease, Never, "it does not come back while the host leaves");
}

#[test]
fn only_one_version_may_hold_at_any_step() {
    let mut site = Site::new(3, "", true);
    let mut moved = false;
    site.until(|site, decision| {
        let lease = |number| (wish(site, number).version.to_string(), wish(site, number).lease);
        let may = |what: &str| (1..=3).any(|number| lease(number) == (what.to_owned(), Eligible));
        assert!(!(may("1.0.0") && may("1.1.0")), "{:?}", site.world.progress.state);
        moved |= may("1.1.0");
        matches!(decision, Decision::Ended(_))
    });
    assert!(moved);
    let asks = site.world.events().into_iter().filter(|event| matches!(event, Event::Asked { .. })).count();
    assert_eq!(asks, 1, "the lease moves once");
}

#[test]
fn an_agent_that_dies_between_stop_and_start_is_waited_for_by_name_and_goes_on() {
    let mut site = Site::new(3, "", false);
    site.until_event(|event| matches!(event, Event::Entered { step: 1 }));
    assert!(site.step(0, Move::Take) && site.step(0, Move::Stop) && site.step(0, Move::Silence));
    for _ in 0..30 {
        site.world.pass(Duration::from_secs(10));
        assert_eq!(blockers(&site.lap()), [BlockerKind::AgentSilent], "neither back nor on");
    }
    assert!(!leaving(&site, 2) && !leaving(&site, 3));
    site.step(0, Move::Hear);
    assert_eq!(blockers(&site.lap()), [BlockerKind::Start], "and it has its time anew");
    assert_eq!(site.until_the_end(), Decision::Ended(Outcome::Done));
    assert_eq!(site.versions(), ["1.1.0"; 3]);
}

#[test]
fn a_new_version_that_is_never_ready_goes_back_in_place_when_its_time_is_over() {
    let mut site = Site::new(3, "", true);
    site.good = false;
    site.until_event(|event| matches!(event, Event::Back { .. }));
    let reason = format!("{:?}", site.world.progress.state);
    assert!(reason.contains("app-01: the candidate 1.1.0 is not READY after 8s"), "{reason}");
    assert_eq!(wish(&site, 1).version.as_str(), "1.0.0", "with the very decision");
    let drain = site.world.fleet.agents[&agent(1)].assignment().expect("assigned").drain;
    assert_eq!(drain.at_deadline, AtDeadline::Cut, "nothing of the new version has to cooperate");
    assert_eq!(site.until_the_end(), Decision::Ended(Outcome::RolledBack));
    assert_eq!(site.versions(), ["1.0.0"; 3]);
}

#[test]
fn a_drain_of_the_old_version_that_does_not_end_pauses_the_rollout_and_resume_waits_on() {
    let mut site = Site::new(2, "", false);
    site.until_event(|event| matches!(event, Event::Entered { step: 1 }));
    site.step(0, Move::Take);
    for _ in 0..2 {
        // The drain's 30 s and the start's 8 s.
        for _ in 0..37 {
            assert!(matches!(site.lap(), Decision::Wait { .. }));
            site.world.pass(Duration::from_secs(1));
        }
        site.world.pass(Duration::from_secs(2));
        let paused = site.lap();
        let Event::Paused { reason, .. } = event(&paused) else { panic!("{paused:?}") };
        assert!(reason.contains("app-01: 1.0.0 has not made room for 38s") && reason.contains("rollback"), "{reason}");
        assert_eq!(wish(&site, 1).version.as_str(), "1.1.0", "it drains on");
        site.world.order(Order::Resume);
    }
    assert_eq!(site.until_the_end(), Decision::Ended(Outcome::Done), "its work is done at last");
}

#[test]
fn jobs_of_the_new_version_that_never_end_do_not_hold_the_way_back() {
    let mut site = Site::new(3, "soak = \"1h\"\n", true);
    site.until_event(|event| matches!(event, Event::Entered { step: 10 }));
    site.jobs = true;
    site.world.order(Order::Rollback);
    assert_eq!(site.until_the_end(), Decision::Ended(Outcome::RolledBack));
    assert_eq!(site.versions(), ["1.0.0"; 3]);
}

#[test]
fn a_long_drain_of_the_old_version_is_not_the_new_ones_delay() {
    let mut site = Site::new(2, "", false);
    site.until_event(|event| matches!(event, Event::Entered { step: 1 }));
    site.step(0, Move::Take);
    for _ in 0..3 {
        site.world.pass(Duration::from_secs(10));
        assert!(matches!(site.lap(), Decision::Wait { .. }));
    }
    site.step(0, Move::Stop);
    assert!(matches!(site.lap(), Decision::Wait { .. }), "its time begins now");
    site.world.pass(Duration::from_secs(9));
    assert!(matches!(event(&site.lap()), Event::Back { .. }));
}

#[test]
fn the_old_versions_crash_while_it_drains_only_makes_room_earlier() {
    let mut site = Site::new(2, "", false);
    site.until_event(|event| matches!(event, Event::Entered { step: 1 }));
    assert!(site.step(0, Move::Take) && site.step(0, Move::Crash), "1.0.0 is still there, and ends by itself");
    assert_eq!(site.until_the_end(), Decision::Ended(Outcome::Done));
    assert_eq!(site.versions(), ["1.1.0"; 2]);
}

#[test]
fn where_the_gate_holds_the_whole_change_has_to_be_in_time() {
    let mut site = Site::new(1, "", false);
    site.lap();
    site.step(0, Move::Take);
    assert!(matches!(site.lap(), Decision::Wait { .. }), "it drains");
    site.world.pass(Duration::from_secs(9));
    assert!(matches!(event(&site.lap()), Event::Back { .. }), "clients wait from the beginning");
    site.obey();
    assert_eq!(site.until_the_end(), Decision::Ended(Outcome::RolledBack));
}

#[test]
fn a_host_that_only_leaves_yet_is_given_back_at_once() {
    let mut site = Site::new(3, "", false);
    site.until(|site, _| leaving(site, 1));
    site.obey();
    site.world.order(Order::Rollback);
    site.lap();
    assert!(!leaving(&site, 1) && wish(&site, 1).version.as_str() == "1.0.0");
    assert_eq!(site.until_the_end(), Decision::Ended(Outcome::RolledBack));
}

#[test]
fn the_way_back_of_a_whole_fleet_goes_host_by_host_with_the_holders_last() {
    let mut site = Site::new(3, "soak = \"1h\"\n", true);
    site.until_event(|event| matches!(event, Event::Entered { step: 10 }));
    site.obey();
    assert_eq!(site.versions(), ["1.1.0"; 3]);
    let holder = site.world.fleet.lease.holder.as_ref().expect("a holder").value.owner().agent.clone();
    site.world.order(Order::Rollback);
    let mut order = Vec::new();
    site.until(|site, decision| {
        for number in 1..=3 {
            let back = wish(site, number).version.as_str() == "1.0.0";
            if back && !order.contains(&agent(number)) {
                order.push(agent(number));
            }
        }
        assert!(site.serving() >= 2, "{:?}", site.versions());
        matches!(decision, Decision::Ended(_))
    });
    assert_eq!(site.versions(), ["1.0.0"; 3]);
    assert_eq!(order.last(), Some(&holder), "{order:?}");
    let entered = |step| site.world.events().contains(&&Event::BackEntered { step });
    assert!(entered(BackStep::Lease) && entered(BackStep::Stop));
    let returned = |event: &&Event| matches!(event, Event::Asked { intent: IntentKind::Return, .. });
    assert!(site.world.events().iter().any(returned), "the lease goes back first");
}

#[test]
fn going_back_takes_the_broken_host_first_and_no_other_below_the_floor() {
    let mut site = Site::new(3, "", false);
    site.until_event(|event| matches!(event, Event::Entered { step: 3 }));
    site.obey();
    // The first candidate goes bad while the second host leaves.
    site.step(0, Move::BecomeUnready);
    site.good = false;
    site.until_event(|event| matches!(event, Event::Back { .. }));
    assert_eq!(wish(&site, 1).version.as_str(), "1.0.0", "it serves nobody");
    assert!(!leaving(&site, 2), "its current version is still there");
    assert!(matches!(site.world.progress.state, State::GoingBack { step: BackStep::Routes, .. }));
    assert_eq!(site.until_the_end(), Decision::Ended(Outcome::RolledBack));
    assert_eq!(site.versions(), ["1.0.0"; 3]);
}
