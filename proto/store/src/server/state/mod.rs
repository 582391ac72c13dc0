//! The store as a pure state machine: a request and the time give effects, the effects give the next state.
//!
//! [`State::decide`] changes nothing, so that its effects can be on disk before anybody sees them; [`State::evolve`] then
//! takes them in. A restart is the same fold over what the disk holds.

mod history;
mod limits;
mod request;
mod txn;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use handover_proto::txn::{LeaseId, Revision};

pub(crate) use history::{Compacted, Past};
pub(crate) use limits::check;
pub(crate) use request::*;

use history::History;

/// etcd's own minimum at its default election time-out; a shorter TTL is lengthened to it.
pub(crate) const SHORTEST_TTL: Duration = Duration::from_secs(2);
/// etcd's own maximum.
const LONGEST_TTL: Duration = Duration::from_secs(9_000_000_000);

/// One granted lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) ttl: Duration,
    /// When it ends unless it is renewed, on the clock that `now` is read from.
    pub(crate) deadline: Duration,
    pub(crate) keys: BTreeSet<Key>,
}

/// Keys, leases and the recent past.
#[derive(Debug, Clone)]
pub(crate) struct State {
    revision: Revision,
    keys: BTreeMap<Key, Arc<Kv>>,
    leases: BTreeMap<LeaseId, Lease>,
    history: History,
}

/// What the disk holds.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) revision: Revision,
    pub(crate) floor: Revision,
    pub(crate) keys: Vec<Kv>,
    pub(crate) leases: Vec<(LeaseId, Duration)>,
    /// In the order of their revisions.
    pub(crate) history: Vec<(Revision, Vec<Event>)>,
}

impl State {
    /// The state as it was stored; every lease has its full TTL again, because we cannot know how much of it passed.
    pub(crate) fn restore(stored: Stored, now: Duration) -> Self {
        let lease = |(id, ttl): (LeaseId, Duration)| (id, Lease { ttl, deadline: now + ttl, keys: BTreeSet::new() });
        let mut state = Self {
            // etcd's first revision: 0 means "does not exist" everywhere.
            revision: stored.revision.max(1),
            keys: BTreeMap::new(),
            leases: stored.leases.into_iter().map(lease).collect(),
            history: History::new(stored.floor, stored.history),
        };
        for kv in stored.keys {
            state.insert(Arc::new(kv));
        }
        state
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    pub(crate) fn lease(&self, id: LeaseId) -> Option<&Lease> {
        self.leases.get(&id)
    }

    pub(crate) fn leases(&self) -> impl Iterator<Item = LeaseId> {
        self.leases.keys().copied()
    }

    /// What happened in `from` and later.
    pub(crate) fn past(&self, from: Revision) -> Result<Past<'_>, Compacted> {
        self.history.past(from)
    }

    /// Whatever lease ends next, and when.
    pub(crate) fn next_expiry(&self) -> Option<(Duration, LeaseId)> {
        self.leases.iter().map(|(id, lease)| (lease.deadline, *id)).min()
    }

    /// Gives a lease its full TTL from `now` on. One that has run out is never revived, even if it still stands.
    pub(crate) fn renew(&mut self, id: LeaseId, now: Duration) -> Option<Duration> {
        let lease = self.leases.get_mut(&id).filter(|lease| lease.deadline > now)?;
        lease.deadline = now + lease.ttl;
        Some(lease.ttl)
    }

    /// What `request` would do and answer at `now`; changes nothing.
    pub(crate) fn decide(&self, request: &Request, now: Duration) -> Result<(Effects, Reply), Refusal> {
        match request {
            Request::Txn(txn) => txn::decide(self, txn, now),
            Request::Grant { id, ttl } => self.decide_grant(*id, *ttl),
            Request::Revoke(id) => self.decide_end(*id),
            Request::Expire(id) => match self.leases.get(id) {
                Some(lease) if lease.deadline <= now => self.decide_end(*id),
                _ => Ok((self.nothing(), Reply::Done)),
            },
            Request::Compact(revision) => {
                let floor = self.history.compact(*revision, self.revision)?;
                Ok((Effects { floor, ..self.nothing() }, Reply::Done))
            }
        }
    }

    /// Takes in what [`State::decide`] gave, at the time `now`, from which a granted lease runs.
    pub(crate) fn evolve(&mut self, effects: Effects, now: Duration) {
        if let Some((id, ttl)) = effects.granted {
            self.leases.insert(id, Lease { ttl, deadline: now + ttl, keys: BTreeSet::new() });
        }
        for event in &effects.events {
            self.detach(&event.kv.key);
            if event.deleted {
                self.keys.remove(&event.kv.key);
            } else {
                self.insert(event.kv.clone());
            }
        }
        if let Some(id) = effects.ended {
            self.leases.remove(&id);
        }
        self.revision = effects.revision;
        self.history.push(effects.revision, effects.events, effects.floor);
    }

    /// The effects of a request that changes nothing.
    fn nothing(&self) -> Effects {
        Effects { revision: self.revision, events: Vec::new(), granted: None, ended: None, floor: self.history.floor() }
    }

    /// The effects of changing these keys in one new revision.
    fn changing(&self, events: Vec<Event>) -> Effects {
        if events.is_empty() {
            return self.nothing();
        }
        let floor = self.history.floor_after(&events);
        Effects { revision: self.revision + 1, events, floor, ..self.nothing() }
    }

    fn decide_grant(&self, id: LeaseId, ttl: Duration) -> Result<(Effects, Reply), Refusal> {
        if self.leases.contains_key(&id) {
            return Err(Refusal::LeaseExists);
        }
        if ttl > LONGEST_TTL {
            return Err(Refusal::TtlTooLarge);
        }
        let ttl = ttl.max(SHORTEST_TTL);
        Ok((Effects { granted: Some((id, ttl)), ..self.nothing() }, Reply::Granted { id, ttl }))
    }

    fn decide_end(&self, id: LeaseId) -> Result<(Effects, Reply), Refusal> {
        let lease = self.leases.get(&id).ok_or(Refusal::LeaseNotFound)?;
        let gone = lease.keys.iter().filter_map(|key| self.keys.get(key));
        let events = gone.map(|kv| txn::deletion(kv.clone(), self.revision + 1)).collect();
        Ok((Effects { ended: Some(id), ..self.changing(events) }, Reply::Done))
    }

    fn detach(&mut self, key: &[u8]) {
        let old = self.keys.get(key).map_or(0, |kv| kv.lease);
        if let Some(lease) = self.leases.get_mut(&old) {
            lease.keys.remove(key);
        }
    }

    fn insert(&mut self, kv: Arc<Kv>) {
        if let Some(lease) = self.leases.get_mut(&kv.lease) {
            lease.keys.insert(kv.key.clone());
        }
        self.keys.insert(kv.key.clone(), kv);
    }
}
