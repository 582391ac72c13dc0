//! Plans, and the fleets for which there is none.

use handover::core::fleet::{Agent, Assigned, Fleet, Heard};
use handover::core::plan::{Plan, PlanError, Step};
use handover_proto::numbers::Serial;

use crate::world::{agent, empty_fleet, hold, obey, plan, serves, serving_fleet, slot, spec, version};

fn change(fleet: &mut Fleet, number: u8, change: impl FnOnce(&mut Agent)) {
    change(fleet.agents.get_mut(&agent(number)).expect("an agent"));
}

fn give(fleet: &mut Fleet, number: u8, what: &str) {
    change(fleet, number, |host| {
        host.assigned = Some(Assigned { assignment: serves("a", what), serial: Serial(11) });
        obey(&agent(number), host);
    });
}

fn refused(fleet: &Fleet) -> (PlanError, String) {
    let error = plan(&spec(""), fleet).expect_err("no plan");
    let text = error.to_string();
    (error, text)
}

fn order(plan: &Plan) -> Vec<&str> {
    plan.hosts.iter().map(|host| host.agent.as_str()).collect()
}

#[test]
fn the_dry_run_reads_as_it_always_did() {
    let mut fleet = serving_fleet(3);
    hold(&mut fleet.lease, &agent(1), "a", "1.0.0", 50);
    let reply = plan(&spec(""), &fleet).expect("a plan").reply();
    let lines: Vec<String> =
        reply.steps.iter().map(|step| format!("{} {} {}: {}", step.index, step.wave, step.kind, step.what)).collect();
    let expected = "\
1 1 start: start 1.1.0 beside 1.0.0 on app-02, until it is READY
2 1 shift: 25 % of the reads on app-02 to 1.1.0, then watch for 2s
3 1 shift: 100 % of the reads on app-02 to 1.1.0, then watch for 2s
4 1 shift: 100 % of the reads and 100 % of the writes on app-02 to 1.1.0, then watch for 2s
5 2 start: start 1.1.0 beside 1.0.0 on app-03, until it is READY
6 2 shift: 25 % of the reads on app-03 to 1.1.0, then watch for 2s
7 2 shift: 100 % of the reads on app-03 to 1.1.0, then watch for 2s
8 2 shift: 100 % of the reads and 100 % of the writes on app-03 to 1.1.0, then watch for 2s
9 3 start: start 1.1.0 beside 1.0.0 on app-01, until it is READY
10 3 shift: 25 % of the reads on app-01 to 1.1.0, then watch for 2s
11 3 shift: 100 % of the reads on app-01 to 1.1.0, then watch for 2s
12 3 shift: 100 % of the reads and 100 % of the writes on app-01 to 1.1.0, then watch for 2s
13 0 lease: hand the scheduler lease over to 1.1.0 on app-02
14 0 soak: keep 1.0.0 warm, watch for 30s
15 0 retire: retire 1.0.0 on app-02, app-03, app-01; from here there is no way back";
    assert_eq!(lines.join("\n"), expected);
    assert_eq!(
        (reply.service.as_str(), reply.from_version.as_str(), reply.to_version.as_str()),
        ("billing", "1.0.0", "1.1.0")
    );
    assert_eq!(reply.steps[12].agents, ["app-02", "app-03", "app-01"]);
    assert!(reply.changes);
}

#[test]
fn the_holders_host_goes_last_and_the_lease_to_the_first_host() {
    for (holder, expected) in [(1, ["app-02", "app-03", "app-01"]), (2, ["app-01", "app-03", "app-02"])] {
        let mut fleet = serving_fleet(3);
        hold(&mut fleet.lease, &agent(holder), "a", "1.0.0", 50);
        let plan = plan(&spec(""), &fleet).expect("a plan");
        assert_eq!(order(&plan), expected);
        assert_eq!(plan.lease_to.as_ref().map(|agent| agent.as_str()), Some(expected[0]));
    }
    let mut one = serving_fleet(1);
    hold(&mut one.lease, &agent(1), "a", "1.0.0", 50);
    assert_eq!(plan(&spec(""), &one).expect("a plan").lease_to, Some(agent(1)), "its own candidate");
    assert_eq!(plan(&spec(""), &serving_fleet(3)).expect("a plan").lease_to, None, "nobody has ever held");
}

#[test]
fn hosts_are_dealt_into_waves_of_the_given_size() {
    let plan = plan(&spec("[rollout]\nwave_size = 2\n"), &serving_fleet(5)).expect("a plan");
    let waves: Vec<u32> = plan.hosts.iter().map(|host| host.wave).collect();
    assert_eq!((waves.as_slice(), plan.waves()), ([0, 0, 1, 1, 2].as_slice(), 3));
    assert!(plan.hosts.iter().all(|host| host.current == Some(slot("a")) && host.candidate == slot("b")));
    assert_eq!(plan.steps.iter().filter(|step| matches!(step, Step::Start { .. })).count(), 3);
}

#[test]
fn writes_move_after_all_reads_have_and_the_lease_after_all_writes() {
    let plan = plan(&spec(""), &serving_fleet(2)).expect("a plan");
    let at = |wanted: &Step| plan.steps.iter().position(|step| step == wanted).expect("a step");
    let shift = |wave, reads, writes| Step::Shift { wave, reads, writes, soak: std::time::Duration::from_secs(2) };
    for wave in [0, 1] {
        assert!(at(&Step::Start { wave }) < at(&shift(wave, 25, 0)));
        assert!(
            at(&shift(wave, 25, 0)) < at(&shift(wave, 100, 0)) && at(&shift(wave, 100, 0)) < at(&shift(wave, 100, 100))
        );
    }
    assert!(at(&shift(1, 100, 100)) < at(&Step::Lease) && at(&Step::Lease) < at(&Step::Retire));
    assert_eq!(plan.steps.last(), Some(&Step::Retire));
}

#[test]
fn a_fleet_without_a_version_is_brought_up_at_once_on_the_first_slots() {
    let plan = plan(&spec(""), &empty_fleet(3)).expect("a plan");
    assert_eq!((plan.from.clone(), plan.waves(), plan.lease_to.clone()), (None, 1, None));
    assert!(plan.hosts.iter().all(|host| host.current.is_none() && host.candidate == slot("a")));
    let kinds: Vec<&str> = plan.steps.iter().map(Step::kind).collect();
    assert_eq!(kinds, ["start", "shift", "lease"]);
    assert_eq!(plan.reply().from_version, "");
}

#[test]
fn hosts_that_have_the_version_already_are_left_alone() {
    let mut fleet = serving_fleet(3);
    give(&mut fleet, 2, "1.1.0");
    let plan = plan(&spec(""), &fleet).expect("a plan");
    assert_eq!((order(&plan), plan.from.clone()), (vec!["app-01", "app-03"], Some(version("1.0.0"))));
}

#[test]
fn a_new_empty_host_is_brought_up_among_those_that_serve() {
    let mut fleet = serving_fleet(2);
    (1..=2).for_each(|number| give(&mut fleet, number, "1.1.0"));
    fleet.agents.extend(empty_fleet(3).agents.into_iter().skip(2));
    let plan = plan(&spec(""), &fleet).expect("a plan");
    assert_eq!((order(&plan), plan.from.clone()), (vec!["app-03"], None));
}

#[test]
fn a_version_that_serves_everywhere_is_no_change() {
    let mut fleet = serving_fleet(2);
    (1..=2).for_each(|number| give(&mut fleet, number, "1.1.0"));
    assert!(matches!(refused(&fleet).0, PlanError::NoChanges { .. }));
}

#[test]
fn different_versions_on_the_hosts_to_change_are_refused_with_their_names() {
    let mut fleet = serving_fleet(2);
    give(&mut fleet, 2, "1.0.5");
    let (error, text) = refused(&fleet);
    assert!(
        matches!(error, PlanError::Mixed { .. }) && text.contains("app-01: 1.0.0") && text.contains("app-02: 1.0.5"),
        "{text}"
    );
    let mut half_empty = serving_fleet(1);
    half_empty.agents.extend(empty_fleet(2).agents.into_iter().skip(1));
    assert!(refused(&half_empty).1.contains("app-02: nothing"));
}

#[test]
fn a_floor_that_cannot_be_met_is_refused_with_both_numbers() {
    let error = plan(&spec("[rollout]\nmin_serving = 4\n"), &serving_fleet(3)).expect_err("no plan").to_string();
    assert!(error.contains("min_serving = 4") && error.contains("3 hosts"), "{error}");
    for (hosts, floor) in [(1, 1), (2, 1), (3, 2)] {
        assert_eq!(plan(&spec(""), &serving_fleet(hosts)).expect("a plan").min_serving, floor, "default for {hosts}");
    }
    assert_eq!(plan(&spec("[rollout]\nmin_serving = 3\n"), &serving_fleet(3)).expect("start-first can").min_serving, 3);
}

#[test]
fn an_unknown_service_is_refused_with_the_known_ones() {
    let (error, text) = refused(&Fleet::default());
    assert!(matches!(error, PlanError::UnknownService { .. }) && text.contains("known are: billing"), "{text}");
}

#[test]
fn agents_that_cannot_take_part_are_refused_by_name() {
    let refused_after = |spoil: fn(&mut Agent)| {
        let mut fleet = serving_fleet(3);
        change(&mut fleet, 2, spoil);
        refused(&fleet)
    };
    let (error, text) = refused_after(|host| host.heard = Heard::Silent { since_ms: 1 });
    assert!(matches!(error, PlanError::Silent { .. }) && text.contains("app-02"), "{text}");
    assert!(matches!(refused_after(|host| host.report = None).0, PlanError::Silent { .. }));
    let (error, text) = refused_after(|host| host.report.as_mut().expect("a report").gate = false);
    assert!(matches!(error, PlanError::NoGate { .. }) && text.contains("app-02"), "{text}");
    let (error, text) = refused_after(|host| host.registration.slots.retain(|name, _| *name == slot("a")));
    assert!(matches!(error, PlanError::TooFewSlots { .. }) && text.contains("app-02 has 1 slot (a)"), "{text}");
}

#[test]
fn a_slot_that_is_taken_or_unknown_and_a_host_in_between_are_refused() {
    let occupied = |state: &str, slot_name: &str| {
        let mut fleet = serving_fleet(2);
        change(&mut fleet, 1, |host| {
            let assignment = &mut host.assigned.as_mut().expect("assigned").assignment;
            let mut wish = assignment.slots[&slot("a")].clone();
            wish.lifecycle = serde_json::from_str(&format!("\"{state}\"")).expect("a lifecycle");
            assignment.slots.insert(slot(slot_name), wish);
        });
        refused(&fleet)
    };
    let (error, text) = occupied("READY", "b");
    assert!(matches!(error, PlanError::NoEmptySlot { .. }) && text.contains("b: 1.0.0"), "{text}");
    assert!(matches!(occupied("SERVING", "b").0, PlanError::InTransition { .. }));
    assert!(matches!(occupied("SERVING", "c").0, PlanError::UnknownSlot { .. }));
}

#[test]
fn a_plan_reads_back_with_the_hash_that_it_was_stored_with() {
    let made = plan(&spec(""), &serving_fleet(3)).expect("a plan");
    let bytes = made.to_bytes().expect("bytes");
    let read = Plan::from_bytes("key", &bytes).expect("a plan");
    assert_eq!((&read, read.hash()), (&made, made.hash()));
    assert_eq!(made.hash().len(), 64);
    assert_eq!(plan(&spec(""), &serving_fleet(3)).expect("a plan").hash(), made.hash(), "the same plan");
    assert_ne!(plan(&spec("[rollout]\nsoak = \"31s\"\n"), &serving_fleet(3)).expect("a plan").hash(), made.hash());
    assert!(Plan::from_bytes("some/key", b"{}").expect_err("no plan").to_string().contains("some/key"));
}

#[test]
fn two_dry_runs_on_the_same_fleet_have_the_same_hash_and_another_fleet_has_another() {
    let fleet = serving_fleet(3);
    let known = std::collections::BTreeSet::new();
    let make = |fleet: &Fleet, id: &str| {
        let plan = Plan::make(&spec(""), fleet, &known, &id.parse().expect("an id")).expect("a plan");
        let stored = Plan::from_bytes("plan", &plan.to_bytes().expect("json")).expect("readable");
        assert_eq!(stored.hash(), plan.hash(), "the hash survives the store");
        plan.hash().to_owned()
    };
    assert_eq!(make(&fleet, "7f3a2c"), make(&fleet, "000001"));
    assert_ne!(make(&fleet, "7f3a2c"), make(&serving_fleet(2), "7f3a2c"));
}
