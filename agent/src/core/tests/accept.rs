//! Which assignments are accepted.

use super::*;
use crate::core::accept::{Accepted, Offer, Refusal, Verdict, judge};

fn offer(term: i64, serial: i64, text: &str) -> Offer {
    Offer { term: Term::from_wire(term), serial: Serial(serial), text: text.into() }
}

fn text() -> String {
    serde_json::to_string(&assigned(&[("a", "1", Lifecycle::Serving, 100)])).expect("json")
}

fn held(term: i64, serial: i64) -> Accepted {
    Accepted { term: Term::from_wire(term), serial: Serial(serial), text: text(), parsed: None }
}

#[test]
fn older_same_conflicting_and_new_assignments_are_told_apart() {
    let held = held(5, 10);
    let term = Some(Term::from_wire(6));
    assert!(matches!(judge(Some(&held), &offer(4, 11, &text()), None), Err(Refusal::StaleTerm { .. })));
    assert!(matches!(judge(Some(&held), &offer(5, 9, &text()), None), Err(Refusal::StaleSerial { .. })));
    assert_eq!(judge(Some(&held), &offer(5, 10, &text()), None), Ok(Verdict::Same));
    assert_eq!(judge(Some(&held), &offer(5, 10, "other"), None), Err(Refusal::Conflict(Serial(10))));
    assert!(matches!(judge(Some(&held), &offer(5, 11, &text()), None), Ok(Verdict::New(_))));
    let unproved = judge(Some(&held), &offer(6, 11, &text()), None);
    assert_eq!(unproved, Ok(Verdict::VerifyTerm(Term::from_wire(6))), "a higher term is not believed by itself");
    assert!(matches!(judge(Some(&held), &offer(6, 11, &text()), term), Ok(Verdict::New(_))));
    assert!(matches!(judge(Some(&held), &offer(7, 11, &text()), term), Err(Refusal::StaleTerm { .. })), "forged");
}

#[test]
fn an_assignment_that_contradicts_itself_is_refused() {
    let mut wrong = assigned(&[("a", "1", Lifecycle::Ready, 100)]);
    let judged = |wrong: &Assignment| {
        judge(None, &offer(0, 1, &serde_json::to_string(wrong).expect("json")), None).expect_err("refused")
    };
    assert!(judged(&wrong).to_string().contains("not to be SERVING"));
    wrong = assigned(&[("a", "1", Lifecycle::Draining, 0)]);
    assert!(judged(&wrong).to_string().contains("DRAINING"));
    assert!(matches!(judge(None, &offer(0, 1, "{"), None), Err(Refusal::Garbled(_))));
}
