//! Verdicts over facts.

use std::path::Path;

use super::*;
use crate::check::facts::{Name, SlotFacts, StoreFacts};
use crate::lease::versions::Survey;

const CONFIG: &str = r#"
agent = "app-01"
service = "billing"
listen = "127.0.0.1:7301"
operations = "127.0.0.1:7302"
state_dir = "/var/lib/handover/billing"
runtime_dir = "/run/handover/billing"
[gate]
mode = "proxy"
listen = "0.0.0.0:8080"
[driver]
kind = "process"
builds = "/builds/billing"
command = ["{builds}/{version}/billing"]
[[probe]]
name = "ready"
http = { path = "/ready" }
affects = "ready"
[lease]
[[slot]]
name = "a"
port = 8081
"#;

fn read() -> Config {
    Config::parse(Path::new("billing.toml"), CONFIG).expect("a config")
}

fn store() -> StoreFacts {
    let survey = Survey {
        versions: [(1, "3.5.30".to_owned())].into(),
        members: Some([1].into()),
        guarded: Some(true),
        embedded: false,
    };
    let members = vec![("10.0.0.1:2379".to_owned(), Ok(Vec::new()))];
    StoreFacts { members, survey, asks: Some(true), name: Some(Ok(Name::Ours)), led: Some(true) }
}

fn directory(field: &'static str, state: DirectoryState) -> Directory {
    Directory { field, path: "/d".into(), state, volatile: false }
}

fn listener(owner: Owner, bound: Bound) -> Listener {
    Listener { field: "listen".to_owned(), address: "127.0.0.1:7301".parse().expect("an address"), owner, bound }
}

fn unit(name: &str, active: bool, enabled: bool) -> UnitState {
    UnitState { name: name.to_owned(), loaded: true, active, enabled, confined: false, stop_limit: None }
}

/// A host on which everything is as it should be, and runs.
fn good() -> Facts {
    Facts {
        agent_runs: true,
        gate_runs: true,
        directories: vec![directory("state_dir", DirectoryState::Writable)],
        keys: vec![("/k".into(), 0o600)],
        certificates: vec![Certificate {
            field: "store.cert".into(),
            state: Ok(("2027-01-01T00:00:00Z".into(), None)),
        }],
        listeners: vec![listener(Owner::Agent, Bound::InUse), listener(Owner::Gate, Bound::InUse)],
        slot_units: vec![Ok("a".parse().expect("a slot"))],
        units: Some(vec![unit("handover-agent@billing.service", true, true)]),
        store: store(),
        slots: vec![SlotFacts { slot: "a".parse().expect("a slot"), probes: None }],
    }
}

/// The findings that are not ok.
fn bad(facts: &Facts) -> Vec<(Verdict, String, String)> {
    let findings = host(&read(), facts).into_iter().filter(|finding| finding.verdict != Verdict::Ok);
    findings.map(|finding| (finding.verdict, finding.sentence, finding.fix)).collect()
}

/// The only finding that is not ok: its verdict, and its words.
fn one(facts: &Facts) -> (Verdict, String) {
    let mut all = bad(facts);
    assert_eq!(all.len(), 1, "{all:?}");
    let (verdict, sentence, fix) = all.remove(0);
    assert!(!fix.is_empty(), "{sentence}: no fix");
    (verdict, format!("{sentence}; {fix}"))
}

#[test]
fn a_host_that_is_as_it_should_be_has_no_finding_and_exit_code_0() {
    assert_eq!(bad(&good()), []);
    assert_eq!(exit_code(&host(&read(), &good())), 0);
}

#[test]
fn a_warning_is_no_failure_and_a_failure_is_exit_code_1() {
    let (warn, fail) = (Finding::warn("ports", "w", "f"), Finding::fail("ports", "w", "f"));
    let both = [warn, fail];
    assert_eq!((exit_code(&both[..1]), exit_code(&both)), (0, 1));
}

#[test]
fn a_directory_that_cannot_be_used_fails_and_so_does_a_state_that_a_boot_would_forget() {
    use DirectoryState::{CanBeMade, Locked, Missing, NoDirectory, Writable};
    for state in [Locked, Missing, NoDirectory] {
        let facts = Facts { directories: vec![directory("state_dir", state)], ..good() };
        assert_eq!(one(&facts).0, Verdict::Fail, "{state:?}");
    }
    let volatile = |field| Directory { volatile: true, ..directory(field, Writable) };
    assert!(one(&Facts { directories: vec![volatile("state_dir")], ..good() }).1.contains("next boot"));
    assert_eq!(bad(&Facts { directories: vec![volatile("runtime_dir")], ..good() }), []);
    assert_eq!(one(&Facts { directories: vec![directory("driver.builds", CanBeMade)], ..good() }).0, Verdict::Warn);
}

#[test]
fn a_key_that_everybody_may_read_fails_and_one_for_a_group_does_not() {
    let keys = |mode| Facts { keys: vec![("/k".into(), mode)], ..good() };
    assert_eq!(one(&keys(0o644)).0, Verdict::Fail);
    assert_eq!(bad(&keys(0o640)), []);
}

#[test]
fn a_port_in_use_is_right_while_its_owner_runs_and_wrong_otherwise() {
    let with = |owner, bound, runs| Facts {
        listeners: vec![listener(owner, bound)],
        agent_runs: runs,
        gate_runs: runs,
        ..good()
    };
    let slot = || Owner::Slot("a".parse().expect("a slot"));
    assert_eq!(one(&with(Owner::Agent, Bound::InUse, false)).0, Verdict::Fail);
    assert_eq!(one(&with(Owner::Gate, Bound::InUse, false)).0, Verdict::Fail);
    assert_eq!(one(&with(slot(), Bound::InUse, false)).0, Verdict::Warn, "it may be an instance of before");
    assert_eq!(bad(&with(slot(), Bound::InUse, true)), []);
    assert_eq!(one(&with(Owner::Gate, Bound::Free, true)).0, Verdict::Warn, "it has another config");
    assert_eq!(bad(&with(slot(), Bound::Free, true)), []);
    assert_eq!(bad(&with(Owner::Gate, Bound::Free, false)), []);
    assert!(one(&with(Owner::Gate, Bound::NotHere, false)).1.contains("no address 127.0.0.1"));
    assert!(one(&with(Owner::Gate, Bound::Denied, false)).1.contains("as root"));
}

#[test]
fn a_gate_that_would_be_killed_before_its_requests_may_finish_fails_with_both_times() {
    let gate = |seconds| UnitState {
        stop_limit: Some(std::time::Duration::from_secs(seconds)),
        ..unit("handover-gate@billing.service", true, true)
    };
    let with = |unit| Facts { units: Some(vec![unit]), ..good() };
    assert_eq!(bad(&with(gate(40))), [], "the packaged unit and the default");
    let (verdict, said) = one(&with(gate(30)));
    assert_eq!(verdict, Verdict::Fail);
    for part in ["30s after", "for 30s (limits.stop_time)", "TimeoutStopSec=40s"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let agent = UnitState { stop_limit: gate(5).stop_limit, ..unit("handover-agent@billing.service", true, true) };
    assert_eq!(bad(&with(agent)), [], "instances outlive the agent");
}

#[test]
fn units_that_do_not_fit_fail_and_those_that_miss_a_boot_are_warned_of() {
    assert_eq!(one(&Facts { slot_units: vec![Err("write Restart=no".to_owned())], ..good() }).0, Verdict::Fail);
    let with = |unit| Facts { units: Some(vec![unit]), ..good() };
    let name = "handover-agent@billing.service";
    for (active, enabled, word) in [(true, false, "enable"), (false, true, "start"), (false, false, "enable --now")] {
        let (verdict, said) = one(&with(unit(name, active, enabled)));
        assert!(verdict == Verdict::Warn && said.contains(&format!("systemctl {word}")), "{said}");
    }
    assert!(one(&with(UnitState { loaded: false, ..unit(name, false, false) })).1.contains("not installed"));
    assert_eq!(bad(&Facts { units: None, ..good() }), []);
}

#[test]
fn an_agent_that_starts_instances_itself_must_not_be_in_a_sandbox() {
    let confined = UnitState { confined: true, ..unit("handover-agent@billing.service", true, true) };
    let (verdict, said) = one(&Facts { units: Some(vec![confined]), ..good() });
    assert!(verdict == Verdict::Fail && said.contains("unconfined.conf"), "{said}");
}

#[test]
fn a_store_with_one_silent_member_is_a_warning_and_one_without_any_a_failure() {
    let silent = ("10.0.0.2:2379".to_owned(), Err("refused".to_owned()));
    let mut facts = good();
    facts.store.members.push(silent.clone());
    assert_eq!(one(&facts).0, Verdict::Warn);
    facts.store = StoreFacts { members: vec![silent], ..StoreFacts::default() };
    assert_eq!(one(&facts).0, Verdict::Fail, "and nothing is said of what was not asked");
}

#[test]
fn alarms_and_a_taken_name_fail_old_versions_and_missing_roles_are_warned_of() {
    let with = |change: &dyn Fn(&mut StoreFacts)| {
        let mut facts = good();
        change(&mut facts.store);
        one(&facts)
    };
    assert_eq!(with(&|store| store.members[0].1 = Ok(vec!["NOSPACE".to_owned()])).0, Verdict::Fail);
    let taken = with(&|store| store.name = Some(Ok(Name::Taken("app-07".to_owned()))));
    assert!(taken.0 == Verdict::Fail && taken.1.contains("app-07"), "{taken:?}");
    assert!(with(&|store| store.name = Some(Err("permission denied".to_owned()))).1.contains("store setup billing"));
    let old = with(&|store| store.survey.versions = [(1, "3.4.23".to_owned())].into());
    assert!(old.0 == Verdict::Warn && old.1.contains("3.4.23"), "{old:?}");
    assert!(with(&|store| store.asks = Some(false)).1.contains("roles are off"));
    assert_eq!(with(&|store| store.survey.guarded = Some(false)).0, Verdict::Warn);
    assert!(with(&|store| store.led = Some(false)).1.contains("no coordinator leads"));
}

#[test]
fn a_service_that_answers_badly_is_warned_of_and_an_empty_slot_is_not() {
    let probes = Some(vec![("ready".to_owned(), Reading::Bad("status 503".to_owned()))]);
    let facts = Facts { slots: vec![SlotFacts { slot: "a".parse().expect("a slot"), probes }], ..good() };
    let (verdict, said) = one(&facts);
    assert!(verdict == Verdict::Warn && said.contains("slot a, ready: status 503"), "{said}");
}

#[test]
fn one_slot_is_one_slot() {
    let sentence =
        |text: &str| config(&Config::parse(Path::new("x.toml"), text).expect("a config"))[0].sentence.clone();
    assert!(sentence(CONFIG).contains(", 1 slot behind"), "{}", sentence(CONFIG));
    let two = format!("{CONFIG}[[slot]]\nname = \"b\"\nport = 8082\n");
    assert!(sentence(&two).contains(", 2 slots behind"), "{}", sentence(&two));
}

#[test]
fn a_certificate_fails_before_it_expires_and_not_only_then() {
    let judged = |state: Result<Option<Alarm>, &str>| {
        let state = state.map(|alarm| ("2027-01-01".to_owned(), alarm)).map_err(str::to_owned);
        certificate(&Certificate { field: "store.cert".into(), state })
    };
    assert_eq!(judged(Ok(None)).verdict, Verdict::Ok);
    assert_eq!(judged(Ok(Some(Alarm::Third))).verdict, Verdict::Warn);
    for alarm in [Alarm::Tenth, Alarm::Expired] {
        let finding = judged(Ok(Some(alarm)));
        assert!(finding.verdict == Verdict::Fail && finding.sentence.contains("2027-01-01"), "{finding}");
    }
    let expired = judged(Ok(Some(Alarm::Expired))).sentence;
    assert!(expired.contains("was valid until 2027-01-01") && !expired.contains("is valid"), "{expired}");
    assert!(judged(Err("no such file")).sentence.contains("`store.cert`: no such file"));
}
