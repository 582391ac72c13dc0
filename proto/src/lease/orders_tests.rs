//! The roster, and what coordinator and operators write.

use std::collections::BTreeSet;

use super::txn_tests::{TinyStore, candidate, held_by_1, keys, owner, turn};
use super::*;
use crate::ids::{AgentId, OpId};
use crate::numbers::{Era, MAX_ERA};

fn order(asserting: Option<Assertion>) -> BreakGlass {
    BreakGlass { by: "ann".into(), second: "bob".into(), because: "its rack burns".into(), asserting }
}

fn listed(store: &TinyStore) -> BTreeSet<AgentId> {
    store.view().roster.map(|roster| roster.value.agents).unwrap_or_default()
}

fn agents(all: &[u8]) -> BTreeSet<AgentId> {
    all.iter().map(|n| owner(*n).agent).collect()
}

#[test]
fn the_first_turn_comes_with_a_roster_of_its_agent_and_the_candidates() {
    let mut store = TinyStore::default();
    store.put(keys().candidate(&owner(2).instance), &candidate(2, 22, None), 22);
    let first = owner(1);
    assert!(store.apply(&acquire(&keys(), &store.view(), &turn(&first, 11)).expect("free")));
    assert_eq!(listed(&store), agents(&[1, 2]));
    assert_eq!(list_agents(&keys(), &store.view(), &first.instance).expect("1 holds"), None, "nothing is missing");
}

#[test]
fn an_agent_that_is_not_in_the_roster_does_not_take_over() {
    let mut store = held_by_1();
    store.expire(11);
    let stranger = owner(9);
    let refused = take_over(&keys(), &store.view(), &turn(&stranger, 99)).expect_err("a stranger");
    assert!(matches!(&refused, Refused::NotListed(agent) if *agent == stranger.agent), "{refused}");
    store.keys.remove(&keys().roster());
    let nobody = take_over(&keys(), &store.view(), &turn(&owner(2), 22));
    assert!(matches!(nobody, Err(Refused::NotListed(_))), "without a roster nobody is listed");
}

#[test]
fn a_take_over_fails_if_the_roster_changed_since_it_was_read() {
    let mut store = held_by_1();
    store.expire(11);
    let txn = take_over(&keys(), &store.view(), &turn(&owner(2), 22)).expect("listed");
    let roster = Roster { v: 1, agents: agents(&[1]), rest: Default::default() };
    store.put(keys().roster(), &roster, 0);
    assert!(!store.apply(&txn));
}

#[test]
fn only_the_present_holder_writes_the_roster_and_only_in_its_own_turn() {
    let mut store = held_by_1();
    assert!(matches!(list_agents(&keys(), &store.view(), &owner(2).instance), Err(Refused::NotHolder(_))));
    store.put(keys().candidate(&owner(3).instance), &candidate(3, 33, None), 33);
    let late = list_agents(&keys(), &store.view(), &owner(1).instance).expect("1 holds").expect("3 is new");
    let mint = mint(&keys(), &store.view(), &turn(&owner(1), 12)).expect("1 holds");
    assert!(store.apply(&mint) && !store.apply(&late), "its turn is over");
}

#[test]
fn a_full_roster_keeps_those_that_have_candidates_and_drops_others() {
    let mut store = held_by_1();
    let many: BTreeSet<AgentId> = (0..MAX_LISTED).map(|n| format!("old-{n}").parse().expect("a name")).collect();
    store.put(keys().roster(), &Roster { v: 1, agents: many, rest: Default::default() }, 0);
    let txn = list_agents(&keys(), &store.view(), &owner(1).instance).expect("1 holds").expect("1 and 2 are missing");
    assert!(store.apply(&txn));
    assert!(listed(&store).len() == MAX_LISTED && listed(&store).is_superset(&agents(&[1, 2])));
}

#[test]
fn breaking_the_glass_takes_two_people_and_a_reason() {
    let store = held_by_1();
    let sole = BreakGlass { second: " Ann ".into(), ..order(Some(Assertion::FenceEnforced)) };
    let nobody = BreakGlass { second: " ".into(), ..order(Some(Assertion::FenceEnforced)) };
    let mute = BreakGlass { because: "  ".into(), ..order(Some(Assertion::FenceEnforced)) };
    for bad in [sole, nobody, mute] {
        let refused = break_glass(&keys(), &store.view(), bad, None, OpId::random(), Stamp::at(2));
        assert!(matches!(refused, Err(Refused::NotTwo(_))), "{refused:?}");
    }
}

#[test]
fn breaking_the_glass_without_an_assertion_needs_the_beat_to_be_gone() {
    let mut store = held_by_1();
    let refused = break_glass(&keys(), &store.view(), order(None), None, OpId::random(), Stamp::at(2));
    assert!(matches!(refused, Err(Refused::Beating)));
    store.expire(11);
    let txn = break_glass(&keys(), &store.view(), order(None), None, OpId::random(), Stamp::at(2)).expect("gone");
    assert!(store.apply(&txn));
}

#[test]
fn two_people_free_the_lease_of_a_live_holder_and_it_stands_who_and_why() {
    let mut store = held_by_1();
    let order = order(Some(Assertion::HostPoweredOff));
    // Neither binds people.
    store.put(keys().freeze(), &1, 0);
    let txn = break_glass(&keys(), &store.view(), order.clone(), None, OpId::random(), Stamp::at(2)).expect("held");
    assert!(store.apply(&txn));
    let view = store.view();
    let holder = view.holder.as_ref().expect("a holder").value.clone();
    assert!(matches!(&holder.state, HolderState::Free(free) if free.stop_proof == StopProof::Operator));
    assert_eq!((holder.cause, view.beat), (LeaseCause::BreakGlass(order), None));
    assert!(!store.apply(&txn), "a repeat fails its compare");
}

#[test]
fn two_people_give_the_lease_to_a_candidate_with_its_own_etcd_lease() {
    let mut store = held_by_1();
    let to = owner(2).instance;
    let order = order(Some(Assertion::FenceEnforced));
    let give = |store: &TinyStore, to| {
        break_glass(&keys(), &store.view(), order.clone(), Some(to), OpId::random(), Stamp::at(2))
    };
    let stranger = owner(9).instance;
    assert!(matches!(give(&store, &stranger), Err(Refused::NoCandidate(_))));
    let before = store.view().token().expect("fits");
    let txn = give(&store, &to).expect("a candidate");
    assert!(store.apply(&txn));
    let view = store.view();
    view.check().expect("written together");
    assert!(
        view.holder.as_ref().is_some_and(|holder| holder.value.is_held_by(&to)) && view.token().expect("fits") > before
    );
    assert_eq!(view.beat.expect("a beat").lease, 22);
}

#[test]
fn the_era_only_goes_up_and_takes_two_people() {
    let mut store = held_by_1();
    let raise = |store: &TinyStore, era, who| raise_era(&keys(), &store.view(), Era(era), who);
    assert!(matches!(raise(&store, 1, ("ann", "ann", "restored")), Err(Refused::NotTwo(_))));
    assert!(matches!(raise(&store, 0, ("ann", "bob", "restored")), Err(Refused::NoHigherEra { present: 0, asked: 0 })));
    for above in [MAX_ERA + 1, u16::MAX] {
        let refused = raise(&store, above, ("ann", "bob", "restored")).expect_err("no token could be made of it");
        assert!(matches!(refused, Refused::EraTooHigh(era) if era == above) && refused.to_string().contains("32767"));
    }
    raise(&store, MAX_ERA, ("ann", "bob", "restored")).expect("it fits");
    let (first, second) = (raise(&store, 1, ("ann", "bob", "restored")), raise(&store, 2, ("eve", "bob", "restored")));
    assert!(store.apply(&first.expect("higher")) && !store.apply(&second.expect("higher, as it was read")));
    assert_eq!(store.view().era.0, Era(1));
    let value: EraValue = serde_json::from_slice(&store.keys[&keys().era()].0).expect("readable");
    assert_eq!((value.by.as_deref(), value.because.as_deref()), (Some("ann"), Some("restored")));
}

#[test]
fn an_era_that_nobody_can_read_is_replaced_by_the_one_after_the_last_turns() {
    let mut store = held_by_1();
    let raise = |store: &TinyStore, era, who| raise_era(&keys(), &store.view(), Era(era), who);
    assert!(store.apply(&raise(&store, 3, ("ann", "bob", "restored")).expect("higher")));
    let readable = store.view();
    let (written, who) = (readable.era.1, ("ann", "bob", "a slip of the hand"));
    assert!(matches!(mend_era(&keys(), &readable, written, ("ann", "ANN", "why")), Err(Refused::NotTwo(_))));
    // The holder's turn is still of era 0.
    let (era, txn) = mend_era(&keys(), &readable, written, who).expect("two people");
    assert_eq!((era, after_last_turn(&readable)), (Era(1), Era(1)));
    let late = mend_era(&keys(), &readable, written, who).expect("as it was read").1;
    assert!(store.apply(&txn) && !store.apply(&late), "as the key stood, and once");
    let value: EraValue = serde_json::from_slice(&store.keys[&keys().era()].0).expect("readable");
    assert_eq!((value.era, value.because.as_deref()), (Era(1), Some("a slip of the hand")));
}

#[test]
fn nobody_but_the_holder_is_asked_to_park() {
    let store = held_by_1();
    let (leader, park) = (("leader".to_owned(), 1), |from: u8| Intent {
        v: 1,
        op: OpId::random(),
        kind: IntentKind::Park,
        from: owner(from).instance,
        to: None,
        quiesce_timeout_ms: 1,
        term: Default::default(),
        cause: crate::assignment::Cause { rollout: None, step: 0, plan_hash: String::new() },
    });
    assert!(matches!(ask(&keys(), &store.view(), &park(2), leader.clone()), Err(Refused::NotHolder(_))));
    ask(&keys(), &store.view(), &park(1), leader).expect("1 holds");
    let mut parked = held_by_1();
    parked.put(keys().intent(), &park(1), 0);
    let refused = hand_over(&keys(), &parked.view(), &owner(1).instance, Stamp::at(2));
    assert!(matches!(refused, Err(Refused::NoIntent(_))), "there is nobody to hand over to");
    assert!(parked.view().open_intent().is_some());
    let mint = mint(&keys(), &parked.view(), &turn(&owner(1), 12)).expect("1 holds");
    assert!(parked.apply(&mint) && parked.view().open_intent().is_none(), "it was about the turn before");
}
