//! The client layer over etcd: one channel per member, every call bounded, no hidden balancing and no hidden retry.
//!
//! etcd-client's own balancer keeps picking dead members (26 % errors with one of three down, measured), so each member
//! has a client of its own and [`Store`] stays with one until that one fails.
//!
//! A mutation that may have been sent is never sent again: the caller gets [`StoreError::Unknown`] and must read before
//! it goes on (`SAFETY.md` §1.6).

mod auth;
mod convert;
mod error;
mod member;
mod renew;
mod status;
mod store;
mod watch;

use std::time::Duration;

use handover_proto::txn::{LeaseId, Revision};

pub use auth::AuthChange;
pub use error::{OpenError, StoreError};
pub use member::Dial;
pub use renew::Renewal;
pub use status::MemberStatus;
pub use store::{Access, Store};
pub use watch::{Change, Watch, WatchItem};

/// Where the embedded store listens and where clients look for it if nothing else is configured. Not etcd's port (2379),
/// so that neither is ever taken for the other.
pub const EMBEDDED_ADDRESS: &str = "127.0.0.1:2790";

/// One key as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key. Bytes that are not UTF-8 are replaced; Handover never writes such keys.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// Revision of the last write.
    pub mod_revision: Revision,
    /// Revision in which the key came into being; unchanged by later writes.
    pub create_revision: Revision,
    /// The etcd lease that the key dies with; 0: none.
    pub lease: LeaseId,
}

/// All keys under a prefix, in key order, as of one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The entries, in key order.
    pub entries: Vec<Entry>,
    /// The revision that this is a picture of. Watch from `revision + 1` to miss nothing.
    pub revision: Revision,
    /// Which cluster answered. A change means another store: the data directory or the cluster was replaced.
    pub cluster_id: u64,
}

/// Who answered, by the reply's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The cluster.
    pub cluster_id: u64,
    /// The member that was asked.
    pub member_id: u64,
    /// The raft term that this member was in.
    pub raft_term: u64,
}

/// What a transaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnReply {
    /// Whether every comparison held, so that `then` was taken.
    pub succeeded: bool,
    /// The store's revision after it; the `mod_revision` of every key that it wrote.
    pub revision: Revision,
    /// One for each `Op::Get` of the branch taken, in order; `None`: no such key.
    pub reads: Vec<Option<Entry>>,
    /// Who answered.
    pub origin: Origin,
}

/// A granted etcd lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Its id.
    pub id: LeaseId,
    /// The TTL that the store gave, which may be longer than asked for.
    pub ttl: Duration,
}
