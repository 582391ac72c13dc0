use super::*;
use crate::billing::activity::UnitEnd;

fn line(at: u64, instance: u8, token: i64, event: Event) -> Line {
    Line {
        at_boot_ns: BootNs(at),
        instance: format!("{instance:016x}").parse().expect("an id"),
        version: "1.0.0".parse().expect("a version"),
        token: Token::try_from(token).expect("a token"),
        event,
    }
}

fn quiesced() -> Event {
    Event::Inactive { why: Why::Quiesced }
}

fn report(lines: &[Line]) -> HolderReport {
    check(&intervals(lines), lines)
}

#[test]
fn a_planned_hand_over_has_its_darkness_measured() {
    let lines = [
        line(100, 1, 5, Event::Active),
        line(200, 1, 5, Event::UnitStart { tick: 1 }),
        line(210, 1, 5, Event::UnitEnd { tick: 1, end: UnitEnd::Charged }),
        line(300, 1, 5, quiesced()),
        line(340, 2, 9, Event::Active),
        line(390, 2, 9, Event::UnitStart { tick: 2 }),
        line(400, 2, 9, quiesced()),
    ];
    let report = report(&lines);
    assert_eq!((report.overlaps.len(), report.longest_dark), (0, Duration::from_nanos(40)));
    let [turn] = &report.turns[..] else { panic!("{:?}", report.turns) };
    assert_eq!((turn.planned, turn.dark.as_nanos()), (true, 40));
    assert_eq!(turn.to_first_unit, Some(Duration::from_nanos(90)));
    assert_eq!(report.longest_planned(), Some(Duration::from_nanos(40)));
}

#[test]
fn a_planted_overlap_is_found_with_its_length() {
    let lines = [
        line(100, 1, 5, Event::Active),
        line(290, 2, 9, Event::Active),
        line(300, 1, 5, quiesced()),
        line(400, 2, 9, quiesced()),
    ];
    let report = report(&lines);
    assert_eq!((report.overlaps.len(), report.overlapped.as_nanos()), (1, 10));
    assert_eq!((report.longest_overlap().as_nanos(), report.longest_dark), (10, Duration::ZERO));
}

#[test]
fn an_overlap_of_two_processes_with_one_token_is_found_too() {
    let lines = [
        line(100, 1, 5, Event::Active),
        line(150, 2, 5, Event::Active),
        line(200, 1, 5, quiesced()),
        line(300, 2, 5, quiesced()),
    ];
    assert_eq!(report(&lines).overlapped.as_nanos(), 50);
}

#[test]
fn an_overlap_with_one_that_is_not_its_neighbour_is_found() {
    let lines = [
        line(100, 1, 5, Event::Active),
        line(110, 2, 6, Event::Active),
        line(120, 2, 6, quiesced()),
        line(180, 3, 7, Event::Active),
        line(200, 1, 5, quiesced()),
        line(210, 3, 7, quiesced()),
    ];
    let report = report(&lines);
    assert_eq!((report.overlaps.len(), report.overlapped.as_nanos()), (2, 30));
    assert_eq!(report.total_dark, Duration::ZERO, "1 held all the while");
}

#[test]
fn a_killed_processs_interval_ends_with_its_last_line() {
    let lines = [
        line(100, 1, 5, Event::Active),
        line(200, 1, 5, Event::UnitStart { tick: 1 }),
        line(500, 2, 9, Event::Active),
        line(600, 2, 9, quiesced()),
    ];
    let report = report(&lines);
    assert_eq!((report.intervals[0].to, report.intervals[0].why), (BootNs(200), None));
    assert_eq!((report.turns[0].planned, report.turns[0].dark.as_nanos()), (false, 300));
}

#[test]
fn the_same_holder_after_silence_is_darkness_but_no_turn() {
    let lines = [
        line(100, 1, 5, Event::Active),
        line(200, 1, 5, Event::Inactive { why: Why::Silence }),
        line(270, 1, 5, Event::Active),
        line(300, 1, 5, quiesced()),
    ];
    let report = report(&lines);
    assert_eq!((report.turns.len(), report.total_dark.as_nanos(), report.overlaps.len()), (0, 70, 0));
}
