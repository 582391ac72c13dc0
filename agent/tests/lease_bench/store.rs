//! As much of etcd as the lease needs, with a clock of its own and its known bad habits.

use std::collections::BTreeMap;
use std::time::Duration;

use handover_proto::txn::{Cmp, LeaseId, Op, Revision, Txn};
use handover_store::client::{Change, Entry, Grant, Listing, Origin, StoreError, TxnReply};

pub(crate) const CLUSTER: u64 = 7;

/// What went wrong with a transaction.
pub(crate) fn lease_gone() -> StoreError {
    StoreError::LeaseGone { operation: "a write".to_owned(), lease: None }
}

/// A key with its new value and lease; none: it is deleted.
type Write = (String, Option<(Vec<u8>, LeaseId)>);

#[derive(Default, Clone)]
pub(crate) struct ModelStore {
    /// Grows when the store is restored as another cluster.
    pub(crate) restores: u64,
    pub(crate) revision: Revision,
    pub(crate) keys: BTreeMap<String, Entry>,
    /// Each with its end, in milliseconds of true time.
    pub(crate) leases: BTreeMap<LeaseId, (Duration, u64)>,
    pub(crate) log: Vec<(Revision, Vec<Change>)>,
    pub(crate) last_lease: LeaseId,
}

impl ModelStore {
    pub(crate) fn origin(&self) -> Origin {
        Origin { cluster_id: CLUSTER + self.restores, member_id: 1, raft_term: 2 }
    }

    fn holds(&self, cmp: &Cmp) -> bool {
        match cmp {
            Cmp::ModRevision(key, n) => self.keys.get(key).map_or(0, |e| e.mod_revision) == *n,
            Cmp::CreateRevision(key, n) => self.keys.get(key).map_or(0, |e| e.create_revision) == *n,
            Cmp::Lease(key, lease) => self.keys.get(key).is_some_and(|e| e.lease == *lease),
            Cmp::Value(key, value) => self.keys.get(key).is_some_and(|e| e.value == *value),
        }
    }

    pub(crate) fn txn(&mut self, txn: &Txn) -> Result<TxnReply, StoreError> {
        let succeeded = txn.cmp.iter().all(|cmp| self.holds(cmp));
        let ops = if succeeded { &txn.then } else { &txn.or_else };
        let dead = |op: &Op| matches!(op, Op::Put { lease, .. } if *lease != 0 && !self.leases.contains_key(lease));
        if ops.iter().any(dead) {
            return Err(lease_gone());
        }
        let mut changes = Vec::new();
        let mut reads = Vec::new();
        for op in ops {
            match op {
                Op::Put { key, value, lease } => changes.push((key.clone(), Some((value.clone(), *lease)))),
                Op::Delete(key) if self.keys.contains_key(key) => changes.push((key.clone(), None)),
                Op::Delete(_) => {}
                Op::Get(key) => reads.push(self.keys.get(key).cloned()),
            }
        }
        self.write(changes);
        Ok(TxnReply { succeeded, revision: self.revision, reads, origin: self.origin() })
    }

    fn write(&mut self, changes: Vec<Write>) {
        if changes.is_empty() {
            return;
        }
        self.revision += 1;
        let mut seen = Vec::new();
        for (key, value) in changes {
            let entry = value.map(|(value, lease)| Entry {
                key: key.clone(),
                value,
                mod_revision: self.revision,
                create_revision: self.keys.get(&key).map_or(self.revision, |old| old.create_revision),
                lease,
            });
            match &entry {
                Some(entry) => drop(self.keys.insert(key.clone(), entry.clone())),
                None => drop(self.keys.remove(&key)),
            }
            seen.push(Change { key, value: entry });
        }
        self.log.push((self.revision, seen));
    }

    pub(crate) fn grant(&mut self, ttl: Duration, end_ms: u64) -> Grant {
        self.last_lease += 1;
        self.leases.insert(self.last_lease, (ttl, end_ms));
        Grant { id: self.last_lease, ttl }
    }

    /// The TTL after it; zero: the lease is gone.
    pub(crate) fn keep_alive(&mut self, lease: LeaseId, end_ms: u64) -> Duration {
        self.leases.get_mut(&lease).map_or(Duration::ZERO, |known| {
            known.1 = known.1.max(end_ms);
            known.0
        })
    }

    pub(crate) fn revoke(&mut self, lease: LeaseId) {
        self.leases.remove(&lease);
        let gone = self.keys.values().filter(|entry| entry.lease == lease).map(|entry| (entry.key.clone(), None));
        let gone: Vec<_> = gone.collect();
        self.write(gone);
    }

    #[allow(dead_code, reason = "the bench lets no lease expire")]
    pub(crate) fn expired(&self, now_ms: u64) -> Vec<LeaseId> {
        self.leases.iter().filter(|(_, (_, end))| *end <= now_ms).map(|(lease, _)| *lease).collect()
    }

    pub(crate) fn listing(&self) -> Listing {
        Listing {
            entries: self.keys.values().cloned().collect(),
            revision: self.revision,
            cluster_id: CLUSTER + self.restores,
        }
    }
}
