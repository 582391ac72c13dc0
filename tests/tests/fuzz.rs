//! A bounded round of each fuzz target: its committed corpus, then inputs made out of it. And the proof that each property
//! can fail: a mistake that is planted in what it judges is found by the same round.

#![allow(clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::time::Duration;

use handover_agent::balancer::agent_check;
use handover_agent::balancer::haproxy::{state, step};
use handover_agent::core::front::{Target, Wish};
use handover_agent::gate::class::class_of;
use handover_tests::fuzz::gate::world::World;
use handover_tests::fuzz::round::{Bounds, Finding, round};
use handover_tests::fuzz::{self, Outcome, TARGETS};
use http::{HeaderValue, StatusCode, header};

/// Both bound it: on a slow machine the time does, on a fast one it is the same inputs every time.
/// `HANDOVER_FUZZ_SECONDS=N` gives each target that time, whatever it tries in it.
fn bounds(name: &str) -> Bounds {
    match number("HANDOVER_FUZZ_SECONDS") {
        Some(seconds) => Bounds { inputs: u64::MAX, time: Duration::from_secs(seconds) },
        // Real sockets take longer.
        None => Bounds { inputs: if name == "gate" { 4_000 } else { 30_000 }, time: Duration::from_secs(10) },
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// `HANDOVER_FUZZ_SEED=N` tries other inputs.
fn seed() -> u64 {
    number("HANDOVER_FUZZ_SEED").unwrap_or(1)
}

fn holds(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    match round(name, target.property, bounds(name), seed()) {
        Ok(tried) => println!("{name}: {tried} inputs"),
        Err(finding) => panic!("{name}, seed {}: {finding}\nkeep it in tests/fuzz/corpus/{name}", seed()),
    }
}

/// The round finds what is planted, and not with the first best word: the finding breaks the planted code alone.
fn is_found(name: &str, planted: impl Fn(&[u8]) -> Outcome) -> Finding {
    let bounds = Bounds { inputs: u64::MAX, time: Duration::from_secs(60) };
    let finding = round(name, planted, bounds, 1).expect_err("the planted mistake is not found");
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
    assert_eq!((target.property)(&finding.input), Ok(()), "without the mistake it holds");
    finding
}

#[test]
fn what_of_a_requests_head_the_service_gets_is_addressed_and_framed_in_one_way() {
    holds("request_head");
}

#[test]
fn whatever_bytes_a_client_sends_the_service_gets_only_what_was_asked_and_by_the_letter() {
    holds("gate");
}

#[test]
fn whatever_a_service_answers_a_probe_is_read_as_what_it_says() {
    holds("probe_answers");
}

#[test]
fn whatever_two_haproxies_an_operator_and_a_dying_agent_do_the_agent_check_ends_with_what_was_meant() {
    holds("agent_check");
}

#[test]
fn whatever_haproxy_answers_it_is_brought_to_where_it_should_be_or_said_why_not() {
    holds("haproxy");
}

#[test]
fn whatever_rules_are_written_they_take_what_their_words_say() {
    holds("route_rules");
}

#[test]
fn a_field_of_the_clients_connection_that_is_passed_on_is_found() {
    let subject = fuzz::request_head::Subject {
        passed: |passage, head| {
            let kept = head.headers.get(header::UPGRADE).cloned();
            passage.of(head).map(|(mut head, id)| {
                head.headers.extend(kept.map(|kept| (header::UPGRADE, kept)));
                (head, id)
            })
        },
    };
    let finding = is_found("request_head", |data| fuzz::request_head::check(data, &subject));
    assert!(finding.why.contains("upgrade") || finding.why.contains("switch"), "{finding}");
}

#[test]
fn a_second_framing_is_found() {
    let subject = fuzz::request_head::Subject {
        passed: |passage, head| {
            passage.of(head).map(|(mut head, id)| {
                if head.headers.contains_key(header::CONTENT_LENGTH) {
                    head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
                }
                (head, id)
            })
        },
    };
    let finding = is_found("request_head", |data| fuzz::request_head::check(data, &subject));
    assert!(finding.why.contains("two framings"), "{finding}");
}

#[test]
fn a_gate_that_passes_every_byte_as_it_is_is_found() {
    let world = std::cell::RefCell::new(World::with_relay().expect("a relay"));
    let finding = is_found("gate", |data| fuzz::gate::check(data, &mut world.borrow_mut()));
    assert!(finding.why.contains("two ways") || finding.why.contains("nobody sent"), "{finding}");
}

#[test]
fn a_probe_that_takes_any_status_is_found() {
    let subject = fuzz::probe_answers::Subject {
        judged: |check, _, body| handover_agent::probe::judged(check, StatusCode::OK, body),
        ..fuzz::probe_answers::REAL
    };
    is_found("probe_answers", |data| fuzz::probe_answers::check(data, &subject));
}

#[test]
fn jobs_that_are_none_when_nothing_is_said_are_found() {
    let subject = fuzz::probe_answers::Subject {
        counted: |settings, status, body| {
            let counted = handover_agent::probe::jobs::counted(settings, status, body);
            Ok(counted.unwrap_or((0, Duration::ZERO)))
        },
        ..fuzz::probe_answers::REAL
    };
    is_found("probe_answers", |data| fuzz::probe_answers::check(data, &subject));
}

#[test]
fn a_constant_ready_that_undoes_an_operators_drain_is_found() {
    let subject =
        fuzz::agent_check::Subject { answer: |wish, _| agent_check::answer(wish, true), ..fuzz::agent_check::REAL };
    let finding = is_found("agent_check", |data| fuzz::agent_check::check(data, &subject));
    assert!(finding.why.contains("operator"), "{finding}");
}

#[test]
fn an_agent_that_never_undoes_its_drain_is_found() {
    let subject =
        fuzz::agent_check::Subject { answer: |wish, _| agent_check::answer(wish, false), ..fuzz::agent_check::REAL };
    is_found("agent_check", |data| fuzz::agent_check::check(data, &subject));
}

#[test]
fn a_name_that_is_guessed_is_found() {
    let subject = fuzz::agent_check::Subject {
        asked: |sent, wishes| agent_check::asked(sent, wishes).or_else(|| wishes.keys().next().cloned()),
        ..fuzz::agent_check::REAL
    };
    let finding = is_found("agent_check", |data| fuzz::agent_check::check(data, &subject));
    assert!(finding.why.contains(&format!("{:?}", Target::Slot("a".parse().expect("a slot")))), "{finding}");
}

#[test]
fn columns_that_are_taken_by_their_places_are_found() {
    let by_place = |answer: &str| {
        let head = "# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight";
        let rows = answer.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
        state::servers(answer).and_then(|_| state::servers(&format!("{head}\n{rows}\n")))
    };
    let subject = fuzz::haproxy::Subject { servers: by_place, ..fuzz::haproxy::REAL };
    is_found("haproxy", |data| fuzz::haproxy::check(data, &subject));
}

#[test]
fn an_order_that_ends_an_operators_maintenance_is_found() {
    let subject = fuzz::haproxy::Subject {
        step: |wish, server, ours| match (wish, server.in_maintenance()) {
            (Wish::Serve { .. }, true) => step::Step::Say(ours, step::Order::Ready),
            _ => step::step(wish, server, ours),
        },
        ..fuzz::haproxy::REAL
    };
    let finding = is_found("haproxy", |data| fuzz::haproxy::check(data, &subject));
    assert!(finding.why.contains("operator") || finding.why.contains("changes nothing"), "{finding}");
}

#[test]
fn a_rule_that_takes_a_path_below_its_own_is_found() {
    let subject = fuzz::route_rules::Subject {
        class_of: |rules, method, path| class_of(rules, method, path.trim_end_matches(['/', 's'])),
    };
    is_found("route_rules", |data| fuzz::route_rules::check(data, &subject));
}
