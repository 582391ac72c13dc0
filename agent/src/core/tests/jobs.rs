//! The ledger's line *jobs*: unknown is never zero, and a line may have a policy of its own.

use super::*;
use handover_proto::assignment::DrainPolicy;

fn jobs(count: u64) -> Line {
    Line::counted(Kind::Jobs, count, Duration::from_secs(70))
}

fn unknown() -> Line {
    Line { unknown: Some("runs: no answer within 500ms".into()), ..jobs(0) }
}

fn policy(deadline_s: u64, at_deadline: AtDeadline) -> Option<DrainPolicy> {
    Some(DrainPolicy { deadline_ms: deadline_s * 1000, at_deadline, over_all: false })
}

fn draining(lines: Vec<Line>) -> (Host, Assignment) {
    let (mut host, _) = Host::serving();
    host.instance("a").ledger.lines = lines;
    let gone = assigned(&[]);
    host.settle(&gone);
    (host, gone)
}

#[test]
fn jobs_hold_a_drain_and_are_named_with_their_age() {
    let (mut host, gone) = draining(vec![Line::counted(Kind::Requests, 0, Duration::ZERO), jobs(3)]);
    let out = host.settle(&gone);
    assert_eq!(kind(&out), BlockerKind::Drain);
    assert!(out.waiting.expect("a reason").sentence.contains("3 jobs (oldest 70s)"));
    host.instance("a").ledger.lines = vec![jobs(0)];
    assert_eq!(kind(&host.settle(&gone)), BlockerKind::Stop);
}

#[test]
fn jobs_that_cannot_be_counted_hold_a_drain_with_a_reason_of_their_own() {
    let (mut host, gone) = draining(vec![unknown()]);
    let out = host.settle(&gone);
    assert_eq!(kind(&out), BlockerKind::Uncounted);
    assert!(out.waiting.expect("a reason").sentence.contains("no answer within 500ms"));
    host.now += Duration::from_secs(3600);
    assert_eq!(kind(&host.settle(&gone)), BlockerKind::Uncounted, "policy wait: it goes on waiting");
    host.instance("a").ledger.lines = vec![unknown(), jobs(1)];
    assert_eq!(kind(&host.settle(&gone)), BlockerKind::Drain, "something is left for certain");
    host.instance("a").ledger.lines = vec![jobs(0)];
    assert_eq!(kind(&host.settle(&gone)), BlockerKind::Stop);
}

#[test]
fn a_line_is_cut_at_its_own_deadline_and_not_at_the_assignments() {
    let own = Line { policy: policy(600, AtDeadline::Cut), ..jobs(1) };
    let (mut host, mut gone) = draining(vec![own.clone()]);
    gone.drain.at_deadline = AtDeadline::Cut;
    host.now += Duration::from_secs(60);
    let out = host.settle(&gone);
    assert_eq!(kind(&out), BlockerKind::Drain, "the assignment's 30 s are over, the line's own 600 s are not");
    assert!(!out.waiting.expect("a reason").sentence.contains("past its deadline"));
    host.instance("a").ledger.lines = vec![own, Line::counted(Kind::Requests, 1, Duration::ZERO)];
    host.now += Duration::from_secs(600);
    gone.drain.at_deadline = AtDeadline::Wait;
    assert_eq!(kind(&host.settle(&gone)), BlockerKind::Drain, "another line is left that may not be cut");
    host.instance("a").ledger.lines.truncate(1);
    host.cuts = true;
    assert_eq!(kind(&host.settle(&gone)), BlockerKind::Stop);
}

#[test]
fn a_drain_that_is_over_all_cuts_a_line_that_has_a_policy_of_its_own() {
    let patient = Line { policy: policy(1_800, AtDeadline::Wait), ..jobs(1) };
    let (mut host, mut gone) = draining(vec![patient]);
    gone.drain.at_deadline = AtDeadline::Cut;
    host.now += Duration::from_secs(60);
    assert_eq!(kind(&host.settle(&gone)), BlockerKind::Drain, "its own policy goes first");
    gone.drain.over_all = true;
    host.cuts = true;
    assert_eq!(kind(&host.settle(&gone)), BlockerKind::Stop);
}

#[test]
fn a_line_that_is_to_fail_asks_for_a_human_at_its_own_deadline() {
    let (mut host, gone) = draining(vec![Line { policy: policy(5, AtDeadline::Fail), ..jobs(1) }]);
    let out = host.settle(&gone);
    assert_eq!((kind(&out), out.wake_at), (BlockerKind::Drain, Some(host.now + Duration::from_secs(5))));
    host.now += Duration::from_secs(5);
    assert_eq!(kind(&host.settle(&gone)), BlockerKind::Operator);
}
