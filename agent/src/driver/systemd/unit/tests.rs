use super::*;

fn seen(active: State, invocation: &str) -> Seen {
    Seen { active, invocation: invocation.into(), ..Seen::default() }
}

fn ordered(outcome: Option<&str>) -> Stage {
    Stage::Ordered { before: "old".into(), outcome: outcome.map(str::to_owned) }
}

fn begun() -> Stage {
    Stage::Begun { invocation: "new".into(), was_up: false }
}

#[test]
fn a_start_has_begun_once_the_unit_has_another_invocation_even_if_that_has_failed_already() {
    assert_eq!(next(&ordered(None), &seen(State::Activating, "new")), Step::Begun);
    assert_eq!(next(&ordered(Some("failed")), &seen(State::Failed, "new")), Step::Begun);
    assert!(matches!(next(&ordered(None), &seen(State::Inactive, "old")), Step::Runs { awaits: Some(_) }));
}

#[test]
fn an_order_that_begins_nothing_says_why() {
    for (outcome, end) in [
        ("dependency", UnitEnd::Dependency),
        ("canceled", UnitEnd::Canceled),
        ("timeout", UnitEnd::StartTimeout),
        ("failed", UnitEnd::Refused),
        ("assert", UnitEnd::Refused),
    ] {
        let step = next(&ordered(Some(outcome)), &seen(State::Inactive, "old"));
        assert_eq!(step, Step::Ended(ExitStatus::Unit(end)), "{outcome}");
    }
    assert_eq!(next(&ordered(Some("done")), &seen(State::Up, "old")), Step::Foreign);
}

#[test]
fn an_order_of_which_nothing_is_known_is_taken_back_unless_it_was_carried_out() {
    assert_eq!(next(&ordered(Some(LOST)), &seen(State::Activating, "new")), Step::Begun);
    assert_eq!(next(&ordered(Some(LOST)), &seen(State::Inactive, "old")), Step::TakeBack, "it may be on its way");
    let step = next(&ordered(Some(TAKEN_BACK)), &seen(State::Inactive, "old"));
    assert_eq!(step, Step::Ended(ExitStatus::Unit(UnitEnd::TakenBack)));
    assert_eq!(next(&ordered(Some(TAKEN_BACK)), &seen(State::Deactivating, "new")), Step::Begun, "it was quicker");
}

#[test]
fn a_unit_is_ready_only_once_systemd_takes_it_for_up() {
    let starting = Seen { sub: "start".into(), ..seen(State::Activating, "new") };
    assert_eq!(next(&begun(), &starting), Step::Runs { awaits: Some("READY=1 from it") });
    assert_eq!(next(&begun(), &seen(State::Up, "new")), Step::Runs { awaits: None });
    assert!(matches!(next(&begun(), &seen(State::Deactivating, "new")), Step::Runs { awaits: Some(_) }));
}

#[test]
fn another_invocation_is_stopped_and_ends_the_instance() {
    for active in [State::Activating, State::Up, State::Deactivating] {
        assert_eq!(next(&begun(), &seen(active, "third")), Step::Foreign, "{active:?}");
    }
    let over = next(&begun(), &seen(State::Inactive, "third"));
    assert_eq!(over, Step::Ended(ExitStatus::Unit(UnitEnd::Foreign)));
}

#[test]
fn a_restart_by_systemd_itself_is_stopped_before_it_begins() {
    let waiting = Seen { sub: "auto-restart".into(), ..seen(State::Activating, "new") };
    assert_eq!(next(&begun(), &waiting), Step::Foreign);
}

fn ended(result: &str, code: i32, status: i32) -> Seen {
    Seen { result: result.into(), main_code: code, main_status: status, ..seen(State::Failed, "new") }
}

#[test]
fn an_end_is_told_as_systemd_judged_it() {
    for (result, code, status, expected) in [
        ("success", 1, 0, ExitStatus::Code(0)),
        ("success", 2, 15, ExitStatus::Signal(15)),
        ("exit-code", 1, 3, ExitStatus::Code(3)),
        ("signal", 2, 9, ExitStatus::Signal(9)),
        ("core-dump", 3, 11, ExitStatus::Signal(11)),
        ("exit-code", 1, 203, ExitStatus::Unit(UnitEnd::NotRun(203))),
        ("watchdog", 2, 6, ExitStatus::Unit(UnitEnd::Watchdog)),
        ("oom-kill", 2, 9, ExitStatus::Unit(UnitEnd::OutOfMemory)),
        ("timeout", 2, 15, ExitStatus::Unit(UnitEnd::StartTimeout)),
        ("protocol", 1, 0, ExitStatus::Unit(UnitEnd::Protocol)),
        ("start-limit-hit", 1, 3, ExitStatus::Unit(UnitEnd::StartLimit)),
        ("resources", 0, 0, ExitStatus::Unit(UnitEnd::Resources)),
        ("a word of a later systemd", 1, 3, ExitStatus::Code(3)),
    ] {
        let step = next(&begun(), &ended(result, code, status));
        assert_eq!(step, Step::Ended(expected), "{result}");
    }
    assert_eq!(how(&ended("timeout", 2, 9), true), ExitStatus::Unit(UnitEnd::StopTimeout));
}

#[test]
fn an_unknown_state_is_never_taken_for_rest() {
    assert!(!Seen { active: State::read("maintenance"), ..Seen::default() }.at_rest());
    assert!(Seen { active: State::read("failed"), ..Seen::default() }.at_rest());
}

#[test]
fn last_words_are_asked_for_unless_it_ended_as_it_was_told_to() {
    for status in [ExitStatus::Code(0), ExitStatus::Signal(15)] {
        assert!(is_as_asked(true, status) && !is_as_asked(false, status), "{status:?}");
    }
    for status in [ExitStatus::Code(3), ExitStatus::Signal(9), ExitStatus::Unit(UnitEnd::StopTimeout)] {
        assert!(!is_as_asked(true, status), "{status:?}");
    }
}
