//! A transaction: compare, then carry out one branch on a draft that the next operation already sees.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use handover_proto::txn::{LeaseId, Revision};

use super::{
    Answer, Compare, Delete, Direction, Effects, Event, Key, KeyRange, Kv, Op, Put, Query, Refusal, Relation, Reply,
    SortBy, State, Subject, Transaction,
};

pub(super) fn decide(state: &State, txn: &Transaction, now: Duration) -> Result<(Effects, Reply), Refusal> {
    let succeeded = txn.compares.iter().all(|compare| holds(state, compare));
    let branch = if succeeded { &txn.then } else { &txn.or_else };
    let mut draft = Draft { state, now, revision: state.revision + 1, changed: BTreeMap::new(), events: Vec::new() };
    let answers = branch.iter().map(|op| draft.apply(op)).collect::<Result<_, _>>()?;
    Ok((state.changing(draft.events), Reply::Txn { succeeded, answers }))
}

/// The event of a key's deletion.
pub(super) fn deletion(previous: Arc<Kv>, revision: Revision) -> Event {
    let kv = Kv { key: previous.key.clone(), modified: revision, ..Kv::default() };
    Event { kv: Arc::new(kv), deleted: true, previous: Some(previous) }
}

fn holds(state: &State, compare: &Compare) -> bool {
    let mut found = state.in_range(&compare.range).peekable();
    if found.peek().is_none() {
        // As in etcd: a missing key has 0 everywhere, but no value that could equal anything.
        return !matches!(compare.subject, Subject::Value(_)) && meets(&Kv::default(), compare);
    }
    found.all(|kv| meets(kv, compare))
}

fn meets(kv: &Kv, compare: &Compare) -> bool {
    let order = match &compare.subject {
        Subject::Version(number) => kv.version.cmp(number),
        Subject::Created(revision) => kv.created.cmp(revision),
        Subject::Modified(revision) => kv.modified.cmp(revision),
        Subject::Lease(lease) => kv.lease.cmp(lease),
        Subject::Value(value) => kv.value.cmp(value),
    };
    match compare.relation {
        Relation::Equal => order.is_eq(),
        Relation::NotEqual => order.is_ne(),
        Relation::Less => order.is_lt(),
        Relation::Greater => order.is_gt(),
    }
}

impl State {
    fn in_range(&self, range: &KeyRange) -> impl Iterator<Item = &Arc<Kv>> {
        range.bounds().into_iter().flat_map(|bounds| self.keys.range::<[u8], _>(bounds).map(|(_, kv)| kv))
    }
}

/// The state as the transaction has changed it so far; `None` is deleted.
struct Draft<'a> {
    state: &'a State,
    now: Duration,
    revision: Revision,
    changed: BTreeMap<Key, Option<Arc<Kv>>>,
    events: Vec<Event>,
}

impl Draft<'_> {
    fn apply(&mut self, op: &Op) -> Result<Answer, Refusal> {
        match op {
            Op::Get(query) => self.get(query),
            Op::Put(put) => self.put(put),
            Op::Delete(delete) => Ok(self.delete(delete)),
        }
    }

    fn find(&self, range: &KeyRange) -> Vec<Arc<Kv>> {
        if self.changed.is_empty() {
            return self.state.in_range(range).cloned().collect();
        }
        let mut found: BTreeMap<&Key, &Arc<Kv>> = self.state.in_range(range).map(|kv| (&kv.key, kv)).collect();
        for (key, kv) in self.changed.iter().filter(|(key, _)| range.contains(key)) {
            match kv {
                Some(kv) => found.insert(key, kv),
                None => found.remove(key),
            };
        }
        found.into_values().cloned().collect()
    }

    fn get(&self, query: &Query) -> Result<Answer, Refusal> {
        match query.revision {
            Some(revision) if revision > self.state.revision => return Err(Refusal::Future),
            Some(revision) if revision < self.state.revision => {
                return Err(Refusal::Unsupported("reading an older revision"));
            }
            _ => {}
        }
        let mut kvs = self.find(&query.range);
        let count = kvs.len();
        if query.count_only {
            kvs.clear();
            return Ok(Answer::Got { kvs, count, more: false, keys_only: false });
        }
        if let Some((by, direction)) = query.sort {
            sort(&mut kvs, by, direction);
        }
        kvs.truncate(query.limit.unwrap_or(usize::MAX));
        Ok(Answer::Got { more: kvs.len() < count, kvs, count, keys_only: query.keys_only })
    }

    fn put(&mut self, put: &Put) -> Result<Answer, Refusal> {
        let previous = self.find(&KeyRange { start: put.key.clone(), end: super::End::Only }).pop();
        let value = match (&put.value, &previous) {
            (Some(value), _) => value.clone(),
            (None, Some(previous)) => previous.value.clone(),
            (None, None) => return Err(Refusal::KeyNotFound),
        };
        let lease = match (put.lease, &previous) {
            (Some(lease), _) => lease,
            (None, Some(previous)) => previous.lease,
            (None, None) => return Err(Refusal::KeyNotFound),
        };
        self.check_lease(lease)?;
        let kv = Arc::new(Kv {
            key: put.key.clone(),
            value,
            created: previous.as_ref().map_or(self.revision, |kv| kv.created),
            modified: self.revision,
            version: previous.as_ref().map_or(0, |kv| kv.version) + 1,
            lease,
        });
        self.changed.insert(put.key.clone(), Some(kv.clone()));
        self.events.push(Event { kv, deleted: false, previous: previous.clone() });
        Ok(Answer::Put { previous: previous.filter(|_| put.previous) })
    }

    /// A lease whose time has come is as good as gone, even if its end is not yet written.
    fn check_lease(&self, lease: LeaseId) -> Result<(), Refusal> {
        let alive = || self.state.lease(lease).is_some_and(|found| found.deadline > self.now);
        if lease == 0 || alive() { Ok(()) } else { Err(Refusal::LeaseNotFound) }
    }

    fn delete(&mut self, delete: &Delete) -> Answer {
        let found = self.find(&delete.range);
        for kv in &found {
            self.changed.insert(kv.key.clone(), None);
            self.events.push(deletion(kv.clone(), self.revision));
        }
        let count = found.len();
        Answer::Deleted { count, previous: if delete.previous { found } else { Vec::new() } }
    }
}

fn sort(kvs: &mut [Arc<Kv>], by: SortBy, direction: Direction) {
    kvs.sort_by(|a, b| match by {
        SortBy::Key => a.key.cmp(&b.key),
        SortBy::Version => a.version.cmp(&b.version),
        SortBy::Created => a.created.cmp(&b.created),
        SortBy::Modified => a.modified.cmp(&b.modified),
        SortBy::Value => a.value.cmp(&b.value),
    });
    if direction == Direction::Down {
        kvs.reverse();
    }
}
