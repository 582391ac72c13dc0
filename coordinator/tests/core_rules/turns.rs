//! The lease's history, read from records side by side.

use handover::core::turns::{TurnRecord, dark};
use handover_proto::assignment::Cause;
use handover_proto::lease::{Free, HolderState, LeaseCause, LeaseView, StopProof};

use crate::world::{agent, hold, instance_id, slot, term};

fn lease(holder: u8, revision: i64) -> LeaseView {
    let mut lease = LeaseView::default();
    hold(&mut lease, &agent(holder), "a", "1.0.0", revision);
    lease
}

fn record(lease: &LeaseView, turn: u64) -> TurnRecord {
    let mut holder = lease.holder.clone().expect("a holder");
    holder.value.turn = turn;
    TurnRecord::of(&holder, &[], term())
}

fn handed_over(stopped_ms: Option<u64>) -> (TurnRecord, LeaseView) {
    let mut lease = lease(2, 60);
    let holder = &mut lease.holder.as_mut().expect("a holder").value;
    let asked = Cause { rollout: None, step: 4, plan_hash: String::new() };
    (holder.cause, holder.at_ms, holder.turn) = (LeaseCause::HandOver { asked, term: term() }, 1010, 2);
    holder.stopped_at_ms = stopped_ms;
    (record(&lease, 2), lease)
}

#[test]
fn the_dark_time_counts_from_the_stop_to_the_work() {
    let first = record(&lease(1, 50), 1);
    let (second, mut lease) = handed_over(Some(1000));
    assert_eq!(second.dark_ms(Some(&first)), None, "nobody works yet");
    let heir = lease.candidates.get_mut(&instance_id(&agent(2), &slot("a"))).expect("the heir");
    heir.value.active_at_ms = Some(1044);
    let second = second.seen(&lease, 9999, None);
    assert_eq!((second.active_ms, second.dark_ms(Some(&first))), (Some(1044), Some(44)));
    let (older, _) = handed_over(None);
    assert_eq!(older.seen(&lease, 9999, None).dark_ms(Some(&first)), Some(34), "from the hand-over itself");
    assert_eq!(first.ended_by(&second), "handed over to app-02");
    assert_eq!(second.why(), "handed over (order 4)");
}

#[test]
fn a_loss_counts_from_the_moment_at_which_the_beat_vanished() {
    let mut lost = lease(1, 50);
    lost.beat = None;
    let first = record(&lost, 1).seen(&lost, 2000, Some(1500));
    assert_eq!(first.lost_ms, Some(1500));
    let mut taken = lease(2, 60);
    taken.holder.as_mut().expect("a holder").value.cause = LeaseCause::TakeOver;
    let second = record(&taken, 2).seen(&taken, 13_000, None);
    assert_eq!((second.active_ms, second.dark_ms(Some(&first))), (Some(13_000), Some(11_500)));
    assert_eq!(first.ended_by(&second), "lost; app-02 took over");
}

#[test]
fn across_a_gap_nothing_is_said() {
    let first = record(&lease(1, 50), 1);
    let mut taken = lease(2, 60);
    taken.holder.as_mut().expect("a holder").value.cause = LeaseCause::TakeOver;
    let third = record(&taken, 3).seen(&taken, 5000, None);
    assert_eq!((third.dark_ms(Some(&first)), first.ended_by(&third).as_str()), (None, "not known"));
}

#[test]
fn the_last_number_that_a_turn_can_have_ends_nothing() {
    let last = record(&lease(1, 50), u64::MAX);
    assert_eq!(last.ended_by(&record(&lease(1, 50), 3)), "not known");
    assert_eq!(record(&lease(1, 50), 3).dark_ms(Some(&last)), None);
}

#[test]
fn a_turn_that_is_over_is_not_changed_by_what_the_lease_shows_now() {
    let first = record(&lease(1, 50), 1);
    let (_, later) = handed_over(None);
    assert_eq!(first.seen(&later, 9999, Some(1)), first);
}

#[test]
fn it_is_dark_from_a_release_a_loss_and_until_the_holder_works() {
    assert_eq!(dark(&LeaseView::default(), None, None), None, "it was never held: nobody misses it");
    assert_eq!(dark(&lease(1, 50), None, None), None, "somebody works");
    let mut idle = lease(1, 50);
    idle.candidates.clear();
    assert!(dark(&idle, None, None).is_some_and(|(_, why)| why.contains("does not work")));
    let mut lost = lease(1, 50);
    lost.beat = None;
    assert_eq!(dark(&lost, None, Some(77)).map(|(since, _)| since), Some(77));
    let mut free = lease(1, 50);
    let holder = &mut free.holder.as_mut().expect("a holder").value;
    let last = holder.owner().clone();
    (holder.state, holder.at_ms) = (HolderState::Free(Free { last, stop_proof: StopProof::Dead }), 99);
    free.beat = None;
    assert_eq!(dark(&free, None, None).map(|(since, _)| since), Some(99));
}
