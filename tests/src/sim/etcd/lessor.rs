//! Leases: only the leader counts them, a new leader begins anew, and a deposed one may do harm.

use std::time::Duration;

use handover_proto::txn::LeaseId;
use handover_store::client::Grant;

use super::{Answers, Etcd};

/// A lease, as the legitimate leader counts it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lease {
    pub(crate) ttl: Duration,
    /// True moment before which it is not expired.
    pub(crate) end: u64,
    /// How much later than that it is.
    pub(crate) late: u64,
}

/// How a lease ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its time was over, at this true moment.
    Expired(u64),
    /// It was taken away, or given up.
    Revoked,
}

/// Rest between two elections' worth of patience that a new leader adds to every lease.
const ELECTION_US: u64 = 1_000_000;

impl Etcd {
    fn end_of(&self, ttl: Duration, from: u64) -> u64 {
        from + (ttl.as_micros() as f64 / self.rate) as u64
    }

    pub(crate) fn grant(&mut self, ttl: Duration, now: u64, late: u64) -> Grant {
        self.last_lease += 1;
        self.leases.insert(self.last_lease, Lease { ttl, end: self.end_of(ttl, now), late });
        Grant { id: self.last_lease, ttl }
    }

    /// The TTL after it; zero: the lease is gone. A deposed leader answers by its own book, and nobody else hears of it.
    pub(crate) fn keep_alive(&mut self, lease: LeaseId, answers: Answers, now: u64, late: u64) -> Duration {
        if answers == Answers::Stale {
            let rate = self.rate;
            let Some(known) = self.deposed.as_mut().and_then(|deposed| deposed.leases.get_mut(&lease)) else {
                return Duration::ZERO;
            };
            known.1 = now + (known.0.as_micros() as f64 / rate) as u64;
            return known.0;
        }
        let Some(ttl) = self.leases.get(&lease).map(|known| known.ttl) else { return Duration::ZERO };
        let end = self.end_of(ttl, now);
        self.leases.insert(lease, Lease { ttl, end, late });
        ttl
    }

    pub(super) fn restart_leases(&mut self) {
        let from = self.ready_at + ELECTION_US;
        for id in self.leases.keys().copied().collect::<Vec<_>>() {
            let ttl = self.leases[&id].ttl;
            let end = self.end_of(ttl, from);
            self.leases.insert(id, Lease { ttl, end, late: 0 });
        }
    }

    /// Ends a lease; gives the keys that went with it.
    pub(crate) fn end_lease(&mut self, lease: LeaseId, ending: Ending) -> Vec<String> {
        if self.leases.remove(&lease).is_none() {
            return Vec::new();
        }
        self.ended.insert(lease, ending);
        let gone: Vec<String> =
            self.keys.values().filter(|entry| entry.lease == lease).map(|entry| entry.key.clone()).collect();
        self.write(gone.iter().map(|key| (key.clone(), None)).collect());
        gone
    }

    /// The leases whose time is over.
    pub(crate) fn expired(&self, now: u64) -> Vec<LeaseId> {
        if now < self.ready_at {
            return Vec::new();
        }
        let over = self.leases.iter().filter(|(_, lease)| lease.end + lease.late <= now);
        over.map(|(id, _)| *id).collect()
    }

    /// The stalled leader goes on and learns that it was deposed: the leases that it now deletes though they are well (M3).
    pub(crate) fn wake_deposed(&mut self, now: u64) -> Vec<LeaseId> {
        let Some(deposed) = self.deposed.take_if(|deposed| deposed.until <= now) else { return Vec::new() };
        if !self.habits.early_revoke {
            return Vec::new();
        }
        let over = deposed.leases.iter().filter(|(id, (_, end))| *end <= now && self.leases.contains_key(id));
        over.map(|(id, _)| *id).collect()
    }
}
