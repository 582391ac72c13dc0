//! The state machine by itself: no disk, no clock, no network.

mod naive;

use std::time::Duration;

use super::*;

pub(super) fn one(key: &str) -> KeyRange {
    KeyRange { start: key.into(), end: End::Only }
}

fn range(start: &str, end: &str) -> KeyRange {
    KeyRange { start: start.into(), end: End::Before(end.into()) }
}

fn put(key: &str, value: &str, lease: LeaseId) -> Op {
    Op::Put(Put { key: key.into(), value: Some(value.into()), lease: Some(lease), previous: false })
}

fn delete(range: KeyRange) -> Op {
    Op::Delete(Delete { range, previous: false })
}

fn get(range: KeyRange) -> Op {
    Op::Get(query(range))
}

fn query(range: KeyRange) -> Query {
    Query { range, limit: None, keys_only: false, count_only: false, sort: None, revision: None }
}

fn writing(then: Vec<Op>) -> Request {
    Request::Txn(Transaction { then, ..Transaction::default() })
}

fn empty() -> State {
    State::restore(Stored::default(), Duration::ZERO)
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Decides and evolves, as the engine does.
fn carry_out(state: &mut State, request: &Request, now: Duration) -> Result<Reply, Refusal> {
    let (effects, reply) = state.decide(request, now)?;
    state.evolve(effects, now);
    Ok(reply)
}

fn answers(state: &mut State, then: Vec<Op>) -> Result<Vec<Answer>, Refusal> {
    match carry_out(state, &writing(then), at(0))? {
        Reply::Txn { answers, .. } => Ok(answers),
        other => panic!("not the answer to a transaction: {other:?}"),
    }
}

fn values(answer: &Answer) -> Vec<&str> {
    match answer {
        Answer::Got { kvs, .. } => kvs.iter().map(|kv| std::str::from_utf8(&kv.value).expect("text")).collect(),
        other => panic!("not the answer to a read: {other:?}"),
    }
}

#[test]
fn deciding_changes_nothing() {
    let state = empty();
    state.decide(&writing(vec![put("a", "1", 0)]), at(0)).expect("a put");
    assert_eq!((state.revision(), state.past(0).map(Iterator::count)), (1, Ok(0)));
}

#[test]
fn a_transaction_sees_its_own_writes_and_takes_one_revision() {
    let mut state = empty();
    answers(&mut state, vec![put("b", "old", 0)]).expect("a put");
    let ops = vec![put("a", "1", 0), delete(one("b")), put("c", "3", 0), get(range("a", "z"))];
    let answers = answers(&mut state, ops).expect("a transaction");
    assert_eq!(values(&answers[3]), ["1", "3"]);
    assert_eq!(state.revision(), 3);
    let past: Vec<_> = state.past(3).expect("recent").map(|(revision, events)| (*revision, events.len())).collect();
    assert_eq!(past, [(3, 3)]);
}

#[test]
fn deleting_nothing_takes_no_revision() {
    let mut state = empty();
    let answers = answers(&mut state, vec![delete(range("a", "z"))]).expect("a delete");
    assert_eq!(answers, [Answer::Deleted { count: 0, previous: vec![] }]);
    assert_eq!(state.revision(), 1);
}

#[test]
fn a_refused_operation_leaves_nothing_of_the_transaction() {
    let mut state = empty();
    let refused = answers(&mut state, vec![put("a", "1", 0), put("b", "2", 77)]);
    assert_eq!(refused, Err(Refusal::LeaseNotFound));
    let refused =
        answers(&mut state, vec![Op::Put(Put { key: "c".into(), value: None, lease: Some(0), previous: false })]);
    assert_eq!(refused, Err(Refusal::KeyNotFound));
    assert_eq!(state.revision(), 1);
}

#[test]
fn a_put_may_keep_the_value_or_the_lease() {
    let mut state = empty();
    carry_out(&mut state, &Request::Grant { id: 7, ttl: at(10) }, at(0)).expect("a grant");
    answers(&mut state, vec![put("a", "1", 7)]).expect("a put");
    let keep_value = Put { key: "a".into(), value: None, lease: Some(0), previous: true };
    let answer = answers(&mut state, vec![Op::Put(keep_value), get(one("a"))]).expect("a put");
    assert!(matches!(&answer[0], Answer::Put { previous: Some(kv) } if kv.lease == 7), "{answer:?}");
    assert!(matches!(&answer[1], Answer::Got { kvs, .. } if kvs[0].lease == 0 && kvs[0].value == b"1"), "{answer:?}");
    assert!(state.lease(7).expect("the lease").keys.is_empty());
}

#[test]
fn a_read_is_limited_sorted_and_counted() {
    let mut state = empty();
    answers(&mut state, vec![put("a", "3", 0), put("b", "1", 0), put("c", "2", 0)]).expect("puts");
    let all = || range("a", "z");
    let by_value = Query { sort: Some((SortBy::Value, Direction::Down)), limit: Some(2), ..query(all()) };
    let count = Query { count_only: true, ..query(all()) };
    let open = KeyRange { start: "b".into(), end: End::Open };
    let backwards = range("z", "a");
    let got = answers(&mut state, vec![Op::Get(by_value), Op::Get(count), get(open), get(backwards)]).expect("reads");
    assert_eq!(values(&got[0]), ["3", "2"]);
    assert!(matches!(got[0], Answer::Got { count: 3, more: true, .. }));
    assert!(matches!(&got[1], Answer::Got { count: 3, kvs, .. } if kvs.is_empty()));
    assert_eq!(values(&got[2]), ["1", "2"]);
    assert_eq!(values(&got[3]), [""; 0], "a range that ends before it begins is empty");
}

#[test]
fn only_the_present_can_be_read() {
    let mut state = empty();
    answers(&mut state, vec![put("a", "1", 0)]).expect("a put");
    let at_revision = |revision| vec![Op::Get(Query { revision: Some(revision), ..query(one("a")) })];
    answers(&mut state, at_revision(2)).expect("now");
    assert_eq!(answers(&mut state, at_revision(3)), Err(Refusal::Future));
    assert!(matches!(answers(&mut state, at_revision(1)), Err(Refusal::Unsupported(_))));
}

#[test]
fn a_lease_that_ran_out_is_neither_renewed_nor_used_even_before_its_end_is_written() {
    let mut state = empty();
    carry_out(&mut state, &Request::Grant { id: 7, ttl: at(10) }, at(100)).expect("a grant");
    assert_eq!(state.renew(7, at(105)), Some(at(10)));
    assert_eq!(state.next_expiry(), Some((at(115), 7)));
    carry_out(&mut state, &Request::Expire(7), at(114)).expect("too early is no error");
    assert!(state.lease(7).is_some());
    assert_eq!(state.renew(7, at(115)), None);
    let late = state.decide(&writing(vec![put("a", "1", 7)]), at(115)).expect_err("too late");
    assert_eq!(late, Refusal::LeaseNotFound);
    carry_out(&mut state, &Request::Expire(7), at(115)).expect("its time has come");
    assert!(state.lease(7).is_none());
}

#[test]
fn grants_are_refused_or_lengthened_as_etcd_does() {
    let mut state = empty();
    let grant = |id, ttl| Request::Grant { id, ttl };
    assert_eq!(carry_out(&mut state, &grant(7, at(0)), at(0)), Ok(Reply::Granted { id: 7, ttl: SHORTEST_TTL }));
    assert_eq!(carry_out(&mut state, &grant(7, at(9)), at(0)), Err(Refusal::LeaseExists));
    assert_eq!(carry_out(&mut state, &grant(8, at(9_000_000_001)), at(0)), Err(Refusal::TtlTooLarge));
    assert_eq!(carry_out(&mut state, &Request::Revoke(8), at(0)), Err(Refusal::LeaseNotFound));
}

#[test]
fn what_is_compacted_can_no_longer_be_watched() {
    let mut state = empty();
    for value in ["1", "2", "3"] {
        answers(&mut state, vec![put("a", value, 0)]).expect("a put");
    }
    assert_eq!(carry_out(&mut state, &Request::Compact(5), at(0)), Err(Refusal::Future));
    carry_out(&mut state, &Request::Compact(3), at(0)).expect("a compaction");
    assert_eq!(carry_out(&mut state, &Request::Compact(3), at(0)), Err(Refusal::Compacted));
    assert_eq!(state.past(2).map(Iterator::count), Err(Compacted { floor: 3 }));
    assert_eq!(state.past(3).map(Iterator::count), Ok(2));
}

#[test]
fn the_history_is_bounded_in_number_and_in_bytes() {
    let mut state = empty();
    for n in 0..10_050 {
        answers(&mut state, vec![put("a", &n.to_string(), 0)]).expect("a put");
    }
    assert_eq!(state.past(52).map(Iterator::count), Ok(10_000));
    assert!(state.past(51).is_err());
    let large = "x".repeat(1 << 20);
    for _ in 0..40 {
        answers(&mut state, vec![put("a", &large, 0)]).expect("a put");
    }
    let kept = state.past(state.revision() - 6).map(Iterator::count);
    assert_eq!(kept, Ok(7), "each counts twice, as the value and as the one before");
    assert!(state.past(state.revision() - 7).is_err());
}

#[test]
fn requests_beyond_etcds_limits_are_refused() {
    let puts = |count: usize| (0..count).map(|n| put(&n.to_string(), "v", 0)).collect::<Vec<_>>();
    let compares = |count| Transaction {
        compares: vec![Compare { range: one("a"), relation: Relation::Equal, subject: Subject::Version(0) }; count],
        ..Transaction::default()
    };
    assert_eq!(check(&writing(puts(128)), 0), Ok(()));
    assert_eq!(check(&writing(puts(129)), 0), Err(Refusal::TooManyOps));
    assert_eq!(check(&Request::Txn(compares(128)), 0), Ok(()));
    assert_eq!(check(&Request::Txn(compares(129)), 0), Err(Refusal::TooManyOps));
    assert_eq!(check(&writing(vec![put("a", "1", 0), put("a", "2", 0)]), 0), Err(Refusal::DuplicateKey));
    assert_eq!(check(&writing(vec![delete(range("a", "c")), put("b", "2", 0)]), 0), Err(Refusal::DuplicateKey));
    assert_eq!(check(&writing(vec![delete(one("a")), delete(one("a"))]), 0), Ok(()), "as etcd does");
    assert_eq!(check(&writing(vec![put("", "1", 0)]), 0), Err(Refusal::EmptyKey));
    assert_eq!(check(&writing(puts(1)), 1_572_864), Ok(()));
    assert_eq!(check(&writing(puts(1)), 1_572_865), Err(Refusal::TooLarge));
    assert_eq!(check(&writing(vec![get(one("a"))]), 1_572_865), Ok(()), "reads do not go through a log");
}
