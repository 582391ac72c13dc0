//! The main job on real processes under load: upgrade, rollback and abort lose nothing, on both stores.
#![allow(clippy::expect_used, clippy::panic)]

use std::time::Duration;

use handover_tests::fleet::{Fleet, Options, Spec, StoreKind};
use handover_tests::load::outcome::Outcome;
use handover_tests::load::request::Mix;
use handover_tests::load::{Load, LoadSpec};
use handover_tests::receipt::Receipt;

mod support;
use support::{receipt, serving, table};

/// Requests that outlive a soak, so that there is work in flight when an instance is to stop.
const LONG: Duration = Duration::from_secs(3);

fn etcd() -> Option<StoreKind> {
    match std::env::var_os("HANDOVER_TEST_ETCD") {
        Some(program) => Some(StoreKind::Etcd(program.into())),
        None => {
            eprintln!("SKIPPED on real etcd: HANDOVER_TEST_ETCD does not name one (tests/run sets it)");
            None
        }
    }
}

fn load(fleet: &Fleet, long: Duration) -> Load {
    let mut spec = LoadSpec::new(fleet.gates(), 150.0);
    spec.mix = Mix { write_share: 0.2, slow_share: 0.02, slow: long };
    spec.timeout = Duration::from_secs(15);
    let load = Load::start(spec).expect("load");
    fleet.wait_for("the load to be answered", |_| Ok(load.answered_well() > 100)).expect("answers");
    load
}

fn version(fleet: &Fleet) -> String {
    fleet.cli().status().expect("status")["current_version"].as_str().unwrap_or_default().to_owned()
}

fn upgrade_under_load(options: Options) {
    let fleet = serving(options);
    let load = load(&fleet, LONG);
    let rollout = fleet.cli().start(&Spec::to("1.1.0")).expect("started");
    let drained_with_work = std::sync::atomic::AtomicBool::new(false);
    fleet
        .wait_within(Duration::from_secs(60), "the rollout to end", |fleet| {
            let status = fleet.cli().status()?;
            let rows = status["fleet"].as_array().cloned().unwrap_or_default();
            let draining = rows.iter().any(|row| row["reads"] == 0 && row["in_flight"].as_u64() > Some(0));
            drained_with_work.fetch_or(draining, std::sync::atomic::Ordering::Relaxed);
            Ok(status["rollout"]["rollout"] == rollout.as_str() && status["rollout"]["state"] == "done")
        })
        .expect("done");
    assert!(drained_with_work.into_inner(), "no work was in flight at an instance whose traffic was gone");
    let receipt = receipt(&fleet, load);
    assert!(receipt.verdict.passed, "{}", table(&receipt));
    let versions = &receipt.load.total.versions;
    assert!(versions.get("1.0.0") > Some(&0) && versions.get("1.1.0") > Some(&0), "{versions:?}");
    assert_eq!(version(&fleet), "1.1.0");
}

#[test]
fn an_upgrade_under_load_loses_no_request_and_hands_the_lease_over_once() {
    upgrade_under_load(Options::default());
}

#[test]
fn the_same_upgrade_on_real_etcd() {
    if let Some(store) = etcd() {
        upgrade_under_load(Options { store, ..Options::default() });
    }
}

/// Rolls, checks that the fleet and the lease are back at 1.0.0, and gives the receipt.
fn goes_back(options: Options, long: Duration, roll: impl Fn(&Fleet) -> i32) -> Receipt {
    let fleet = serving(options);
    let load = load(&fleet, long);
    assert_eq!(roll(&fleet), 3, "rolled back");
    assert_eq!(version(&fleet), "1.0.0");
    let status = fleet.cli().status().expect("status");
    assert_eq!(status["lease"]["version"], "1.0.0", "{status}");
    receipt(&fleet, load)
}

#[test]
fn a_version_that_goes_bad_under_traffic_is_rolled_back_and_we_lose_nothing() {
    let receipt = goes_back(Options::default(), Duration::from_millis(500), |fleet| {
        let outcome = fleet.cli().roll(&Spec::to("1.2.0")).expect("a command");
        assert!(format!("{}{}", outcome.out, outcome.err).contains("failed"), "the cause is said: {}", outcome.out);
        outcome.code
    });
    assert!(receipt.verdict.passed, "{}", table(&receipt));
    let faults = receipt.load.total.of(Outcome::ServiceFault);
    assert!(faults > 0, "the bad version gave no errors: {}", table(&receipt));
}

/// Starts 1.1.0, and aborts once a candidate serves all of a host, with long requests in flight.
fn abort_in_the_middle(fleet: &Fleet, spec: &Spec) -> i32 {
    let file = fleet.cli().write(spec).expect("spec").display().to_string();
    let mut watch = fleet.cli().spawn("rollout", &["--timeout", "60s", "rollout", "start", &file]).expect("a command");
    fleet
        .wait_for("the candidate to serve with work in flight", |fleet| {
            let status = fleet.cli().status()?;
            let rows = status["fleet"].as_array().cloned().unwrap_or_default();
            let serves = |row: &serde_json::Value| row["version"] == "1.1.0" && row["writes"] == 100;
            Ok(rows.iter().any(|row| serves(row) && row["in_flight"].as_u64() > Some(1)))
        })
        .expect("serving");
    let outcome = fleet.cli().run(&["rollout", "abort", "--reason", "test"]).expect("a command");
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    watch.wait().expect("the watching command ends").code().expect("a code")
}

#[test]
fn an_operator_aborts_in_the_middle_and_nothing_is_lost() {
    let spec = Spec { soak: "30s", ..Spec::to("1.1.0") };
    let receipt = goes_back(Options::default(), LONG, |fleet| abort_in_the_middle(fleet, &spec));
    assert!(receipt.verdict.passed, "{}", table(&receipt));
}

/// The same abort with a drain that cuts at once: were this to pass, the test above would prove nothing.
#[test]
fn with_the_drain_switched_off_the_same_check_finds_lost_requests() {
    let spec = Spec { soak: "30s", drain: ("1ms", "cut"), ..Spec::to("1.1.0") };
    let options = Options { grace: "1ms".into(), ..Options::default() };
    let receipt = goes_back(options, LONG, |fleet| abort_in_the_middle(fleet, &spec));
    assert!(receipt.load.total.ours() > 0, "requests were cut, but the check saw none: {}", table(&receipt));
    assert!(!receipt.verdict.passed);
}

#[test]
fn a_candidate_that_never_becomes_ready_is_rolled_back_with_the_true_cause() {
    let fleet = serving(Options::default());
    fleet.install("1.3.0", "schema-gate-closed = true").expect("installed");
    let outcome = fleet.cli().roll(&Spec { start_deadline: "2s", ..Spec::to("1.3.0") }).expect("a command");
    assert_eq!(outcome.code, 3, "{}{}", outcome.out, outcome.err);
    let history = fleet.cli().run(&["rollout", "history"]).expect("history").out;
    assert!(history.contains("ready"), "{history}");
    assert_eq!(version(&fleet), "1.0.0");
}

#[test]
fn a_candidate_that_crashes_at_start_is_rolled_back_with_its_last_words() {
    let fleet = serving(Options::default());
    fleet.install("1.3.0", "crash-at-start = true").expect("installed");
    let outcome = fleet.cli().roll(&Spec::to("1.3.0")).expect("a command");
    assert_eq!(outcome.code, 3, "{}{}", outcome.out, outcome.err);
    assert!(format!("{}{}", outcome.out, outcome.err).contains("exit code 3"), "{}{}", outcome.out, outcome.err);
    assert_eq!(version(&fleet), "1.0.0");
    // Its crashes are not held against the next one, nor against itself once it is mended.
    fleet.install("1.3.0", "").expect("mended");
    let outcome = fleet.cli().roll(&Spec::to("1.3.0")).expect("a command");
    assert_eq!(outcome.code, 0, "{}{}", outcome.out, outcome.err);
}
