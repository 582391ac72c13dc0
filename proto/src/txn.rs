//! A store transaction as plain data: compare all, then write all, else only read.
//!
//! Plain data, so that the lease's transactions and the journal's can be built, tested and model-checked without a
//! store. `handover-store` turns one into an etcd `TxnRequest` (etcd API, `rpc.proto`, message `TxnRequest`).

/// An etcd lease id. 0 is "no lease", as in etcd.
pub type LeaseId = i64;

/// An etcd revision (`mod_revision`, `create_revision` or the header's). 0 is "the key does not exist", as in etcd.
pub type Revision = i64;

/// One condition on one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cmp {
    /// The key was last written in this revision; 0: it does not exist.
    ModRevision(String, Revision),
    /// The key was created in this revision; 0: it does not exist.
    CreateRevision(String, Revision),
    /// The key is bound to this etcd lease.
    Lease(String, LeaseId),
    /// The key has exactly this value.
    Value(String, Vec<u8>),
}

/// One write or read of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Write a key, bound to `lease` unless that is 0.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: Vec<u8>,
        /// The etcd lease that it dies with; 0: none.
        lease: LeaseId,
    },
    /// Delete a key, if it exists.
    Delete(String),
    /// Read a key.
    Get(String),
}

/// A transaction: if every `cmp` holds, all of `then` happens in one revision; if not, `or_else` does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    /// Conditions; all must hold.
    pub cmp: Vec<Cmp>,
    /// What happens if they do. A key may be written once only (etcd refuses a second put of it).
    pub then: Vec<Op>,
    /// What happens if they do not; we only ever read here.
    pub or_else: Vec<Op>,
}

impl Op {
    /// A put that no etcd lease takes away again.
    pub fn put(key: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self::put_with_lease(key, value, 0)
    }

    /// A put that lives as long as the etcd lease.
    pub fn put_with_lease(key: impl Into<String>, value: impl Into<Vec<u8>>, lease: LeaseId) -> Self {
        Op::Put { key: key.into(), value: value.into(), lease }
    }
}
