//! What the doctor makes of a world.

use handover_proto::wire::{DoctorRequest, Finding};

use super::*;
use crate::core::store_health::{Member, Said};

fn findings(world: &World, leader: &str) -> Vec<Finding> {
    let viewer = Viewer { leader: leader.into(), term: 1, at_ms: 1_000_000 };
    doctor(world, &DoctorRequest::default(), &viewer).expect("findings").findings
}

/// Verdict and sentence of what one check found.
fn of<'f>(findings: &'f [Finding], check: &str) -> Vec<(&'f str, &'f str)> {
    let own = findings.iter().filter(|finding| finding.check == check);
    own.map(|finding| (finding.verdict.as_str(), finding.sentence.as_str())).collect()
}

fn member(endpoint: &str, answer: Result<&str, &str>) -> Member {
    let said = |version: &str| Said { version: version.into(), embedded: false, raft_term: 2, alarms: Vec::new() };
    Member { endpoint: endpoint.into(), answer: answer.map(said).map_err(str::to_owned) }
}

fn heard(world: &mut World, agent: &str, version: &str, clock_ms: i64) {
    let report = report(agent, &InstanceId::random(), None);
    let heard = world.heard_mut(&billing(), &name(agent));
    heard.report = Some(Report { agent_version: version.into(), ..report });
    heard.clock_ms = Some(clock_ms);
}

#[test]
fn silent_agents_fail_and_one_that_restarts_is_a_warning() {
    let mut world = Made::new().agent("app-1", &billing()).agent("app-2", &billing()).world();
    for agent in ["app-1", "app-2"] {
        heard(&mut world, agent, "0.1.0", 0);
    }
    assert_eq!(of(&findings(&world, "x"), "agents"), [("ok", "all 2 are heard")]);
    let silence = |since_ms| Some(Silence { since_ms, reason: "refused".into() });
    world.heard_mut(&billing(), &name("app-1")).silent = silence(995_000);
    world.heard_mut(&billing(), &name("app-2")).silent = silence(400_000);
    let all = findings(&world, "x");
    let agents = of(&all, "agents");
    assert!(agents[0].0 == "warn" && agents[0].1.contains("app-1 on host host-1") && agents[0].1.contains("5 s"));
    assert!(agents[1].0 == "fail" && agents[1].1.contains("10 min: refused"), "{agents:?}");
    assert!(all.iter().all(|finding| finding.check != "agents" || finding.service == "billing"));
}

#[test]
fn agents_of_two_versions_and_clocks_that_differ_are_named() {
    let mut world = Made::new().agent("app-1", &billing()).agent("app-2", &billing()).world();
    heard(&mut world, "app-1", env!("CARGO_PKG_VERSION"), -300);
    heard(&mut world, "app-2", env!("CARGO_PKG_VERSION"), 1_900);
    let all = findings(&world, "x");
    assert!(of(&all, "versions")[0].0 == "ok" && of(&all, "clock")[0].0 == "ok", "{all:?}");
    heard(&mut world, "app-2", "0.0.9", -61_000);
    let all = findings(&world, "x");
    assert!(of(&all, "versions")[0].1.contains("0.0.9 (app-2)"), "{all:?}");
    assert_eq!(of(&all, "clock"), [("warn", "the clock of app-2 is 61 s behind the coordinator's")]);
}

#[test]
fn nobody_who_leads_and_nobody_who_registered_are_said() {
    let all = findings(&Made::new().world(), "");
    assert_eq!(of(&all, "coordinator")[0].0, "fail");
    assert!(of(&all, "agents")[0].1.contains("no agent has registered"));
}

#[test]
fn a_store_without_a_majority_fails_and_one_without_one_member_is_a_warning() {
    let mut world = Made::new().world();
    world.members = ["a:1", "b:1", "c:1"].map(|endpoint| member(endpoint, Ok("3.5.30"))).to_vec();
    assert_eq!(of(&findings(&world, "x"), "store")[0].0, "warn", "nothing guards the lease");
    world.members[0] = member("a:1", Err("refused"));
    assert_eq!(of(&findings(&world, "x"), "store")[0], ("warn", "member a:1 does not answer: refused"));
    world.members[1] = member("b:1", Err("refused"));
    assert_eq!(of(&findings(&world, "x"), "store")[0].0, "fail");
    world.cut_off = Some(("no majority".into(), 940_000));
    let all = findings(&world, "x");
    assert!(of(&all, "store")[0].1.contains("for 60 s: no majority"), "{all:?}");
}

#[test]
fn a_host_that_leaves_though_nothing_keeps_it_out_is_named_with_what_gives_it_back() {
    let made = || Made::new().agent("app-1", &billing()).assigned("app-1", Lifecycle::Serving);
    let named = |made: Made| {
        let mut world = made.world();
        heard(&mut world, "app-1", "0.1.0", 0);
        findings(&world, "x").into_iter().find(|finding| finding.sentence.contains("out of its balancers"))
    };
    assert_eq!(named(made()), None);
    let finding = named(made().leaves()).expect("a finding");
    assert!(finding.verdict == "fail" && finding.fix.contains("handover undrain app-1"), "{finding:?}");
}
