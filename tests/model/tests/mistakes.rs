//! Every mistake that is planted into the rules leads to a run that breaks its invariant. That the same configuration
//! breaks nothing without the mistake is what `proof.rs` shows of each.
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on ends")]

use handover_model::configs;
use handover_model::mistake::Mistake;
use handover_model::rules::Rules;
use handover_model::tale;
use stateright::{Checker, Model};

fn is_caught(mistake: Mistake) {
    let config = mistake.config();
    assert!(configs::ALL.iter().any(|known| known.name == config.name), "the proof explores {}", config.name);
    assert!(config.claimed().any(|claimed| claimed == mistake.breaks()), "the proof claims {:?}", mistake.breaks());
    let rules = Rules::mistaken(mistake);
    let checker = rules.clone().checker().threads(1).spawn_bfs().join();
    let path = checker.discovery(mistake.breaks().name());
    let Some(path) = path else {
        panic!("{} broke nothing in {} states", mistake.name(), checker.unique_state_count())
    };
    let end = *path.last_state();
    assert!(!mistake.breaks().holds(&end), "the run ends where the invariant is broken");
    println!("{} breaks {:?}:\n{}", mistake.name(), mistake.breaks(), tale::tell(&rules, &path.into_actions()));
}

macro_rules! caught {
    ($($test:ident: $mistake:ident,)*) => {
        $(#[test] fn $test() { is_caught(Mistake::$mistake); })*

        #[test]
        fn no_mistake_is_left_out() {
            let tested = [$(Mistake::$mistake),*];
            assert!(Mistake::ALL.iter().all(|mistake| tested.contains(mistake)));
        }
    };
}

caught! {
    a_restarted_service_that_keeps_its_token_charges_a_tick_twice: SameToken,
    a_deadline_counted_from_the_answer_lets_two_work: ReceiptTime,
    a_renewal_without_a_barrier_lets_two_work: NoBarrier,
    a_barrier_without_a_look_at_the_term_lets_two_work: NoTermCheck,
    a_deadline_from_the_ttl_that_was_asked_for_lets_two_work: RequestedTtl,
    a_late_answer_taken_for_a_newer_request_s_lets_two_work: LateReply,
    a_taker_that_does_not_wait_works_beside_the_holder: NoQuarantine,
    a_quarantine_counted_from_the_event_s_stamp_is_too_short: EventStamp,
    a_hand_over_before_quiesced_gives_a_working_turn_away: EarlyHandOver,
    a_hand_over_that_does_not_compare_the_successor_s_lease_binds_the_beat_to_a_lease_nobody_renews: NoLeaseCompare,
    a_token_from_the_create_revision_never_grows: CreateRevision,
    a_start_before_the_install_is_seen: StartBeforeInstall,
    a_key_share_lock_lets_an_old_token_commit: KeyShare,
    a_check_outside_of_the_transaction_lets_an_old_token_commit: CheckOutside,
    a_sigterm_is_not_a_stop: SigtermIsStop,
    a_dead_main_process_is_not_a_stop: MainPidIsAll,
    an_unknown_outcome_is_not_a_failure: UnknownIsFailure,
    a_restarted_agent_that_counts_from_now_lets_two_work: BaseFromNow,
    a_clock_that_stands_still_in_suspend_lets_two_work: MonotonicClock,
    without_the_margin_for_clock_rates_two_work: NoRateMargin,
    holder_and_beat_written_apart_are_seen: TwoWrites,
    a_coordinator_that_moves_the_lease_is_seen: CoordinatorMoves,
    a_restored_store_that_is_believed_gives_a_token_twice: NoEra,
    a_quarantine_that_is_a_tick_short_lets_two_work: ShortQuarantine,
    a_certificate_that_binds_nobody_lets_two_work: EmptyCertificate,
    a_taker_that_does_not_wait_is_seen: NoQuarantineAtAll,
}

#[test]
fn a_mistake_is_known_by_its_name() {
    assert!(Mistake::ALL.iter().all(|mistake| mistake.name().parse() == Ok(*mistake)));
    let error = "no-such".parse::<Mistake>().expect_err("no such mistake").to_string();
    assert!(error.contains("late-reply"), "{error}");
}
