//! What a coordinator knows: everything of its environment in the store, and what the agents report.
//!
//! One value with one owner at a time, from which every view and every decision is made. The same value, made from one
//! listing of the store and without reports, serves the command line when no coordinator answers.

mod fleet;
mod orders;
mod read;

use std::collections::BTreeMap;

use handover_proto::assignment::Assignment;
use handover_proto::blocker::Blocker;
use handover_proto::ids::{AgentId, Env, Service};
use handover_proto::keys::EnvKeys;
use handover_proto::numbers::Serial;
use handover_proto::txn::Revision;
use handover_proto::wire::Report;
use handover_store::client::{Entry, Listing, WatchItem};

use crate::core::store_health::Member;

pub(crate) use orders::Stage;

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
    /// When each lease's beat was seen to vanish, by its key, in Unix milliseconds.
    beats_gone: BTreeMap<String, u64>,
    /// The store's members, as they answered last.
    pub members: Vec<Member>,
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
    /// By how much its wall clock was ahead of ours when its last report came, in milliseconds.
    pub clock_ms: Option<i64>,
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
            beats_gone: BTreeMap::new(),
            members: Vec::new(),
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
                        None => {
                            if change.key.ends_with("/lease/beat") {
                                self.beats_gone.insert(change.key.clone(), now_ms);
                            }
                            self.delete(&change.key, revision);
                        }
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
            self.beats_gone.remove(&entry.key);
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

    /// Leaves a key out, as if it were not there; what it was.
    pub fn remove(&mut self, key: &str) -> Option<Entry> {
        self.entries.remove(key)
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

    /// What is heard of an agent, to be changed.
    pub fn heard_mut(&mut self, service: &Service, agent: &AgentId) -> &mut Heard {
        self.heard.entry((service.clone(), agent.clone())).or_default()
    }
}

#[cfg(test)]
mod tests;
