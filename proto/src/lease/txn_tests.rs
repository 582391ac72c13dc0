use std::collections::BTreeMap;

use super::*;
use crate::assignment::Cause;
use crate::ids::{AgentId, Env, InstanceId, OpId};
use crate::keys::{EnvKeys, LeaseKeys};
use crate::numbers::{Era, Term};
use crate::stored::{Rest, STORED_VERSION, encode};
use crate::txn::{Cmp, LeaseId, Op, Revision, Txn};

/// As much of etcd as a transaction needs; the contract suite of `handover-store` holds the real ones to the same.
#[derive(Default, Clone)]
pub(super) struct TinyStore {
    revision: Revision,
    pub(super) keys: BTreeMap<String, (Vec<u8>, Revision, Revision, LeaseId)>,
}

impl TinyStore {
    fn holds(&self, cmp: &Cmp) -> bool {
        match cmp {
            Cmp::ModRevision(key, n) => self.keys.get(key).map_or(0, |k| k.1) == *n,
            Cmp::CreateRevision(key, n) => self.keys.get(key).map_or(0, |k| k.2) == *n,
            Cmp::Lease(key, lease) => self.keys.get(key).is_some_and(|k| k.3 == *lease),
            Cmp::Value(key, value) => self.keys.get(key).is_some_and(|k| k.0 == *value),
        }
    }

    pub(super) fn apply(&mut self, txn: &Txn) -> bool {
        if !txn.cmp.iter().all(|cmp| self.holds(cmp)) {
            return false;
        }
        self.revision += 1;
        for op in &txn.then {
            match op {
                Op::Put { key, value, lease } => {
                    let created = self.keys.get(key).map_or(self.revision, |k| k.2);
                    self.keys.insert(key.clone(), (value.clone(), self.revision, created, *lease));
                }
                Op::Delete(key) => drop(self.keys.remove(key)),
                Op::Get(_) => {}
            }
        }
        true
    }

    pub(super) fn expire(&mut self, lease: LeaseId) {
        self.revision += 1;
        self.keys.retain(|_, k| k.3 != lease);
    }

    pub(super) fn view(&self) -> LeaseView {
        let mut view = LeaseView::default();
        for (key, (value, modified, created, lease)) in &self.keys {
            let raw = RawEntry { value, mod_revision: *modified, create_revision: *created, lease: *lease };
            view.put(&keys(), key, Some(raw)).expect("our own values");
        }
        view
    }

    pub(super) fn put<T: serde::Serialize>(&mut self, key: String, value: &T, lease: LeaseId) {
        let then = vec![Op::put_with_lease(key, encode(value).expect("json"), lease)];
        assert!(self.apply(&Txn { then, ..Txn::default() }));
    }
}

pub(super) fn keys() -> LeaseKeys {
    let env: Env = "test".parse().expect("env");
    EnvKeys::new(&env).service(&"billing".parse().expect("service")).lease()
}

pub(super) fn owner(n: u8) -> Owner {
    let agent: AgentId = format!("app-{n}").parse().expect("agent");
    Owner {
        instance: format!("{n:016x}").parse().expect("instance"),
        agent,
        host: format!("host-{n}"),
        boot_id: "boot".into(),
        version: "1.0.0".parse().expect("version"),
    }
}

pub(super) fn turn(owner: &Owner, lease_id: LeaseId) -> Turn<'_> {
    Turn { owner, lease_id, ttl_s: 10, op: OpId::random(), stamp: Stamp::at(1) }
}

pub(super) fn candidate(n: u8, lease_id: LeaseId, prepared_for: Option<OpId>) -> Candidate {
    Candidate {
        v: STORED_VERSION,
        owner: owner(n),
        lease_id,
        ttl_s: 10,
        ready: true,
        serving: false,
        prepared_for,
        declined: None,
        active: None,
        active_at_ms: None,
        rank: 0,
        rho_ppm: None,
        agent_version: String::new(),
        stored_token: None,
        rest: Rest::new(),
    }
}

fn intent(from: u8, to: u8) -> Intent {
    Intent {
        v: STORED_VERSION,
        op: OpId::random(),
        kind: IntentKind::Handoff,
        from: owner(from).instance,
        to: Some(owner(to).instance),
        quiesce_timeout_ms: 30_000,
        term: Term::new(Era(0), 1).expect("term"),
        cause: Cause { rollout: None, step: 0, plan_hash: String::new() },
    }
}

/// A store in which 1 holds under etcd lease 11, and 2 is a candidate under 22.
pub(super) fn held_by_1() -> TinyStore {
    let mut store = TinyStore::default();
    let first = owner(1);
    let txn = acquire(&keys(), &store.view(), &turn(&first, 11)).expect("free");
    assert!(store.apply(&txn));
    store.put(keys().candidate(&owner(2).instance), &candidate(2, 22, None), 22);
    let listed = list_agents(&keys(), &store.view(), &first.instance).expect("1 holds").expect("2 is new");
    assert!(store.apply(&listed));
    store
}

/// The same, with an intent 1 -> 2 for which 2 has prepared.
pub(super) fn prepared() -> (TinyStore, Intent) {
    let mut store = held_by_1();
    let wish = intent(1, 2);
    store.put("leader".into(), &1, 0);
    let leader = store.keys["leader"].2;
    let txn = ask(&keys(), &store.view(), &wish, ("leader".into(), leader)).expect("1 holds");
    assert!(store.apply(&txn));
    store.put(keys().candidate(&owner(2).instance), &candidate(2, 22, Some(wish.op.clone())), 22);
    (store, wish)
}

pub(super) fn holder(store: &TinyStore) -> InstanceId {
    store.view().holder.expect("a holder key").value.owner().instance.clone()
}

#[test]
fn the_first_to_acquire_wins_and_the_second_writes_nothing() {
    let mut store = TinyStore::default();
    let view = store.view();
    let (one, two) = (owner(1), owner(2));
    let first = acquire(&keys(), &view, &turn(&one, 11)).expect("free");
    let second = acquire(&keys(), &view, &turn(&two, 22)).expect("free, as far as this view shows");
    assert!(store.apply(&first));
    assert!(!store.apply(&second));
    assert_eq!(holder(&store), one.instance);
    assert!(matches!(acquire(&keys(), &store.view(), &turn(&two, 22)), Err(Refused::Held(_))));
}

#[test]
fn a_hand_over_moves_holder_and_beat_in_one_revision_and_a_repeat_does_nothing() {
    let (mut store, wish) = prepared();
    let before = store.view().token().expect("fits").expect("held");
    let txn = hand_over(&keys(), &store.view(), &owner(1).instance, Stamp::at(2)).expect("prepared");
    assert!(store.apply(&txn));
    let view = store.view();
    assert_eq!(holder(&store), owner(2).instance);
    view.check().expect("holder and beat were written together");
    assert_eq!(view.beat.as_ref().expect("beat").lease, 22, "the beat is bound to the successor's lease");
    assert!(view.token().expect("fits").expect("held") > before);
    assert_eq!(view.holder.as_ref().expect("holder").value.op, wish.op);
    assert!(view.open_intent().is_none(), "the intent is consumed");
    assert!(!store.apply(&txn), "a repeat fails its compare");
}

#[test]
fn a_hand_over_is_refused_unless_its_successor_has_prepared_for_this_very_intent() {
    let (mut store, _) = prepared();
    store.put(keys().candidate(&owner(2).instance), &candidate(2, 22, Some(OpId::random())), 22);
    let refused = hand_over(&keys(), &store.view(), &owner(1).instance, Stamp::at(2));
    assert!(matches!(refused, Err(Refused::Unprepared(_))));
}

#[test]
fn a_hand_over_fails_whole_if_the_successor_lost_its_etcd_lease_meanwhile() {
    let (mut store, wish) = prepared();
    let txn = hand_over(&keys(), &store.view(), &owner(1).instance, Stamp::at(2)).expect("prepared");
    store.expire(22);
    assert!(!store.apply(&txn));
    // Even when it is back with a new lease: the beat would be bound to the dead one.
    store.put(keys().candidate(&owner(2).instance), &candidate(2, 23, Some(wish.op)), 23);
    assert!(!store.apply(&txn));
    assert_eq!(holder(&store), owner(1).instance);
}

#[test]
fn nobody_but_the_holder_hands_over_releases_or_mints() {
    let (store, _) = prepared();
    let stranger = owner(2);
    assert!(matches!(hand_over(&keys(), &store.view(), &stranger.instance, Stamp::at(2)), Err(Refused::NotHolder(_))));
    let released = release(&keys(), &store.view(), &stranger.instance, StopProof::Dead, OpId::random(), Stamp::at(2));
    assert!(matches!(released, Err(Refused::NotHolder(_))));
    assert!(matches!(mint(&keys(), &store.view(), &turn(&stranger, 22)), Err(Refused::NotHolder(_))));
}

#[test]
fn a_release_keeps_who_held_and_how_it_ended_and_frees_at_once() {
    let mut store = held_by_1();
    let txn = release(&keys(), &store.view(), &owner(1).instance, StopProof::Dead, OpId::random(), Stamp::at(2))
        .expect("held");
    assert!(store.apply(&txn));
    let view = store.view();
    let Some(HolderState::Free(free)) = view.holder.as_ref().map(|seen| seen.value.state.clone()) else {
        panic!("not free: {view:?}");
    };
    assert_eq!((free.last, free.stop_proof), (owner(1), StopProof::Dead));
    assert!(view.beat.is_none());
    assert!(store.apply(&acquire(&keys(), &view, &turn(&owner(2), 22)).expect("free")));
}

#[test]
fn a_taker_needs_the_beat_to_be_gone_and_loses_against_the_holder_that_comes_back() {
    let mut store = held_by_1();
    let second = owner(2);
    assert!(matches!(take_over(&keys(), &store.view(), &turn(&second, 22)), Err(Refused::Beating)));
    store.expire(11);
    let view = store.view();
    let taken = take_over(&keys(), &view, &turn(&second, 22)).expect("lost");
    let back = mint(&keys(), &view, &turn(&owner(1), 12)).map(|txn| store.apply(&txn));
    assert!(back.expect("still 1's turn"));
    assert!(!store.apply(&taken), "exactly one of them wins");
    assert_eq!(holder(&store), owner(1).instance);
}

#[test]
fn an_intent_that_is_done_does_not_open_again_when_the_turn_that_it_led_to_ends() {
    let (mut store, wish) = prepared();
    let handed = hand_over(&keys(), &store.view(), &owner(1).instance, Stamp::at(2)).expect("prepared");
    assert!(store.apply(&handed) && store.view().open_intent().is_none());
    let second = owner(2).instance;
    let died = release(&keys(), &store.view(), &second, StopProof::Dead, OpId::random(), Stamp::at(3)).expect("held");
    assert!(store.apply(&died));
    let view = store.view();
    assert!(view.holder.as_ref().is_some_and(|seen| seen.value.op != wish.op), "its id stands there no more");
    assert!(view.candidates.contains_key(&second), "the dead one's candidate key has not expired yet");
    assert!(view.open_intent().is_none());
    acquire(&keys(), &view, &turn(&owner(3), 33)).expect("so nobody waits for the dead");
}

#[test]
fn a_freeze_and_an_intent_for_somebody_else_hold_takers_back() {
    let mut store = held_by_1();
    store.expire(11);
    let third = owner(3);
    store.put(keys().candidate(&third.instance), &candidate(3, 33, None), 33);
    let listed = list_agents(&keys(), &store.view(), &owner(1).instance).expect("1's turn").expect("3 is new");
    assert!(store.apply(&listed));
    let before_freeze = take_over(&keys(), &store.view(), &turn(&third, 33)).expect("lost");
    store.put(keys().freeze(), &1, 0);
    assert!(!store.apply(&before_freeze), "the freeze came first");
    assert!(matches!(take_over(&keys(), &store.view(), &turn(&third, 33)), Err(Refused::Frozen)));
    store.keys.remove(&keys().freeze());
    store.put(keys().intent(), &intent(1, 2), 0);
    assert!(matches!(take_over(&keys(), &store.view(), &turn(&third, 33)), Err(Refused::IntentForOther(_))));
    take_over(&keys(), &store.view(), &turn(&owner(2), 22)).expect("the one that it names may");
    let unready = Candidate { ready: false, ..candidate(2, 22, None) };
    let mut other = store.clone();
    other.put(keys().candidate(&owner(2).instance), &unready, 22);
    take_over(&keys(), &other.view(), &turn(&third, 33)).expect("the one that it names is not ready");
    let mut other = store.clone();
    let alone = Roster { v: STORED_VERSION, agents: [third.agent.clone()].into(), rest: Rest::new() };
    other.put(keys().roster(), &alone, 0);
    take_over(&keys(), &other.view(), &turn(&third, 33))
        .expect("the one that it names is not listed, so it never could");
    store.keys.remove(&keys().candidate(&owner(2).instance));
    take_over(&keys(), &store.view(), &turn(&third, 33)).expect("the one that it names is gone");
}

#[test]
fn a_changed_era_stops_every_transaction_that_was_built_before() {
    let (mut store, _) = prepared();
    let view = store.view();
    let me = owner(1);
    let txns = [
        hand_over(&keys(), &view, &me.instance, Stamp::at(2)).expect("prepared"),
        release(&keys(), &view, &me.instance, StopProof::Quiesced, OpId::random(), Stamp::at(2)).expect("held"),
        mint(&keys(), &view, &turn(&me, 11)).expect("held"),
    ];
    store.put(keys().era(), &EraValue::of(Era(1)), 0);
    for txn in txns {
        assert!(!store.clone().apply(&txn));
    }
    assert!(store.apply(&mint(&keys(), &store.view(), &turn(&me, 11)).expect("held")));
    assert_eq!(store.view().token().expect("fits").expect("held").era(), Era(1));
}

#[test]
fn a_deposed_coordinator_cannot_ask() {
    let mut store = held_by_1();
    store.put("leader".into(), &1, 0);
    let old = store.keys["leader"].2;
    let txn = ask(&keys(), &store.view(), &intent(1, 2), ("leader".into(), old)).expect("1 holds");
    store.keys.remove("leader");
    store.put("leader".into(), &2, 0);
    assert!(!store.apply(&txn));
}

#[test]
fn nobody_acts_on_keys_that_contradict_each_other() {
    let mut store = held_by_1();
    store.put(keys().beat(), &Beat { v: 1, instance: owner(1).instance, op: OpId::random() }, 11);
    let view = store.view();
    assert!(matches!(mint(&keys(), &view, &turn(&owner(1), 11)), Err(Refused::Corrupt(_))));
    assert!(matches!(take_over(&keys(), &view, &turn(&owner(2), 22)), Err(Refused::Corrupt(_))));
}

#[test]
fn fields_of_a_newer_writer_survive_a_reader_that_does_not_know_them() {
    let mut value = serde_json::to_value(candidate(1, 11, None)).expect("json");
    value["colour"] = "unknown".into();
    let read: Candidate = serde_json::from_value(value.clone()).expect("reads");
    assert_eq!(serde_json::to_value(read).expect("json"), value);
}

#[test]
fn a_holder_that_is_read_is_written_back_as_it_was() {
    let mut store = held_by_1();
    for _ in 0..2 {
        let holder = store.view().holder.expect("a holder");
        let (stands, revision) = (&store.keys[&keys().holder()].0, store.keys[&keys().holder()].1);
        assert_eq!(&encode(&holder.value).expect("json"), stands, "revision {revision}");
        let view = store.view();
        let txn = release(&keys(), &view, &owner(1).instance, StopProof::Dead, OpId::random(), Stamp::at(3));
        assert!(txn.map(|txn| store.apply(&txn)).unwrap_or(true));
    }
}
