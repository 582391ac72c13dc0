//! Judgements over one status. What follows from the world itself is tested beside the other views.

use handover_proto::wire::{Blocker, Freeze, LeaseStatus, OrderStatus, RolloutStatus};

use super::*;

const NOW: u64 = 100_000_000;

/// What is not ok: verdict, sentence and fix in one.
fn bad(of: &StatusReply, judge: fn(&Patient<'_>) -> Vec<Finding>) -> Vec<String> {
    let (mut world, service) = (World::new(&Default::default()), "billing".parse().expect("a name"));
    for row in of.fleet.iter().filter(|row| row.reported_shares) {
        world.heard_mut(&service, &row.agent.parse().expect("a name")).report = Some(Default::default());
    }
    let findings = judge(&Patient { world: &world, service: &service, status: of, waits: &of.blockers, at_ms: NOW });
    assert!(findings.iter().all(|finding| (finding.verdict == verdict::OK) == finding.fix.is_empty()), "{findings:?}");
    let bad = findings.iter().filter(|finding| finding.verdict != verdict::OK);
    bad.map(|finding| format!("{}: {}; {}", finding.verdict, finding.sentence, finding.fix)).collect()
}

fn one(of: &StatusReply, judge: fn(&Patient<'_>) -> Vec<Finding>) -> String {
    let mut all = bad(of, judge);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn with_lease(change: impl FnOnce(&mut LeaseStatus)) -> StatusReply {
    let candidates = vec!["app-02/1.0.0".to_owned()];
    let mut lease = LeaseStatus { state: "held".into(), agent: "app-01".into(), candidates, ..LeaseStatus::default() };
    change(&mut lease);
    let row = |agent: &str| handover_proto::wire::FleetRow { agent: agent.into(), ..Default::default() };
    StatusReply { lease: Some(lease), fleet: vec![row("app-01"), row("app-02")], ..StatusReply::default() }
}

fn with_rollout(state: &str, since_ms: u64) -> StatusReply {
    let rollout = RolloutStatus { rollout: "7f3a2c".into(), state: state.into(), ..RolloutStatus::default() };
    let kind = if state == "paused" { "paused" } else { "readiness" }.into();
    let blocker = Blocker { kind, since_ms, waiting_for: "app-02 to be ready".into() };
    StatusReply { rollout: Some(rollout), blockers: vec![blocker], ..StatusReply::default() }
}

#[test]
fn a_held_lease_with_an_heir_is_well() {
    assert_eq!(bad(&with_lease(|_| {}), lease::findings), Vec::<String>::new());
}

#[test]
fn a_forgotten_freeze_is_named_with_its_age_and_who_did_it() {
    let freeze = Freeze { by: "ann".into(), because: "lunch".into(), at_ms: NOW - 3 * 3_600_000 };
    let said = one(&with_lease(|lease| lease.freeze = Some(freeze)), lease::findings);
    assert!(
        said.starts_with("warn") && said.contains("for 3 h, by ann (lunch)") && said.contains("unfreeze"),
        "{said}"
    );
}

#[test]
fn a_dark_lease_is_a_warning_at_first_and_then_a_failure() {
    let dark = |ms| with_lease(|lease| lease.dark_since_ms = NOW - ms);
    assert!(one(&dark(5_000), lease::findings).starts_with("warn"));
    assert!(one(&dark(60_000), lease::findings).starts_with("fail"));
    assert!(one(&with_lease(|lease| lease.candidates.clear()), lease::findings).contains("nobody could take it"));
}

#[test]
fn a_rollout_that_waits_for_the_same_thing_too_long_is_stuck_and_one_that_waits_for_a_moment_moves() {
    assert_eq!(bad(&with_rollout("running", NOW - 30_000), rollout::findings), Vec::<String>::new());
    let said = one(&with_rollout("rolling-back", NOW - 900_000), rollout::findings);
    assert!(said.starts_with("fail") && said.contains("stuck for 15 min, waiting for app-02 to be ready"), "{said}");
}

#[test]
fn a_soak_that_takes_as_long_as_it_was_planned_to_is_nothing_to_look_at() {
    let mut status = with_rollout("running", NOW - 7_200_000);
    status.blockers[0].kind = "soak".into();
    assert_eq!(bad(&status, rollout::findings), Vec::<String>::new());
}

#[test]
fn a_version_that_is_long_in_coming_is_no_failure_and_what_else_keeps_a_rollout_is() {
    let mut status = with_rollout("running", NOW - 900_000);
    status.blockers[0].kind = "staging".into();
    let said = one(&status, rollout::findings);
    assert!(
        said.starts_with("warn") && said.contains("for 15 min") && said.contains("nothing has been touched"),
        "{said}"
    );
    let kind = "agent-silent".into();
    status.blockers.push(Blocker { kind, since_ms: NOW - 900_000, waiting_for: "app-03 to stage 1.5.0".into() });
    let said = one(&status, rollout::findings);
    assert!(said.starts_with("fail") && said.contains("stuck for 15 min, waiting for app-03"), "{said}");
}

#[test]
fn an_order_to_stage_that_waits_for_somebody_is_named_with_what_ends_it() {
    let order = |kind: &str, since_ms| {
        let blocker = Blocker { kind: kind.into(), since_ms, waiting_for: "app-03 to stage 1.6.0".into() };
        let (state, sentence) = ("staging".into(), "stage 1.6.0 on app-03".into());
        let order = OrderStatus { number: 7, state, sentence, blocker: Some(blocker), ..OrderStatus::default() };
        StatusReply { orders: vec![order], ..StatusReply::default() }
    };
    let said = one(&order("agent-silent", NOW - 900_000), rollout::findings);
    let parts = ["order 7 (stage 1.6.0 on app-03)", "15 min", "app-03 to stage", "handover stage --cancel"];
    assert!(said.starts_with("warn") && parts.into_iter().all(|part| said.contains(part)), "{said}");
    assert_eq!(bad(&order("agent-silent", NOW - 30_000), rollout::findings), Vec::<String>::new());
    assert_eq!(bad(&order("staging", NOW - 900_000), rollout::findings), Vec::<String>::new(), "it comes");
}

#[test]
fn a_pause_is_as_old_as_it_is_whatever_else_is_waited_for() {
    let mut status = with_rollout("paused", NOW - 60_000);
    let kind = "readiness".into();
    status.blockers.push(Blocker { kind, since_ms: NOW - 7_200_000, waiting_for: "an old host".into() });
    assert!(one(&status, rollout::findings).contains("paused for 60 s"));
}

#[test]
fn a_forgotten_pause_and_a_failed_rollout_need_a_human() {
    assert!(one(&with_rollout("paused", NOW - 60_000), rollout::findings).starts_with("warn"));
    assert!(one(&with_rollout("paused", NOW - 7_200_000), rollout::findings).starts_with("fail"));
    assert!(one(&with_rollout("failed", 0), rollout::findings).contains("history 7f3a2c"));
    assert_eq!(bad(&with_rollout("done", NOW - 900_000), rollout::findings), Vec::<String>::new());
}

fn of_agents(of: &Patient<'_>) -> Vec<Finding> {
    let all = agents::findings(of).expect("findings");
    // Of a world without agents.
    all.into_iter().filter(|finding| finding.check == "hosts").collect()
}

#[test]
fn drained_hosts_gates_that_do_not_answer_and_a_fleet_that_serves_nothing_are_named() {
    let row = |agent: &str, reads| handover_proto::wire::FleetRow {
        agent: agent.into(),
        alive: true,
        gate: true,
        reads,
        reported_shares: true,
        ..Default::default()
    };
    let order =
        OrderStatus { number: 4, by: "ann".into(), because: "disk".into(), at_ms: NOW - 90_000, ..Default::default() };
    let mut status = StatusReply { orders: vec![order], fleet: vec![row("app-01", 100)], ..StatusReply::default() };
    assert_eq!(bad(&status, of_agents), Vec::<String>::new());
    status.fleet.push(handover_proto::wire::FleetRow { drained_by: 4, ..row("app-02", 0) });
    let said = one(&status, of_agents);
    assert!(said.contains("app-02 is kept out by order 4, given 90 s ago by ann (disk)"), "{said}");
    assert!(said.contains("handover undrain app-02"), "{said}");
    status.fleet = vec![handover_proto::wire::FleetRow { gate: false, ..row("app-01", 100) }];
    assert!(one(&status, of_agents).contains("the gate of app-01"));
    status.fleet = vec![handover_proto::wire::FleetRow { gate: false, reported_shares: false, ..row("app-01", 100) }];
    assert_eq!(bad(&status, of_agents), Vec::<String>::new(), "without a coordinator there are no reports");
    status.fleet = vec![row("app-01", 0)];
    assert!(one(&status, of_agents).contains("no host serves"));
}

#[test]
fn ages_are_told_in_the_unit_that_fits() {
    let ages = [1_000, 600_000, 7_200_000, 300_000_000].map(|ms| age(NOW * 10 - ms, NOW * 10));
    assert_eq!(ages, ["1 s", "10 min", "2 h", "3 days"]);
    assert_eq!(age(0, NOW), "an unknown time");
}
