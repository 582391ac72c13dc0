//! As much of etcd as the lease needs: three members, one state, leases with a clock of their own, and the bad habits of
//! `SAFETY.md` §1.1.

mod lessor;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use handover_proto::txn::{Cmp, LeaseId, Op, Revision, Txn};
use handover_store::client::{Change, Entry, Listing, Origin, StoreError, TxnReply};
use tonic::Code;

pub(crate) use lessor::{Ending, Lease};

/// What this store does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Habits {
    /// M3: a leader whose disk stalls deletes healthy leases when it goes on.
    pub(crate) early_revoke: bool,
    /// M4: a deposed leader goes on answering renewals.
    pub(crate) stale_acks: bool,
    /// Every member is of a version without either, and only agents may write the lease's keys (§1.9).
    pub(crate) trusted: bool,
}

impl Habits {
    /// What the members say of themselves.
    pub(crate) fn version(self) -> &'static str {
        if self.trusted { "3.5.33" } else { "3.4.23" }
    }
}

/// A backup.
#[derive(Debug, Clone)]
pub(crate) struct Backup {
    keys: BTreeMap<String, Entry>,
    leases: BTreeMap<LeaseId, Lease>,
    revision: Revision,
}

/// A leader whose disk stalls: it does not know yet that another one leads.
#[derive(Debug, Clone)]
pub(crate) struct Deposed {
    pub(crate) member: usize,
    pub(crate) until: u64,
    acks_until: u64,
    term: u64,
    leases: BTreeMap<LeaseId, (Duration, u64)>,
    keys: BTreeMap<String, Entry>,
    revision: Revision,
}

/// How a member answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answers {
    /// Not at all.
    Not,
    /// As it should.
    Well,
    /// As a leader that was deposed: renewals, and what it thinks the keys are.
    Stale,
}

/// A key with its new value and lease; none: it is deleted.
type Write = (String, Option<(Vec<u8>, LeaseId)>);

pub(crate) struct Etcd {
    pub(crate) habits: Habits,
    pub(crate) cluster: u64,
    pub(crate) revision: Revision,
    pub(crate) keys: BTreeMap<String, Entry>,
    pub(crate) leases: BTreeMap<LeaseId, Lease>,
    /// Those that are gone.
    pub(crate) ended: BTreeMap<LeaseId, Ending>,
    /// What the watch on the lease's keys tells.
    pub(crate) log: Vec<(Revision, Rc<Vec<Change>>)>,
    last_lease: LeaseId,
    pub(crate) down_until: [u64; 3],
    pub(crate) leader: usize,
    term: u64,
    /// Before this nobody leads.
    pub(crate) ready_at: u64,
    pub(crate) deposed: Option<Deposed>,
    /// NOSPACE: nothing is written, renewals go on.
    pub(crate) full_until: u64,
    pub(crate) backup: Option<Backup>,
    /// The leader's seconds per true second.
    pub(crate) rate: f64,
    watched: String,
}

impl Etcd {
    pub(crate) fn new(habits: Habits, rate: f64, watched: String) -> Self {
        Self {
            habits,
            cluster: 7,
            revision: 1,
            keys: BTreeMap::new(),
            leases: BTreeMap::new(),
            ended: BTreeMap::new(),
            log: Vec::new(),
            last_lease: 0,
            down_until: [0; 3],
            leader: 0,
            term: 2,
            ready_at: 0,
            deposed: None,
            full_until: 0,
            backup: None,
            rate,
            watched,
        }
    }

    /// How `member` answers now.
    pub(crate) fn answers(&self, member: usize, now: u64) -> Answers {
        if now < self.down_until[member] {
            return Answers::Not;
        }
        match &self.deposed {
            Some(deposed) if deposed.member == member => {
                if now < deposed.acks_until {
                    Answers::Stale
                } else {
                    Answers::Not
                }
            }
            _ if now < self.ready_at => Answers::Not,
            _ => Answers::Well,
        }
    }

    pub(crate) fn origin(&self, member: usize, answers: Answers) -> Origin {
        let stale = self.deposed.as_ref().filter(|_| answers == Answers::Stale).map(|deposed| deposed.term);
        Origin { cluster_id: self.cluster, member_id: member as u64 + 1, raft_term: stale.unwrap_or(self.term) }
    }

    fn holds(&self, cmp: &Cmp) -> bool {
        match cmp {
            Cmp::ModRevision(key, n) => self.keys.get(key).map_or(0, |e| e.mod_revision) == *n,
            Cmp::CreateRevision(key, n) => self.keys.get(key).map_or(0, |e| e.create_revision) == *n,
            Cmp::Lease(key, lease) => self.keys.get(key).is_some_and(|e| e.lease == *lease),
            Cmp::Value(key, value) => self.keys.get(key).is_some_and(|e| e.value == *value),
        }
    }

    /// Carries a transaction out.
    pub(crate) fn txn(&mut self, txn: &Txn, origin: Origin, now: u64) -> Result<TxnReply, StoreError> {
        let succeeded = txn.cmp.iter().all(|cmp| self.holds(cmp));
        let ops = if succeeded { &txn.then } else { &txn.or_else };
        let dead = |op: &Op| matches!(op, Op::Put { lease, .. } if *lease != 0 && !self.leases.contains_key(lease));
        if ops.iter().any(dead) {
            return Err(StoreError::LeaseGone { operation: "a write".to_owned(), lease: None });
        }
        if now < self.full_until && ops.iter().any(|op| matches!(op, Op::Put { .. })) {
            return Err(no_space());
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
        Ok(TxnReply { succeeded, revision: self.revision, reads, origin })
    }

    /// A read as the deposed leader answers it, which no linearizable read is: for a client that has no barrier.
    pub(crate) fn stale_read(&self, txn: &Txn, origin: Origin) -> Option<TxnReply> {
        let deposed = self.deposed.as_ref()?;
        let reads = txn.then.iter().filter_map(|op| match op {
            Op::Get(key) => Some(deposed.keys.get(key).cloned()),
            Op::Put { .. } | Op::Delete(_) => None,
        });
        Some(TxnReply { succeeded: true, revision: deposed.revision, reads: reads.collect(), origin })
    }

    pub(crate) fn write(&mut self, changes: Vec<Write>) {
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
            if key.starts_with(&self.watched) {
                seen.push(Change { key, value: entry });
            }
        }
        if !seen.is_empty() {
            self.log.push((self.revision, Rc::new(seen)));
        }
    }

    /// Everything under the watched prefix.
    pub(crate) fn listing(&self) -> Listing {
        let entries = self.keys.values().filter(|entry| entry.key.starts_with(&self.watched)).cloned().collect();
        Listing { entries, revision: self.revision, cluster_id: self.cluster }
    }

    /// Keeps a copy of everything.
    pub(crate) fn back_up(&mut self) {
        let (keys, leases) = (self.keys.clone(), self.leases.clone());
        self.backup = Some(Backup { keys, leases, revision: self.revision });
    }

    /// Goes back to the copy, as another cluster or as the same; false: there is none.
    pub(crate) fn restore(&mut self, renamed: bool, now: u64) -> bool {
        let Some(backup) = self.backup.take() else { return false };
        (self.keys, self.leases, self.revision) = (backup.keys, backup.leases, backup.revision);
        self.cluster += u64::from(renamed);
        self.term = 2;
        self.deposed = None;
        self.log.clear();
        self.ready_at = self.ready_at.max(now);
        self.restart_leases();
        true
    }

    /// Somebody leads from here on at the latest.
    pub(crate) fn lead_from(&mut self, now: u64) {
        if now < self.ready_at {
            self.ready_at = now;
            self.restart_leases();
        }
    }

    /// The leader's disk stalls, or the leader is gone, for so long: another one is elected after `election_us`.
    pub(crate) fn depose(&mut self, now: u64, until: u64, election_us: u64, stalled: bool) {
        let member = self.leader;
        if stalled {
            let acks_until = if self.habits.stale_acks { until } else { until.min(now + 700_000) };
            let leases = self.leases.iter().map(|(id, lease)| (*id, (lease.ttl, lease.end))).collect();
            let (term, keys, revision) = (self.term, self.keys.clone(), self.revision);
            self.deposed = Some(Deposed { member, until, acks_until, term, leases, keys, revision });
        } else {
            self.down_until[member] = until;
        }
        self.leader = (member + 1) % 3;
        self.term += 1;
        self.ready_at = self.ready_at.max(now + election_us);
        self.restart_leases();
    }
}

pub(crate) fn no_space() -> StoreError {
    StoreError::Refused {
        operation: "a write".to_owned(),
        endpoint: "sim".to_owned(),
        code: Code::ResourceExhausted,
        message: "etcdserver: mvcc: database space exceeded".to_owned(),
    }
}

pub(crate) fn unknown() -> StoreError {
    StoreError::Unknown { operation: "it".to_owned(), endpoint: "sim".to_owned(), reason: "lost".to_owned() }
}

pub(crate) fn unreachable() -> StoreError {
    StoreError::Unreachable { operation: "it".to_owned(), endpoints: "sim".to_owned(), reason: "lost".to_owned() }
}
