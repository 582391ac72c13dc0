//! The conformance kit against billing: as it should be it passes, and each of its faults fails the rule that it breaks.

use std::process::Command;

use handover_tests::fleet::Binaries;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::agent::nobody;
use crate::process::{Billing, Place};

/// Runs the kit: its exit code and its findings.
fn kit(billing: &Billing, more: &[&str]) -> (Option<i32>, Value) {
    let agent = Binaries::find().expect("programs").path("handover-agent");
    let url = format!("http://{}/handover/lease", billing.address);
    let done = Command::new(agent).args(["lease", "conformance", &url, "--json"]).args(more).output().expect("the kit");
    let errors = String::from_utf8_lossy(&done.stderr);
    let findings = serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{error}: {errors}"));
    (done.status.code(), findings)
}

fn rules(findings: &Value, verdict: &str) -> Vec<String> {
    let all = findings["findings"].as_array().expect("findings").iter();
    let those = all.filter(|finding| finding["verdict"] == verdict);
    those.map(|finding| finding["rule"].as_str().expect("a rule").to_owned()).collect()
}

/// The rules that this fault breaks.
fn broken_by(fault: &str) -> Vec<String> {
    let place = Place::new();
    let billing = Billing::start(&place, &nobody(&place.path("")), &["--fault", fault]);
    let (code, findings) = kit(&billing, &[]);
    assert_eq!(code, Some(1), "{findings:#}");
    for finding in findings["findings"].as_array().expect("findings") {
        let what_to_do = !finding["change"].as_str().expect("text").is_empty();
        assert!(finding["verdict"] == "pass" || what_to_do, "{finding:#}");
    }
    rules(&findings, "fail")
}

#[test]
fn billing_as_it_should_be_keeps_every_rule_that_can_be_checked() {
    let place = Place::new();
    let billing = Billing::start(&place, &nobody(&place.path("")), &[]);
    let ledger = place.path("ledger.db").display().to_string();
    let sql = format!(
        "python3 -c \"import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=4)
db.execute(sys.stdin.read().strip().rstrip(';'))
db.commit()\" {ledger}"
    );
    let install =
        "UPDATE fence SET token = {token}, holder = 'conformance' WHERE service = 'billing' AND token < {token}";
    let (code, findings) = kit(&billing, &["--sql", &sql, "--install-sql", install]);
    assert_eq!(rules(&findings, "fail"), Vec::<String>::new(), "{findings:#}");
    assert_eq!(rules(&findings, "not-checkable"), ["A7"], "{findings:#}");
    assert_eq!((code, &findings["passed"]), (Some(0), &true.into()));
    assert!(place.charges().len() > 20, "precondition: it was at work");
}

#[test]
fn without_a_hand_on_the_database_the_fence_is_honestly_not_checkable() {
    let place = Place::new();
    let billing = Billing::start(&place, &nobody(&place.path("")), &[]);
    let (code, findings) = kit(&billing, &[]);
    assert_eq!((code, rules(&findings, "not-checkable")), (Some(0), vec!["A3".to_owned(), "A7".to_owned()]));
}

#[test]
fn one_that_lies_about_having_quiesced_breaks_a4() {
    assert_eq!(broken_by("quiesce-lie"), ["A4"]);
}

#[test]
fn one_that_ignores_quiesce_breaks_a1_and_a4() {
    assert_eq!(broken_by("ignore-quiesce"), ["A1", "A4"]);
}

#[test]
fn one_that_hangs_in_a_unit_breaks_a2() {
    assert_eq!(broken_by("hang-in-unit"), ["A2"]);
}

#[test]
fn one_that_leaks_children_breaks_a6() {
    let place = Place::new();
    let billing = Billing::start(&place, &nobody(&place.path("")), &["--fault", "leak-in-turn=daemon"]);
    let (code, findings) = kit(&billing, &[]);
    let mark = format!("HANDOVER_INSTANCE={}", billing.instance);
    drop(billing);
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let marked = |pid: &i32| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    let left: Vec<i32> = pids.filter(marked).collect();
    for pid in &left {
        kill(Pid::from_raw(*pid), Signal::SIGKILL).expect("it was just there");
    }
    assert!(!left.is_empty(), "precondition: they outlived the service");
    assert_eq!((code, rules(&findings, "fail")), (Some(1), vec!["A6".to_owned()]), "{findings:#}");
    assert!(findings.to_string().contains("sleep 300"), "{findings:#}");
}
