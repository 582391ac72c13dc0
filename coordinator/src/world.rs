//! What a coordinator knows: everything of its environment in the store, and what the agents report.
//!
//! One value with one owner at a time, from which every view and every decision is made. The same value, made from one
//! listing of the store and without reports, serves the command line when no coordinator answers.

mod fleet;

use std::collections::{BTreeMap, BTreeSet};

use handover_proto::assignment::Assignment;
use handover_proto::blocker::Blocker;
use handover_proto::ids::{AgentId, Env, RolloutId, Service};
use handover_proto::keys::{EnvKeys, ServiceKeys, alive_agent};
use handover_proto::lease::{LeaseView, RawEntry};
use handover_proto::numbers::{Era, Serial};
use handover_proto::registration::Registration;
use handover_proto::stored::{StoredError, decode};
use handover_proto::txn::Revision;
use handover_proto::wire::Report;
use handover_store::client::{Entry, Listing, WatchItem};

/// Everything known of one environment.
#[derive(Debug, Clone)]
pub struct World {
    /// Its keys.
    pub keys: EnvKeys,
    entries: BTreeMap<String, Entry>,
    /// Everything up to this revision has been told by the watch.
    followed: Revision,
    /// Counts the changes to the store's part, for whoever cares about nothing else.
    pub edits: u64,
    /// Whether the store has been listed at all.
    pub listed: bool,
    /// Set while the store is not followed: why, and since when (Unix milliseconds).
    pub cut_off: Option<(String, u64)>,
    /// What is heard of each agent.
    pub heard: BTreeMap<(Service, AgentId), Heard>,
    /// What the engine waits for, while it is ours.
    pub waiting: BTreeMap<Service, Waiting>,
}

/// What a rollout waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// How long its journal was when this came out; with a longer one it says nothing.
    pub records: usize,
    /// Most important first.
    pub blockers: Vec<Blocker>,
}

/// What is heard of one agent.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    /// Its last report, whatever its age.
    pub report: Option<Report>,
    /// Set while its stream is down.
    pub silent: Option<Silence>,
    /// The last delivery that it refused.
    pub refused: Option<Refusal>,
}

/// An agent that is not heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silence {
    /// Unix milliseconds.
    pub since_ms: u64,
    /// What the connection said last.
    pub reason: String,
}

/// An assignment that an agent refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which one.
    pub serial: Serial,
    /// Unix milliseconds.
    pub at_ms: u64,
    /// The agent's sentence.
    pub reason: String,
}

/// An assignment as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// Its serial.
    pub serial: Serial,
    /// The stored bytes.
    pub bytes: Vec<u8>,
    /// What they say.
    pub assignment: Assignment,
}

impl World {
    /// Nothing is known yet.
    pub fn new(env: &Env) -> Self {
        Self {
            keys: EnvKeys::new(env),
            entries: BTreeMap::new(),
            followed: 0,
            edits: 0,
            listed: false,
            cut_off: None,
            heard: BTreeMap::new(),
            waiting: BTreeMap::new(),
        }
    }

    /// What one listing of the environment shows.
    pub fn of_listing(env: &Env, listing: Listing) -> Self {
        let mut world = Self::new(env);
        world.reset(listing);
        world
    }

    fn reset(&mut self, listing: Listing) {
        self.entries = listing.entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        self.followed = listing.revision;
        self.edits += 1;
        self.listed = true;
        self.cut_off = None;
    }

    /// Takes in what the watch on the environment says. `now_ms` is the wall clock.
    pub fn follow(&mut self, item: WatchItem, now_ms: u64) {
        match item {
            WatchItem::Reset(listing) => self.reset(listing),
            WatchItem::Interrupted(error) => {
                let since = self.cut_off.take().map_or(now_ms, |(_, since)| since);
                self.cut_off = Some((error.to_string(), since));
            }
            WatchItem::Changes { revision, changes } => {
                self.cut_off = None;
                if revision <= self.followed {
                    return;
                }
                self.followed = revision;
                for change in changes {
                    match change.value {
                        Some(entry) => self.put(entry),
                        None => self.delete(&change.key, revision),
                    }
                }
            }
        }
    }

    /// Takes in writes of our own before the watch tells of them; what it has told of already changes nothing.
    pub fn wrote(&mut self, entries: Vec<Entry>, deleted: &[String], revision: Revision) {
        if revision > self.followed {
            entries.into_iter().for_each(|entry| self.put(entry));
            deleted.iter().for_each(|key| self.delete(key, revision));
        }
    }

    /// Takes in a listing that was asked for beside the watch, unless the watch is further.
    pub fn relist(&mut self, listing: Listing) {
        if listing.revision >= self.followed {
            self.reset(listing);
        }
    }

    fn put(&mut self, entry: Entry) {
        if self.entries.get(&entry.key).is_none_or(|known| known.mod_revision <= entry.mod_revision) {
            self.entries.insert(entry.key.clone(), entry);
            self.edits += 1;
        }
    }

    fn delete(&mut self, key: &str, revision: Revision) {
        if self.entries.get(key).is_some_and(|known| known.mod_revision < revision) {
            self.entries.remove(key);
            self.edits += 1;
        }
    }

    /// Everything up to this revision is known.
    pub fn followed(&self) -> Revision {
        self.followed
    }

    /// One key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// All keys under a prefix, in key order.
    pub fn under<'w>(&'w self, prefix: &'w str) -> impl Iterator<Item = &'w Entry> {
        let from = self.entries.range(prefix.to_owned()..);
        from.map(|(_, entry)| entry).take_while(move |entry| entry.key.starts_with(prefix))
    }

    /// One key's value.
    ///
    /// # Errors
    /// [`StoredError::Garbled`], which names the key.
    pub fn value<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StoredError> {
        self.entry(key).map(|entry| decode(key, &entry.value)).transpose()
    }

    /// The services that have an agent or a rollout's claim.
    pub fn services(&self) -> BTreeSet<Service> {
        let prefix = self.keys.prefix();
        let rollouts = self.keys.rollouts();
        let keys = self.under(&prefix).filter(|entry| !entry.key.starts_with(&rollouts));
        let names = keys.filter_map(|entry| entry.key.strip_prefix(&prefix)?.split_once('/'));
        names.filter_map(|(service, _)| service.parse().ok()).collect()
    }

    /// The agents of a service, by name.
    ///
    /// # Errors
    /// [`StoredError::Garbled`], which names the key.
    pub fn registrations(&self, service: &Service) -> Result<BTreeMap<AgentId, Registration>, StoredError> {
        let keys = self.keys.service(service);
        let prefix = keys.agents();
        let own = self.under(&prefix).filter(|entry| alive_agent(&keys, &entry.key).is_none());
        let parsed = own.map(|entry| decode::<Registration>(&entry.key, &entry.value));
        parsed.map(|registration| registration.map(|r| (r.agent.clone(), r))).collect()
    }

    /// Whether the agent's alive key is there.
    pub fn is_alive(&self, keys: &ServiceKeys, agent: &AgentId) -> bool {
        self.entry(&keys.alive(agent)).is_some()
    }

    /// An agent's assignment.
    ///
    /// # Errors
    /// [`StoredError::Garbled`], which names the key.
    pub fn assigned(&self, service: &Service, agent: &AgentId) -> Result<Option<Assigned>, StoredError> {
        let key = self.keys.service(service).assigned(agent);
        let assigned = |entry: &Entry| {
            let assignment = decode(&key, &entry.value)?;
            Ok(Assigned { serial: Serial(entry.mod_revision), bytes: entry.value.clone(), assignment })
        };
        self.entry(&key).map(assigned).transpose()
    }

    /// The scheduler lease of a service.
    ///
    /// # Errors
    /// [`StoredError::Garbled`], which names the key.
    pub fn lease(&self, service: &Service) -> Result<LeaseView, StoredError> {
        let keys = self.keys.service(service).lease();
        let mut view = LeaseView::default();
        for entry in self.under(&keys.prefix()) {
            let raw = RawEntry {
                value: &entry.value,
                mod_revision: entry.mod_revision,
                create_revision: entry.create_revision,
                lease: entry.lease,
            };
            view.put(&keys, &entry.key, Some(raw))?;
        }
        Ok(view)
    }

    /// The highest era of any service: a restored store raises it, and a term must not fall behind.
    ///
    /// # Errors
    /// [`StoredError::Garbled`], which names the key.
    pub fn era(&self) -> Result<Era, StoredError> {
        let mut eras = self.services().into_iter().map(|service| self.lease(&service).map(|view| view.era.0));
        eras.try_fold(Era::default(), |highest, era| Ok(highest.max(era?)))
    }

    /// All rollouts that have a journal, oldest first by the revision of their first record.
    pub fn rollouts(&self) -> Vec<RolloutId> {
        let prefix = self.keys.rollouts();
        let mut first: BTreeMap<RolloutId, Revision> = BTreeMap::new();
        for entry in self.under(&prefix) {
            let id = entry.key.strip_prefix(&prefix).and_then(|rest| rest.split_once('/')).map(|(id, _)| id.parse());
            if let Some(Ok(id)) = id {
                let created = first.entry(id).or_insert(entry.create_revision);
                *created = entry.create_revision.min(*created);
            }
        }
        let mut ids: Vec<_> = first.into_iter().collect();
        ids.sort_by_key(|(_, created)| *created);
        ids.into_iter().map(|(id, _)| id).collect()
    }

    /// What is heard of an agent, to be changed.
    pub fn heard_mut(&mut self, service: &Service, agent: &AgentId) -> &mut Heard {
        self.heard.entry((service.clone(), agent.clone())).or_default()
    }
}

#[cfg(test)]
mod tests;
