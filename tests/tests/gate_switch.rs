//! The switch test, short: every kind of client through a real gate, while traffic moves between two real instances and
//! agent and gate are restarted. The full one: `cargo run -p handover-tests --bin switch`.
#![allow(clippy::expect_used, clippy::panic)]

use handover_tests::load::crowd::Kind;
use handover_tests::switch::{self, Course, Settings};

#[test]
fn switches_and_restarts_of_agent_and_gate_lose_nothing() {
    let course = Course { switches: 9, stop_every: 3, agent_restarts: 6, gate_restarts: 4, ..Course::default() };
    let verdict = switch::run(&Settings::short(course)).expect("a run");
    assert!(verdict.passed(), "{verdict}");
    let answered = verdict.receipt.sum(|counts| counts.answered);
    assert!(answered > 300, "only {answered} requests:\n{verdict}");
}

/// Were this to pass as clean, the test above would prove nothing.
#[test]
fn a_gate_that_is_killed_is_found_by_the_same_check_for_every_kind() {
    let course = Course { switches: 1, gate_kills: 8, ..Course::default() };
    let verdict = switch::run(&Settings { pauses: 0.1, ..Settings::short(course) }).expect("a run");
    assert!(!verdict.passed(), "{verdict}");
    for kind in Kind::ALL {
        let counts = verdict.receipt.of(kind);
        assert!(counts.dropped > 0 && (counts.lost > 0 || kind == Kind::Idle), "{kind:?}:\n{verdict}");
    }
}
