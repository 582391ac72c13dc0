use super::*;
use crate::billing::contract::Token;
use crate::clock::BootNs;
use crate::load::request::Kind;
use crate::load::tally::Tally;
use crate::receipt::holders::{Interval, Overlap};

struct Run {
    outcomes: Vec<Outcome>,
    writes: WriteReport,
    fence: FenceReport,
    ticks: TickReport,
    holders: HolderReport,
    expect: Expect,
}

fn clean() -> Run {
    Run {
        outcomes: vec![Outcome::Ok],
        writes: WriteReport::default(),
        fence: FenceReport::default(),
        ticks: TickReport::default(),
        holders: HolderReport::default(),
        expect: Expect::default(),
    }
}

fn broken(run: &Run) -> Vec<&'static str> {
    let mut tally = Tally::new("r".to_owned(), 1.0);
    for (n, outcome) in run.outcomes.iter().enumerate() {
        let ticket = tally.leaves(n as u64, Kind::Read, 0, Duration::ZERO, Duration::ZERO);
        tally.ends(ticket, *outcome, None, String::new(), Duration::ZERO);
    }
    let verdict = judge(&tally.receipt(), &run.writes, &run.fence, &run.ticks, &run.holders, &run.expect);
    assert_eq!(verdict.passed, verdict.broken.is_empty());
    verdict.broken.into_iter().map(|broken| broken.rule).collect()
}

fn overlap(lasted: Duration) -> HolderReport {
    let interval = |token| Interval {
        instance: "a".to_owned(),
        version: "1".to_owned(),
        token: Token::try_from(token).expect("token"),
        from: BootNs(0),
        to: BootNs(1),
        why: None,
    };
    let overlap = Overlap { first: interval(1), second: interval(2), lasted };
    HolderReport { overlaps: vec![overlap], overlapped: lasted, ..HolderReport::default() }
}

#[test]
fn a_clean_run_passes_and_a_run_without_requests_does_not() {
    assert_eq!(broken(&clean()), Vec::<&str>::new());
    assert_eq!(broken(&Run { outcomes: vec![], ..clean() }), ["nothing-sent"]);
}

#[test]
fn each_outcome_that_is_not_ok_breaks_its_rule() {
    let rules = [
        (Outcome::ServiceFault, "service-faults"),
        (Outcome::ServiceError, "service-errors"),
        (Outcome::GateError, "gate-errors"),
        (Outcome::Unexpected, "unexpected"),
        (Outcome::Refused, "lost"),
        (Outcome::Reset, "lost"),
        (Outcome::Timeout, "lost"),
    ];
    for (outcome, rule) in rules {
        assert_eq!(broken(&Run { outcomes: vec![Outcome::Ok, outcome], ..clean() }), [rule], "{outcome:?}");
    }
}

#[test]
fn faults_on_purpose_pass_where_the_run_allows_them() {
    let expect = Expect { service_faults: true, ..Expect::default() };
    assert!(broken(&Run { outcomes: vec![Outcome::ServiceFault], expect, ..clean() }).is_empty());
}

#[test]
fn each_finding_of_a_checker_breaks_its_rule() {
    let write = WriteReport::default;
    let tick = TickReport::default;
    let runs = [
        (Run { writes: WriteReport { missing_count: 1, ..write() }, ..clean() }, "writes-missing"),
        (Run { writes: WriteReport { doubled: 1, ..write() }, ..clean() }, "writes-doubled"),
        (Run { writes: WriteReport { altered: 1, ..write() }, ..clean() }, "writes-altered"),
        (Run { writes: WriteReport { invented: 1, ..write() }, ..clean() }, "writes-invented"),
        (Run { ticks: TickReport { doubled: 1, ..tick() }, ..clean() }, "ticks-doubled"),
        (Run { ticks: TickReport { holes: 1, ..tick() }, ..clean() }, "ticks-missed"),
        (Run { fence: FenceReport { violations: vec!["x".to_owned()], ..Default::default() }, ..clean() }, "fence"),
        (Run { holders: overlap(Duration::from_millis(2)), ..clean() }, "overlap"),
    ];
    for (run, rule) in runs {
        assert_eq!(broken(&run), [rule]);
    }
}

#[test]
fn an_overlap_counts_from_one_millisecond_unless_the_pause_could_not_be_noticed() {
    assert!(broken(&Run { holders: overlap(Duration::from_millis(1)), ..clean() }).is_empty());
    let expect = Expect { undetected_pause: true, ..Expect::default() };
    assert!(broken(&Run { holders: overlap(Duration::from_secs(9)), expect, ..clean() }).is_empty());
}

#[test]
fn darkness_breaks_the_verdict_only_beyond_what_the_run_allows() {
    let holders = || HolderReport { longest_dark: Duration::from_secs(2), ..HolderReport::default() };
    let allow = |secs| Expect { longest_dark: Some(Duration::from_secs(secs)), ..Expect::default() };
    assert!(broken(&Run { holders: holders(), ..clean() }).is_empty());
    assert!(broken(&Run { holders: holders(), expect: allow(2), ..clean() }).is_empty());
    assert_eq!(broken(&Run { holders: holders(), expect: allow(1), ..clean() }), ["dark"]);
    let ticks = TickReport { owed: 20, owed_for: Duration::from_secs(2), ..TickReport::default() };
    assert_eq!(broken(&Run { ticks, expect: allow(1), ..clean() }), ["dark"], "nobody held at the end");
}
