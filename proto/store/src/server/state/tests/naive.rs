//! The state machine against a model that is too simple to be wrong: one list of everything that was ever written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::super::*;
use super::{carry_out, empty};

/// Every write in order; a deletion has no `Kv`.
#[derive(Clone, Default)]
struct Naive {
    log: Vec<(Revision, Key, Option<Kv>)>,
    leases: BTreeMap<LeaseId, (Duration, Duration)>,
    revision: Revision,
    floor: Revision,
}

impl Naive {
    fn current(&self, range: &KeyRange) -> Vec<Kv> {
        let mut last = BTreeMap::new();
        for (_, key, kv) in self.log.iter().filter(|(_, key, _)| range.contains(key)) {
            last.insert(key, kv.as_ref());
        }
        last.into_values().flatten().cloned().collect()
    }

    fn all(&self) -> Vec<Kv> {
        self.current(&KeyRange { start: vec![], end: End::Open })
    }

    fn holds(&self, compare: &Compare) -> bool {
        let found = self.current(&compare.range);
        let sees = |kv: &Kv| {
            let (is, wanted) = match compare.subject {
                Subject::Version(wanted) => (kv.version, wanted),
                Subject::Created(wanted) => (kv.created, wanted),
                Subject::Modified(wanted) => (kv.modified, wanted),
                Subject::Lease(wanted) => (kv.lease, wanted),
                Subject::Value(ref wanted) => (i64::from(kv.value != *wanted), 0),
            };
            match compare.relation {
                Relation::Equal => is == wanted,
                Relation::NotEqual => is != wanted,
                Relation::Less => is < wanted,
                Relation::Greater => is > wanted,
            }
        };
        match (found.as_slice(), &compare.subject) {
            ([], Subject::Value(_)) => false,
            ([], _) => sees(&Kv::default()),
            (found, _) => found.iter().all(sees),
        }
    }

    fn write(&mut self, key: &Key, kv: Option<Kv>) {
        self.log.push((self.revision + 1, key.clone(), kv));
    }

    /// What the operation finds, or a refusal.
    fn op(&mut self, op: &Op, now: Duration) -> Result<Vec<Kv>, Refusal> {
        match op {
            Op::Get(query) => Ok(self.current(&query.range)),
            Op::Delete(delete) => {
                let found = self.current(&delete.range);
                for kv in &found {
                    self.write(&kv.key, None);
                }
                Ok(found)
            }
            Op::Put(put) => {
                let lease = put.lease.unwrap_or(0);
                if lease != 0 && self.leases.get(&lease).is_none_or(|(_, deadline)| *deadline <= now) {
                    return Err(Refusal::LeaseNotFound);
                }
                let found = self.current(&KeyRange { start: put.key.clone(), end: End::Only });
                let modified = self.revision + 1;
                let (created, version) = found.first().map_or((modified, 0), |kv| (kv.created, kv.version));
                let value = put.value.clone().unwrap_or_default();
                let kv = Kv { key: put.key.clone(), value, created, modified, version: version + 1, lease };
                self.write(&put.key, Some(kv));
                Ok(found)
            }
        }
    }

    fn close_revision(&mut self) {
        self.revision = self.log.last().map_or(1, |(revision, _, _)| *revision);
    }

    fn txn(&mut self, txn: &Transaction, now: Duration) -> Result<Found, Refusal> {
        let before = self.clone();
        let succeeded = txn.compares.iter().all(|compare| before.holds(compare));
        let ops = if succeeded { &txn.then } else { &txn.or_else };
        let found = ops.iter().map(|op| self.op(op, now)).collect::<Result<_, _>>();
        match found {
            Ok(found) => {
                self.close_revision();
                Ok((succeeded, found))
            }
            Err(refusal) => {
                *self = before;
                Err(refusal)
            }
        }
    }

    fn end(&mut self, lease: LeaseId) {
        for kv in self.all().into_iter().filter(|kv| kv.lease == lease) {
            self.write(&kv.key, None);
        }
        self.close_revision();
        self.leases.remove(&lease);
    }
}

/// Whether a transaction succeeded, and what each of its operations found.
type Found = (bool, Vec<Vec<Kv>>);

#[derive(Debug, Clone)]
enum Step {
    Do(Request),
    Renew(LeaseId),
    Wait(u64),
    Restart,
}

fn key() -> impl Strategy<Value = Key> {
    "[a-e]".prop_map(String::into_bytes)
}

fn key_range() -> impl Strategy<Value = KeyRange> {
    let end = prop_oneof![Just(End::Only), Just(End::Open), key().prop_map(End::Before)];
    (key(), end).prop_map(|(start, end)| KeyRange { start, end })
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    "[xy]?".prop_map(String::into_bytes)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (key(), value(), 0..4i64).prop_map(|(key, value, lease)| {
            Op::Put(Put { key, value: Some(value), lease: Some(lease), previous: true })
        }),
        1 => key_range().prop_map(|range| Op::Delete(Delete { range, previous: true })),
        1 => key_range().prop_map(|range| Op::Get(super::query(range))),
    ]
}

fn compare() -> impl Strategy<Value = Compare> {
    let relation = prop::sample::select(vec![Relation::Equal, Relation::NotEqual, Relation::Less, Relation::Greater]);
    let number = prop_oneof![
        (0..3i64).prop_map(Subject::Version),
        (0..9i64).prop_map(Subject::Created),
        (0..9i64).prop_map(Subject::Modified),
        (0..4i64).prop_map(Subject::Lease),
    ];
    let equality = prop::sample::select(vec![Relation::Equal, Relation::NotEqual]);
    prop_oneof![
        (key_range(), relation, number).prop_map(|(range, relation, subject)| Compare { range, relation, subject }),
        (key_range(), equality, value().prop_map(Subject::Value)).prop_map(|(range, relation, subject)| Compare {
            range,
            relation,
            subject
        }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let ops = || prop::collection::vec(op(), 0..4);
    prop_oneof![
        6 => (prop::collection::vec(compare(), 0..3), ops(), ops()).prop_map(|(compares, then, or_else)| {
            Step::Do(Request::Txn(Transaction { compares, then, or_else }))
        }),
        2 => (1..4i64, 2..9u64).prop_map(|(id, ttl)| Step::Do(Request::Grant { id, ttl: Duration::from_secs(ttl) })),
        1 => (1..4i64).prop_map(|id| Step::Do(Request::Revoke(id))),
        1 => (1..4i64).prop_map(|id| Step::Do(Request::Expire(id))),
        1 => (1..20i64).prop_map(|revision| Step::Do(Request::Compact(revision))),
        1 => (1..4i64).prop_map(Step::Renew),
        1 => (0..5u64).prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

/// What the disk would hold: a fold over the effects, as in `disk.rs`.
#[derive(Default)]
struct Shelf {
    revision: Revision,
    floor: Revision,
    keys: BTreeMap<Key, Kv>,
    leases: BTreeMap<LeaseId, Duration>,
    history: BTreeMap<Revision, Vec<Event>>,
}

impl Shelf {
    fn write(&mut self, effects: &Effects) {
        (self.revision, self.floor) = (effects.revision, effects.floor);
        for event in &effects.events {
            if event.deleted {
                self.keys.remove(&event.kv.key);
            } else {
                self.keys.insert(event.kv.key.clone(), Kv::clone(&event.kv));
            }
        }
        self.leases.extend(effects.granted);
        effects.ended.map(|id| self.leases.remove(&id));
        if !effects.events.is_empty() {
            self.history.insert(effects.revision, effects.events.clone());
        }
        self.history.retain(|revision, _| *revision >= effects.floor);
    }

    fn load(&self) -> Stored {
        Stored {
            revision: self.revision,
            floor: self.floor,
            keys: self.keys.values().cloned().collect(),
            leases: self.leases.iter().map(|(id, ttl)| (*id, *ttl)).collect(),
            history: self.history.clone().into_iter().collect(),
        }
    }
}

/// Takes the step in the model; gives what the state machine must say to it.
fn expected(naive: &mut Naive, request: &Request, now: Duration) -> Result<Option<Found>, Refusal> {
    match request {
        Request::Txn(txn) => return naive.txn(txn, now).map(Some),
        Request::Grant { id, .. } if naive.leases.contains_key(id) => return Err(Refusal::LeaseExists),
        Request::Grant { id, ttl } => {
            naive.leases.insert(*id, (*ttl, now + *ttl));
        }
        Request::Revoke(id) if !naive.leases.contains_key(id) => return Err(Refusal::LeaseNotFound),
        Request::Revoke(id) => naive.end(*id),
        Request::Expire(id) => {
            if naive.leases.get(id).is_some_and(|(_, deadline)| *deadline <= now) {
                naive.end(*id);
            }
        }
        Request::Compact(revision) if *revision > naive.revision => return Err(Refusal::Future),
        Request::Compact(revision) if *revision <= naive.floor => return Err(Refusal::Compacted),
        Request::Compact(revision) => naive.floor = *revision,
    }
    Ok(None)
}

/// What the answers found, in the model's terms.
fn found(reply: Reply) -> Option<Found> {
    let plain = |kvs: Vec<Arc<Kv>>| kvs.iter().map(|kv| Kv::clone(kv)).collect();
    let Reply::Txn { succeeded, answers } = reply else { return None };
    let answers = answers.into_iter().map(|answer| match answer {
        Answer::Got { kvs, .. } | Answer::Deleted { previous: kvs, .. } => plain(kvs),
        Answer::Put { previous } => plain(previous.into_iter().collect()),
    });
    Some((succeeded, answers.collect()))
}

fn assert_same(state: &State, naive: &Naive) {
    assert_eq!(state.revision(), naive.revision);
    let keys: Vec<Kv> = state.keys.values().map(|kv| Kv::clone(kv)).collect();
    assert_eq!(keys, naive.all());
    let leases: Vec<_> = state.leases.iter().map(|(id, lease)| (*id, (lease.ttl, lease.deadline))).collect();
    assert_eq!(leases, naive.leases.clone().into_iter().collect::<Vec<_>>());
    for (id, lease) in &state.leases {
        let bound: Vec<Key> = naive.all().into_iter().filter(|kv| kv.lease == *id).map(|kv| kv.key).collect();
        assert_eq!(lease.keys.iter().cloned().collect::<Vec<_>>(), bound, "keys of lease {id}");
    }
    assert!(naive.floor == 0 || state.past(naive.floor - 1).is_err(), "compacted");
    let past = state.past(naive.floor).expect("not compacted");
    let past = past.flat_map(|(revision, events)| events.iter().map(|event| (*revision, event.clone())));
    let past: Vec<_> = past.map(|(at, event)| (at, event.kv.key.clone(), event.deleted)).collect();
    let log = naive.log.iter().filter(|(revision, _, _)| *revision >= naive.floor);
    assert_eq!(past, log.map(|(at, key, kv)| (*at, key.clone(), kv.is_none())).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_a_naive_model_does_also_over_restarts(steps in prop::collection::vec(step(), 1..40)) {
        let (mut state, mut now, mut shelf) = (empty(), Duration::ZERO, Shelf::default());
        let mut naive = Naive { revision: 1, ..Naive::default() };
        for step in steps {
            match step {
                Step::Do(request) if check(&request, 0).is_err() => {}
                Step::Do(request) => {
                    let decided = state.decide(&request, now);
                    if let Ok((effects, _)) = &decided {
                        shelf.write(effects);
                    }
                    let reply = carry_out(&mut state, &request, now);
                    prop_assert_eq!(&reply, &decided.map(|(_, reply)| reply), "it decides the same again");
                    prop_assert_eq!(reply.map(found), expected(&mut naive, &request, now), "{:?}", request);
                }
                Step::Renew(id) => {
                    let lease = naive.leases.get_mut(&id).filter(|(_, deadline)| *deadline > now);
                    let ttl = lease.map(|(ttl, deadline)| { *deadline = now + *ttl; *ttl });
                    prop_assert_eq!(state.renew(id, now), ttl);
                }
                Step::Wait(seconds) => now += Duration::from_secs(seconds),
                Step::Restart => {
                    state = State::restore(shelf.load(), now);
                    for (ttl, deadline) in naive.leases.values_mut() {
                        *deadline = now + *ttl;
                    }
                }
            }
            assert_same(&state, &naive);
        }
    }
}
