//! Who takes a lost or free lease, when, and who goes first. Plain functions: no runtime, no clock, no network.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

mod lease_bench;

use std::time::Duration;

use handover_agent::lease::certificate::Certificate;
use handover_agent::lease::event::Event;
use handover_agent::lease::record::{Ack, AckState, Told};
use handover_agent::lease::settings::LeaseSettings;
use handover_agent::lease::state::Move;
use handover_agent::lease::step::LeaseStep;
use handover_agent::lease::waiting::Waiting;
use handover_agent::lease::wanted::Life;
use handover_proto::blocker::BlockerKind;
use handover_proto::lease::{Candidate, EraValue, StopProof};
use handover_proto::numbers::Era;
use lease_bench::{Bench, id, keys, ms, owner};

fn moves(bench: &Bench) -> Vec<Move> {
    let kind = |step: &LeaseStep| match step {
        LeaseStep::Move { kind, .. } => Some(*kind),
        _ => None,
    };
    bench.steps.iter().filter_map(kind).collect()
}

/// Instance 9 elsewhere held; its beat is gone, and instance 1 here could take over.
fn lost(prepare: impl FnOnce(&mut Bench)) -> Bench {
    let mut bench = Bench::new();
    let lease = bench.other_holds(9);
    prepare(&mut bench);
    bench.report(1);
    bench.store.revoke(lease);
    bench.settle();
    bench
}

/// How long it takes until instance 1 has taken over; at most 15 s.
fn taken_after(bench: &mut Bench) -> Option<Duration> {
    let begun = bench.now;
    for _ in 0..300 {
        if bench.is_held_by(1) {
            return Some(bench.now.since(begun));
        }
        bench.pass(ms(50));
    }
    None
}

fn certificate(bench: &Bench, proof: StopProof, may_return: bool) -> Certificate {
    let token = bench.view().token().expect("fits").expect("a turn");
    Certificate { token, proof, stopped_at_ms: Some(7), may_return }
}

#[test]
fn an_agent_that_the_roster_does_not_list_never_takes_over() {
    let mut bench = lost(|bench| bench.list(&[2, 9]));
    assert_eq!(taken_after(&mut bench), None);
    assert_eq!(bench.waits, Some(Waiting::NotListed(owner(1).agent)));
    bench.list(&[1, 9]);
    assert!(taken_after(&mut bench).is_some(), "listed, it does");
}

#[test]
fn a_holder_lists_the_agents_of_all_candidates_that_it_sees_and_only_while_it_holds() {
    let listed = |bench: &Bench, n: u8| bench.view().roster.is_some_and(|r| r.value.agents.contains(&owner(n).agent));
    let mut bench = Bench::holding();
    assert!(listed(&bench, 1) && !listed(&bench, 2));
    bench.prepare(2, None);
    assert!(listed(&bench, 1) && listed(&bench, 2));
    let mut other = Bench::new();
    other.other_holds(9);
    other.report(1);
    other.prepare(3, None);
    assert_eq!(other.did("PutRoster"), 0);
}

#[test]
fn the_quarantine_is_long_for_early_revoking_unknown_or_unguarded_stores_and_says_why() {
    let long = LeaseSettings::default().quarantine_of(ms(10_000));
    for (versions, guarded, why) in [
        (&["3.4.23", "3.5.30"][..], true, "3.4.23"),
        (&["3.5.30"][..], false, "handover store setup"),
        (&["odd"][..], true, "not known"),
    ] {
        let mut bench = lost(|bench| bench.members(versions, guarded));
        let Some(Waiting::Quarantine { length, because, .. }) = &bench.waits else { panic!("{:?}", bench.waits) };
        assert!(*length == long && because.contains(why), "{because}");
        let waits = bench.waits.clone().expect("it waits");
        assert!(waits.kind() == BlockerKind::LeaseDark && waits.to_string().contains(why));
        let status = bench.status();
        assert!(status.quarantine.contains("11.1s") && status.quarantine.contains(why), "{}", status.quarantine);
        assert!(["unsafe", "good", "unknown"].iter().any(|word| status.store_versions.starts_with(word)));
        assert_eq!(taken_after(&mut bench), Some(ms(11_100)));
    }
}

#[test]
fn the_quarantine_is_a_second_where_members_keep_leases_and_only_agents_can_end_them() {
    let mut bench = lost(|bench| bench.members(&["3.5.30", "3.5.13", "3.6.1"], true));
    assert_eq!((taken_after(&mut bench), moves(&bench)), (Some(ms(1_000)), vec![Move::TakeOver]));
}

#[test]
fn a_quarantine_of_the_config_is_never_made_shorter_by_versions() {
    let settings = LeaseSettings { quarantine: Some(ms(12_000)), ..LeaseSettings::default() };
    let mut bench = Bench::with(settings, Default::default(), None);
    let lease = bench.other_holds(9);
    bench.members(&["3.5.30"], true);
    bench.report(1);
    bench.store.revoke(lease);
    bench.settle();
    assert_eq!(taken_after(&mut bench), Some(ms(12_000)));
}

#[test]
fn a_certificate_that_the_process_is_dead_ends_the_quarantine_at_once() {
    let mut bench = lost(|_| {});
    assert!(bench.did("AskCertificate") == 1 && !bench.is_held_by(1), "it was asked for, and not to be had");
    bench.certificate = Some(certificate(&bench, StopProof::Dead, false));
    let after = taken_after(&mut bench).expect("taken");
    assert!(after <= ms(500), "at the next question: {after:?}");
    assert_eq!(bench.view().holder.expect("held").value.stopped_at_ms, Some(7), "as the certificate says");
}

#[test]
fn a_certificate_about_another_token_ends_no_quarantine() {
    let mut bench = lost(|_| {});
    let old = certificate(&bench, StopProof::Dead, false);
    let newer = handover_proto::numbers::Token::from_wire(old.token.get() + 1);
    bench.certificate = Some(Certificate { token: newer, ..old });
    assert_eq!(taken_after(&mut bench), Some(ms(11_100)));
}

#[test]
fn only_those_that_could_take_over_ask_for_a_certificate_and_only_in_the_quarantine() {
    let mut idle = Bench::new();
    let lease = idle.other_holds(9);
    idle.report_as(1, |local| local.eligible = false);
    idle.store.revoke(lease);
    idle.pass(ms(3_000));
    assert_eq!(idle.did("AskCertificate"), 0);
    let mut calm = Bench::new();
    calm.other_holds(9);
    calm.report(1);
    calm.pass(ms(3_000));
    assert_eq!(calm.did("AskCertificate"), 0, "the holder beats");
}

#[test]
fn a_last_holder_that_is_back_goes_first_for_two_seconds_and_not_longer() {
    let mut bench = lost(|bench| bench.members(&["3.5.30"], true));
    bench.prepare(9, None);
    let after = taken_after(&mut bench).expect("taken");
    assert_eq!(after, ms(2_000), "its candidate key shows that it is back");

    let mut certified = lost(|_| {});
    certified.certificate = Some(certificate(&certified, StopProof::Quiesced, true));
    certified.pass(ms(600));
    assert_eq!(certified.waits, Some(Waiting::FirstRefusal));
    assert_eq!(taken_after(&mut certified), Some(ms(1_400)));
}

#[test]
fn the_lower_rank_goes_first_and_among_equals_the_agents_name() {
    let order = |rank: u32, other: u8, other_rank: u32| {
        let mut bench = Bench::new();
        let mut candidate = bench.candidate(other);
        candidate.rank = other_rank;
        bench.offer(&candidate);
        bench.report_as(5, |local| local.rank = rank);
        bench.waits.clone()
    };
    assert_eq!(order(0, 2, 1), None, "better rank");
    assert_eq!(order(1, 2, 0), Some(Waiting::Courtesy(id(2))));
    assert_eq!(order(0, 9, 0), None, "app-5 before app-9");
    assert_eq!(order(0, 2, 0), Some(Waiting::Courtesy(id(2))), "app-2 before app-5");
}

#[test]
fn each_one_before_it_gets_a_second_and_one_that_is_not_ready_none() {
    let mut bench = Bench::new();
    for n in [2, 3] {
        let candidate = bench.candidate(n);
        bench.offer(&candidate);
    }
    let mut unready = bench.candidate(4);
    unready.ready = false;
    bench.offer(&unready);
    bench.report(5);
    bench.pass(ms(1_950));
    assert!(moves(&bench).is_empty());
    bench.pass(ms(50));
    assert_eq!(moves(&bench), [Move::Acquire]);
}

#[test]
fn candidates_tell_rank_rho_version_and_since_when_they_work() {
    let mut bench = Bench::new();
    bench.report_as(1, |local| local.rank = 3);
    let candidate = bench.view().candidates[&id(1)].value.clone();
    assert_eq!((candidate.rank, candidate.rho_ppm, candidate.ttl_s), (3, Some(85_000), 10));
    assert!(!candidate.agent_version.is_empty() && candidate.active.is_some() && candidate.active_at_ms.is_some());
    bench.steps.clear();
    bench.pass(ms(5_000));
    assert_eq!(bench.did("PutCandidate"), 0, "it is written once");
}

#[test]
fn whoever_differs_from_the_holder_in_ttl_or_rho_stands_back_and_says_the_numbers() {
    for (differ, ttl, numbers) in [
        ((|candidate| candidate.rho_ppm = Some(1_000)) as fn(&mut Candidate), 10, "rho 0.001"),
        (|candidate| candidate.ttl_s = 20, 20, "ttl 20 s"),
    ] {
        let mut bench = Bench::new();
        let lease = bench.other_holds(9);
        let mut holder = bench.candidate(9);
        differ(&mut holder);
        assert_eq!(holder.ttl_s, ttl);
        bench.offer(&holder);
        bench.report(1);
        assert!(!bench.view().candidates[&id(1)].value.ready, "K7 holds for hand-overs too");
        bench.store.revoke(lease);
        bench.pass(ms(15_000));
        assert!(moves(&bench).is_empty());
        let waits = bench.waits.clone().expect("it waits");
        assert!(matches!(waits, Waiting::Unequal { .. }) && waits.kind() == BlockerKind::Operator, "{waits:?}");
        assert!(waits.to_string().contains(numbers) && waits.to_string().contains("K7"), "{waits}");
    }
}

#[test]
fn without_a_holder_the_first_ready_candidate_says_what_equal_means() {
    let mut bench = Bench::new();
    let mut later = bench.candidate(9);
    later.ttl_s = 20;
    bench.offer(&later);
    bench.report(5);
    assert!(bench.is_held_by(5), "app-5 is before app-9");
}

fn reports_stored(bench: &mut Bench, stored: i64) {
    let mut event = bench.ack(id(1), &bench.last_call(1), AckState::Quiesced);
    if let Event::Answered { result: Ok(ack), .. } = &mut event {
        *ack = Ack { stored_token: Some(stored.to_string()), ..ack.clone() };
    }
    bench.hear(event);
}

#[test]
fn a_database_that_has_seen_a_higher_token_keeps_its_instance_from_taking() {
    let mut bench = Bench::new();
    bench.obeys = None;
    bench.report(1);
    reports_stored(&mut bench, 1_000_000);
    let waits = bench.waits.clone().expect("it waits");
    assert!(matches!(waits, Waiting::FenceRegression { .. }) && moves(&bench).is_empty(), "{waits:?}");
    assert_eq!(waits.kind(), BlockerKind::FenceRegression);
    assert!(waits.to_string().contains("above 0: `handover lease era --raise "), "{waits}");
    bench.obeys = Some(AckState::Quiesced);
    bench.put(keys().era(), &EraValue::of(Era(1)), 0);
    bench.pass(ms(12_000));
    assert_eq!(bench.told(1), Told::Active, "a token of the new era is above it");
}

#[test]
fn a_turn_whose_token_the_database_has_seen_already_never_becomes_active() {
    let mut bench = Bench::new();
    let lease = bench.other_holds(9);
    bench.report(1);
    bench.obeys = None;
    bench.store.revoke(lease);
    bench.pass(ms(300));
    // Not above anything that is known yet, but above the turn to come.
    let next = bench.store.revision + 1;
    let call = bench.last_call(1);
    assert_eq!(call.told, Told::Stopped);
    bench.change(1, |local| local.ready = false);
    bench.change(1, |local| local.ready = true);
    bench.certificate = Some(certificate(&bench, StopProof::Dead, false));
    bench.pass(ms(600));
    assert_eq!((moves(&bench), bench.told(1)), (vec![Move::TakeOver], Told::Active));
    assert!(bench.published(1).token.is_some_and(|token| token.get() >= next));
    // Its own token in the database is no regression; a higher one is.
    let token = bench.published(1).token.expect("a token").get();
    for (stored, told) in [(token, Told::Active), (token + 1, Told::Quiesce)] {
        let mut event = bench.ack(id(1), &bench.last_call(1), AckState::Started);
        if let Event::Answered { result: Ok(ack), .. } = &mut event {
            ack.stored_token = Some(stored.to_string());
        }
        bench.hear(event);
        assert_eq!(bench.told(1), told, "{stored}");
        bench.pass(ms(1_100));
    }
    assert!(matches!(bench.waits, Some(Waiting::FenceRegression { .. } | Waiting::Quiesce(_))), "{:?}", bench.waits);
}

#[test]
fn a_holder_key_that_was_deleted_proves_nothing_and_is_waited_for() {
    let mut bench = Bench::new();
    bench.other_holds(9);
    bench.report(1);
    bench.delete(keys().beat());
    bench.delete(keys().holder());
    bench.pass(ms(11_000));
    assert!(moves(&bench).is_empty() && matches!(bench.waits, Some(Waiting::Unproven(_))), "{:?}", bench.waits);
    bench.pass(ms(200));
    assert_eq!(moves(&bench), [Move::Acquire]);
}

#[test]
fn a_dead_process_is_released_with_the_moment_of_its_death() {
    let mut bench = Bench::holding();
    bench.wall_ms = 50_000;
    bench.change(1, |local| local.life = Life::Dead { proven: true });
    let holder = bench.view().holder.expect("free").value;
    assert_eq!((holder.at_ms, holder.stopped_at_ms), (50_000, Some(50_000)));
}
