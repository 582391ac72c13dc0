//! Between etcd's messages and the state machine's plain data.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::proto::{
    PbCompare, PbDeleteRequest, PbDeleteResponse, PbEvent, PbKeyValue, PbPutRequest, PbPutResponse, PbRangeRequest,
    PbRangeResponse, PbResponseHeader, PbResponseOp, PbTargetUnion, PbTxnOpRequest, PbTxnOpResponse, PbTxnRequest,
    PbTxnRequestOp,
};

use super::state::{
    Answer, Compare, Delete, Direction, End, Event, KeyRange, Kv, Op, Put, Query, Refusal, Relation, SortBy, Subject,
    Transaction,
};

pub(super) fn range_from_wire(start: Vec<u8>, end: Vec<u8>) -> KeyRange {
    let end = match end.as_slice() {
        [] => End::Only,
        [0] => End::Open,
        _ => End::Before(end),
    };
    KeyRange { start, end }
}

pub(super) fn query_from_wire(query: PbRangeRequest) -> Result<Query, Refusal> {
    let bounds = [query.min_mod_revision, query.max_mod_revision, query.min_create_revision, query.max_create_revision];
    if bounds != [0; 4] {
        return Err(Refusal::Unsupported("limiting a range by revisions"));
    }
    let by = match query.sort_target {
        0 => SortBy::Key,
        1 => SortBy::Version,
        2 => SortBy::Created,
        3 => SortBy::Modified,
        4 => SortBy::Value,
        _ => return Err(Refusal::Unsupported("this sort target")),
    };
    let direction = match query.sort_order {
        // As in etcd: no order with a target other than the key means ascending.
        0 | 1 => Direction::Up,
        2 => Direction::Down,
        _ => return Err(Refusal::Unsupported("this sort order")),
    };
    Ok(Query {
        range: range_from_wire(query.key, query.range_end),
        limit: usize::try_from(query.limit).ok().filter(|limit| *limit > 0),
        keys_only: query.keys_only,
        count_only: query.count_only,
        sort: ((by, direction) != (SortBy::Key, Direction::Up)).then_some((by, direction)),
        revision: (query.revision > 0).then_some(query.revision),
    })
}

pub(super) fn put_from_wire(put: PbPutRequest) -> Result<Put, Refusal> {
    if put.ignore_value && !put.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if put.ignore_lease && put.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    let value = (!put.ignore_value).then_some(put.value);
    let lease = (!put.ignore_lease).then_some(put.lease);
    Ok(Put { key: put.key, value, lease, previous: put.prev_kv })
}

pub(super) fn delete_from_wire(delete: PbDeleteRequest) -> Delete {
    Delete { range: range_from_wire(delete.key, delete.range_end), previous: delete.prev_kv }
}

pub(super) fn txn_from_wire(txn: PbTxnRequest) -> Result<Transaction, Refusal> {
    Ok(Transaction {
        compares: txn.compare.into_iter().map(compare_from_wire).collect::<Result<_, _>>()?,
        then: txn.success.into_iter().map(op_from_wire).collect::<Result<_, _>>()?,
        or_else: txn.failure.into_iter().map(op_from_wire).collect::<Result<_, _>>()?,
    })
}

fn op_from_wire(op: PbTxnRequestOp) -> Result<Op, Refusal> {
    match op.request {
        Some(PbTxnOpRequest::RequestRange(query)) => query_from_wire(query).map(Op::Get),
        Some(PbTxnOpRequest::RequestPut(put)) => put_from_wire(put).map(Op::Put),
        Some(PbTxnOpRequest::RequestDeleteRange(delete)) => Ok(Op::Delete(delete_from_wire(delete))),
        Some(PbTxnOpRequest::RequestTxn(_)) => Err(Refusal::Unsupported("a transaction inside a transaction")),
        None => Err(Refusal::Unsupported("an empty operation")),
    }
}

fn compare_from_wire(compare: PbCompare) -> Result<Compare, Refusal> {
    let relation = match compare.result {
        0 => Relation::Equal,
        1 => Relation::Greater,
        2 => Relation::Less,
        3 => Relation::NotEqual,
        _ => return Err(Refusal::Unsupported("this comparison")),
    };
    // A zero is not on the wire: then only the target tells what is compared with it.
    let subject = match (compare.target_union, compare.target) {
        (Some(PbTargetUnion::Version(number)), _) => Subject::Version(number),
        (Some(PbTargetUnion::CreateRevision(revision)), _) => Subject::Created(revision),
        (Some(PbTargetUnion::ModRevision(revision)), _) => Subject::Modified(revision),
        (Some(PbTargetUnion::Value(value)), _) => Subject::Value(value),
        (Some(PbTargetUnion::Lease(lease)), _) => Subject::Lease(lease),
        (None, 0) => Subject::Version(0),
        (None, 1) => Subject::Created(0),
        (None, 2) => Subject::Modified(0),
        (None, 3) => Subject::Value(Vec::new()),
        (None, 4) => Subject::Lease(0),
        (None, _) => return Err(Refusal::Unsupported("this compare target")),
    };
    Ok(Compare { range: range_from_wire(compare.key, compare.range_end), relation, subject })
}

pub(super) fn answer_to_wire(answer: Answer, header: PbResponseHeader) -> PbTxnOpResponse {
    let header = Some(header);
    match answer {
        Answer::Got { kvs, count, more, keys_only } => {
            let kvs = kvs.iter().map(|kv| if keys_only { key_to_wire(kv) } else { kv_to_wire(kv) }).collect();
            PbTxnOpResponse::ResponseRange(PbRangeResponse { header, kvs, more, count: number(count) })
        }
        Answer::Put { previous } => {
            PbTxnOpResponse::ResponsePut(PbPutResponse { header, prev_kv: previous.as_deref().map(kv_to_wire) })
        }
        Answer::Deleted { count, previous } => {
            let prev_kvs = previous.iter().map(|kv| kv_to_wire(kv)).collect();
            PbTxnOpResponse::ResponseDeleteRange(PbDeleteResponse { header, deleted: number(count), prev_kvs })
        }
    }
}

pub(super) fn op_to_wire(answer: Answer, header: PbResponseHeader) -> PbResponseOp {
    PbResponseOp { response: Some(answer_to_wire(answer, header)) }
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A TTL in whole seconds; what is negative is as short as can be.
pub(super) fn ttl_from_wire(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

pub(super) fn ttl_to_wire(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX)
}

pub(super) fn kv_to_wire(kv: &Kv) -> PbKeyValue {
    PbKeyValue { value: kv.value.clone(), ..key_to_wire(kv) }
}

fn key_to_wire(kv: &Kv) -> PbKeyValue {
    PbKeyValue {
        key: kv.key.clone(),
        create_revision: kv.created,
        mod_revision: kv.modified,
        version: kv.version,
        value: Vec::new(),
        lease: kv.lease,
    }
}

pub(super) fn kv_from_wire(kv: PbKeyValue) -> Kv {
    Kv {
        key: kv.key,
        value: kv.value,
        created: kv.create_revision,
        modified: kv.mod_revision,
        version: kv.version,
        lease: kv.lease,
    }
}

pub(super) fn event_to_wire(event: &Event, previous: bool) -> PbEvent {
    PbEvent {
        r#type: i32::from(event.deleted),
        kv: Some(kv_to_wire(&event.kv)),
        prev_kv: event.previous.as_deref().filter(|_| previous).map(kv_to_wire),
    }
}

pub(super) fn event_from_wire(event: PbEvent) -> Option<Event> {
    let kv = Arc::new(kv_from_wire(event.kv?));
    let previous = event.prev_kv.map(|kv| Arc::new(kv_from_wire(kv)));
    Some(Event { kv, deleted: event.r#type == 1, previous })
}
