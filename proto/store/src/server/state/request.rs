//! What the state machine is asked and what it answers, as plain data.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use handover_proto::txn::{LeaseId, Revision};

/// Keys are bytes, as in etcd.
pub(crate) type Key = Vec<u8>;

/// One key as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Kv {
    pub(crate) key: Key,
    pub(crate) value: Vec<u8>,
    pub(crate) created: Revision,
    pub(crate) modified: Revision,
    /// Number of writes since it was created; 0 only in the event of its deletion.
    pub(crate) version: i64,
    pub(crate) lease: LeaseId,
}

/// A range of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyRange {
    pub(crate) start: Key,
    pub(crate) end: End,
}

/// Where a range ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// It is the start key alone.
    Only,
    /// It has no end.
    Open,
    /// It ends before this key.
    Before(Key),
}

/// What a `BTreeMap` calls a range.
type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

impl KeyRange {
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            End::Only => key == self.start,
            End::Open => key >= self.start.as_slice(),
            End::Before(end) => key >= self.start.as_slice() && key < end.as_slice(),
        }
    }

    /// Bounds for a `BTreeMap`, which takes it badly if the end lies before the start: such a range is empty (`None`).
    pub(crate) fn bounds(&self) -> Option<Bounds<'_>> {
        let start = Bound::Included(self.start.as_slice());
        match &self.end {
            End::Only => Some((start, start)),
            End::Open => Some((start, Bound::Unbounded)),
            End::Before(end) => (end > &self.start).then_some((start, Bound::Excluded(end.as_slice()))),
        }
    }
}

/// One condition of a transaction; on a range, every key in it must meet it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compare {
    pub(crate) range: KeyRange,
    pub(crate) relation: Relation,
    pub(crate) subject: Subject,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    Equal,
    NotEqual,
    Less,
    Greater,
}

/// What of a key is compared, and with what. A key that does not exist has 0 everywhere and no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    Version(i64),
    Created(Revision),
    Modified(Revision),
    Lease(LeaseId),
    Value(Vec<u8>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    Get(Query),
    Put(Put),
    Delete(Delete),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) range: KeyRange,
    /// At most so many entries; `None`: all.
    pub(crate) limit: Option<usize>,
    pub(crate) keys_only: bool,
    pub(crate) count_only: bool,
    pub(crate) sort: Option<(SortBy, Direction)>,
    /// As of this revision; `None`: now. Only the present can be read.
    pub(crate) revision: Option<Revision>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SortBy {
    Key,
    Version,
    Created,
    Modified,
    Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Up,
    Down,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Put {
    pub(crate) key: Key,
    /// `None`: keep the value that it has.
    pub(crate) value: Option<Vec<u8>>,
    /// `None`: keep the lease that it has; 0: no lease.
    pub(crate) lease: Option<LeaseId>,
    /// Whether the answer shows what was there before.
    pub(crate) previous: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delete {
    pub(crate) range: KeyRange,
    /// Whether the answer shows what was there before.
    pub(crate) previous: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Transaction {
    pub(crate) compares: Vec<Compare>,
    pub(crate) then: Vec<Op>,
    pub(crate) or_else: Vec<Op>,
}

/// What can change the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    Txn(Transaction),
    /// A lease with this id, which must be new.
    Grant {
        id: LeaseId,
        ttl: Duration,
    },
    Revoke(LeaseId),
    /// End the lease if its time has come.
    Expire(LeaseId),
    /// Forget the history before this revision.
    Compact(Revision),
}

/// The answer to a request that was not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Txn { succeeded: bool, answers: Vec<Answer> },
    Granted { id: LeaseId, ttl: Duration },
    Done,
}

/// The answer to one operation of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Got { kvs: Vec<Arc<Kv>>, count: usize, more: bool, keys_only: bool },
    Put { previous: Option<Arc<Kv>> },
    Deleted { count: usize, previous: Vec<Arc<Kv>> },
}

/// One key changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// As it stands now. Of a deleted key only key and revision are left.
    pub(crate) kv: Arc<Kv>,
    pub(crate) deleted: bool,
    pub(crate) previous: Option<Arc<Kv>>,
}

/// Everything that a request changes: what goes to disk, and what [`super::State::evolve`] then takes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Effects {
    /// The revision after it.
    pub(crate) revision: Revision,
    /// All of one revision; empty if the revision did not move.
    pub(crate) events: Vec<Event>,
    pub(crate) granted: Option<(LeaseId, Duration)>,
    pub(crate) ended: Option<LeaseId>,
    /// The oldest revision whose events are kept.
    pub(crate) floor: Revision,
}

/// Why a request was refused; nothing was changed. The texts are etcd's, which clients match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    #[error("etcdserver: value is provided")]
    ValueProvided,
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    #[error("etcdserver: key not found")]
    KeyNotFound,
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    #[error("etcdserver: request is too large")]
    TooLarge,
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    #[error("etcdserver: too large lease TTL")]
    TtlTooLarge,
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    #[error("etcdserver: mvcc: required revision is a future revision")]
    Future,
    #[error("the embedded store does not support {0}; use etcd if you need it")]
    Unsupported(&'static str),
}
