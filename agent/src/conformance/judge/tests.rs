use std::time::Duration;

use super::*;
use crate::conformance::seen::{Fence, Stale};
use crate::lease::record::Ack;

fn ack(state: AckState, in_flight: u64, progress: u64) -> Ack {
    Ack { in_flight, progress: Some(progress), ..Ack::new(Some("7".to_owned()), 1, state) }
}

fn rests(progress: u64) -> Reply {
    Ok(ack(AckState::Quiesced, 0, progress))
}

fn works(in_flight: u64, progress: u64) -> Reply {
    Ok(ack(AckState::Started, in_flight, progress))
}

fn silent() -> Reply {
    Err("no answer".to_owned())
}

/// Of a service that does everything right and counts.
fn good() -> Seen {
    Seen {
        c_unit: Some(Duration::from_millis(500)),
        settle: Duration::from_secs(1),
        greeting: Some((rests(0), rests(0))),
        silence: Some(Silence { first: works(0, 9), second: works(0, 9) }),
        quiesce: Some(Quiesce {
            before: ack(AckState::Started, 1, 20),
            answer: rests(21),
            after: rests(21),
            installed: None,
        }),
        stale: Some(Stale { answer: Ok(ack(AckState::Failed, 0, 21)), before: Some(21), after: rests(21) }),
        older: Some(Ok(ack(AckState::Failed, 0, 21))),
        stored: vec![(7, Some("7".to_owned()))],
        fence: Some(Fence { installed: Ok(Duration::ZERO), first: works(0, 30), second: works(0, 30) }),
        leaked: Some(Ok(Vec::new())),
        broke_off: None,
    }
}

fn verdict(seen: &Seen, rule: Rule) -> Verdict {
    judge(seen).findings.iter().find(|finding| finding.rule == rule).expect("one for each").verdict
}

/// The rules that fail.
fn failed(seen: &Seen) -> Vec<Rule> {
    let findings = judge(seen);
    let failed: Vec<Rule> =
        findings.findings.iter().filter(|f| f.verdict == Fail).map(|finding| finding.rule).collect();
    assert_eq!(findings.passed, failed.is_empty());
    failed
}

#[test]
fn a_good_service_passes_all_that_can_be_checked_and_the_outbox_cannot() {
    assert_eq!(failed(&good()), []);
    for rule in Rule::ALL {
        let expected = if rule == Rule::A7 { NotCheckable } else { Pass };
        assert_eq!(verdict(&good(), rule), expected, "{rule:?}");
    }
}

#[test]
fn each_kind_of_breach_fails_its_own_rule() {
    let silence = |first, second| Some(Silence { first, second });
    let before = ack(AckState::Started, 1, 20);
    let quiesce = |answer, after| Some(Quiesce { before: before.clone(), answer, after, installed: None });
    let cases = [
        (
            "units started after the soft deadline",
            vec![Rule::A1],
            Seen { silence: silence(works(0, 9), works(0, 11)), ..good() },
        ),
        (
            "a unit that hangs and is told",
            vec![Rule::A2],
            Seen { silence: silence(works(1, 9), works(1, 9)), ..good() },
        ),
        ("a unit that hangs in silence", vec![Rule::A2], Seen { silence: silence(silent(), silent()), ..good() }),
        ("a lie", vec![Rule::A4], Seen { quiesce: quiesce(rests(0), rests(40)), ..good() }),
        (
            "QUIESCED in a unit",
            vec![Rule::A4],
            Seen { quiesce: quiesce(Ok(ack(AckState::Quiesced, 1, 20)), rests(21)), ..good() },
        ),
        ("QUIESCE is ignored", vec![Rule::A1, Rule::A4], Seen { quiesce: quiesce(silent(), works(0, 40)), ..good() }),
        (
            "QUIESCE is refused",
            vec![Rule::A4],
            Seen { quiesce: quiesce(Ok(ack(AckState::Failed, 0, 20)), rests(20)), ..good() },
        ),
        ("work before ACTIVE", vec![Rule::A5], Seen { greeting: Some((rests(0), rests(3))), ..good() }),
        ("children", vec![Rule::A6], Seen { leaked: Some(Ok(vec!["sleep".to_owned()])), ..good() }),
        ("an older token", vec![Rule::A3], Seen { older: Some(works(0, 21)), ..good() }),
        ("a token that is not installed", vec![Rule::A3], Seen { stored: vec![(8, Some("7".to_owned()))], ..good() }),
    ];
    for (what, rules, seen) in cases {
        assert_eq!(failed(&seen), rules, "{what}");
    }
}

#[test]
fn what_resumes_or_goes_on_past_the_fence_fails() {
    let stale = |answer, after| Some(Stale { answer, before: Some(21), after });
    assert_eq!(failed(&Seen { stale: stale(works(0, 21), rests(21)), ..good() }), [Rule::A8]);
    assert_eq!(failed(&Seen { stale: stale(Ok(ack(AckState::Failed, 0, 21)), rests(25)), ..good() }), [Rule::A8]);
    let fence = good().fence.expect("a fence");
    let past = Fence { second: works(0, 35), ..fence };
    assert_eq!(failed(&Seen { fence: Some(past), ..good() }), [Rule::A3]);
    let quiesce = good().quiesce.map(|q| Quiesce { installed: Some(Err("lock timeout".to_owned())), ..q });
    assert_eq!(failed(&Seen { quiesce, ..good() }), [Rule::A4], "a transaction is open after QUIESCED");
}

#[test]
fn one_unit_under_way_at_quiesce_is_no_breach() {
    let before = ack(AckState::Started, 1, 20);
    let slow =
        Seen { quiesce: Some(Quiesce { before, answer: silent(), after: rests(21), installed: None }), ..good() };
    assert_eq!(verdict(&slow, Rule::A1), Pass);
}

#[test]
fn without_its_counts_nothing_is_claimed() {
    let blind = |reply: Reply| reply.map(|ack| Ack { progress: None, ..ack });
    let mut seen = good();
    seen.silence = seen.silence.map(|s| Silence { first: blind(s.first), second: blind(s.second) });
    seen.quiesce = seen.quiesce.map(|q| Quiesce {
        before: Ack { progress: None, ..q.before },
        answer: blind(q.answer),
        after: blind(q.after),
        installed: None,
    });
    seen.greeting = seen.greeting.map(|(first, second)| (blind(first), blind(second)));
    seen.stale = seen.stale.map(|s| Stale { answer: blind(s.answer), before: None, after: blind(s.after) });
    seen.fence = None;
    for rule in [Rule::A1, Rule::A3, Rule::A4, Rule::A5, Rule::A8] {
        let findings = judge(&seen);
        let finding = findings.findings.iter().find(|finding| finding.rule == rule).expect("one");
        assert_eq!(finding.verdict, NotCheckable, "{rule:?}");
        assert!(!finding.change.is_empty(), "{rule:?} says what would make it checkable");
    }
}

#[test]
fn a_play_that_broke_off_says_where() {
    let seen = Seen { broke_off: Some("it never started".to_owned()), ..Seen::default() };
    for rule in Rule::ALL.into_iter().filter(|rule| !matches!(rule, Rule::A3 | Rule::A7)) {
        assert_eq!(verdict(&seen, rule), NotCheckable, "{rule:?}");
    }
    assert!(judge(&seen).to_string().contains("it never started"));
}

#[test]
fn a_service_that_was_not_fresh_is_not_judged_by_its_start() {
    assert_eq!(verdict(&Seen { greeting: Some((rests(5), rests(5))), ..good() }, Rule::A5), NotCheckable);
}
