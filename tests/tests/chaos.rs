//! Chaos on real processes, a bounded round: some schedules are clean, and a mistake that is planted is found.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::process::Command;

use handover_tests::chaos::sandbox;

/// The program beside the tests; `cargo build --bins` makes it.
fn chaos(words: &[&str]) -> Option<(Option<i32>, String)> {
    if let Err(error) = sandbox::possible() {
        eprintln!("SKIPPED: {error:#}");
        return None;
    }
    let own = std::env::current_exe().expect("our own path");
    let program: Option<PathBuf> = own.ancestors().skip(1).map(|dir| dir.join("chaos")).find(|path| path.is_file());
    let output = Command::new(program.expect("chaos, built")).args(words).output().expect("run");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Some((output.status.code(), said))
}

/// Two schedules at a time from this seed on, which must be clean. Some on the oldest etcd that is supported, some on a newer
/// one: `.ci/run chaos` has them all on both.
fn clean(seed: &str, etcd: &str) -> Option<String> {
    let words = ["--schedules", "2", "--seconds", "8", "--seed", seed, "--parallel", "2", "--etcd", etcd];
    let (code, said) = chaos(&words)?;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains(&format!(" on etcd {etcd}: 2 clean (")), "{said}");
    assert!(said.contains(" 0 with findings, 0 not run"), "{said}");
    Some(said)
}

/// An operator's hand, and a service killed: the cheapest of the faults that everything must survive.
#[test]
fn a_short_round_of_schedules_finds_nothing() {
    clean("121", "3.4");
}

/// The first schedule stops the coordinator that leads until another one does, the second one restores etcd from a snapshot
/// and has people raise the era.
#[test]
fn a_stale_coordinator_and_a_restored_store_do_no_harm() {
    let Some(said) = clean("99", "3.5") else { return };
    assert!(said.contains("N18 coordinators: Stale") && said.contains("N7 restores etcd with"), "{said}");
    assert!(
        !said.contains("ops: turns that a restore took away: 0"),
        "no turn was lost, so nothing was proved: {said}"
    );
}

#[test]
fn a_service_that_lies_about_its_own_end_is_found() {
    let Some((code, said)) = chaos(&["mistakes", "--only", "quiesced-is-a-lie"]) else { return };
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("caught in schedule 1"), "{said}");
}
