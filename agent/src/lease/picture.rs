//! The lease's keys as this keeper knows them, put together from the watch and from linearizable reads.
//!
//! Both bring news in no fixed order: a read may overtake the watch. Every key therefore remembers the revision *as of*
//! which it is known, and older news about it are dropped.
//!
//! A watch shows changes soonest, but only a linearizable read proves that nothing was missed: waits that others' safety
//! hangs on (the quarantine) are counted from reads alone.

use std::collections::BTreeMap;

use handover_proto::keys::LeaseKeys;
use handover_proto::lease::{EraValue, Held, Holder, LeaseView, RawEntry, Seen};
use handover_proto::numbers::Era;
use handover_proto::stored::decode;
use handover_proto::txn::{Revision, Txn};
use handover_store::client::{Change, Entry, Listing, TxnReply};

use super::belief::{Belief, Shown, Worth};
use super::deadline::Boot;

/// What is known of the lease's keys.
#[derive(Debug, Clone)]
pub struct Picture {
    keys: LeaseKeys,
    view: LeaseView,
    as_of: BTreeMap<String, Revision>,
    newest: Revision,
    unreadable: BTreeMap<String, String>,
    belief: Belief,
    /// The store is believed anew, so a new listing is wanted.
    anew: bool,
    listed: bool,
    confirmed: Option<Boot>,
    beat_gone: Option<(Revision, Boot)>,
    vacant: Option<(Revision, Boot)>,
    /// Since when reads have shown that the holder key proves nothing.
    unproven: Option<(Revision, Boot)>,
}

impl Picture {
    /// Nothing is known yet, but what an earlier run in this state directory knew of the store.
    pub fn new(keys: LeaseKeys, belief: Belief) -> Self {
        Self {
            keys,
            view: LeaseView::default(),
            as_of: BTreeMap::new(),
            newest: 0,
            unreadable: BTreeMap::new(),
            belief,
            anew: false,
            listed: false,
            confirmed: None,
            beat_gone: None,
            vacant: None,
            unproven: None,
        }
    }

    /// The keys it is a picture of.
    pub fn keys(&self) -> &LeaseKeys {
        &self.keys
    }

    /// The view that transactions are built from.
    pub fn view(&self) -> &LeaseView {
        &self.view
    }

    /// Whether all keys have been seen once.
    pub fn is_known(&self) -> bool {
        self.listed
    }

    /// Whether the watch has to begin anew: the store is believed anew, and is known only as far as one read.
    pub fn wants_listing(&self) -> bool {
        self.anew
    }

    /// The watch begins anew.
    pub fn listing_begun(&mut self) {
        self.anew = false;
    }

    /// Which cluster answers.
    pub fn cluster(&self) -> Option<u64> {
        self.belief.cluster()
    }

    /// What is known of the store as a whole.
    pub fn belief(&self) -> &Belief {
        &self.belief
    }

    /// Whether the holder key proves nothing about who works: it was written in a lower era, so before the store was
    /// restored, or it was deleted.
    pub fn is_unproven(&self) -> bool {
        let written = self.view.holder.as_ref().map_or_else(Default::default, |seen| seen.value.era);
        let deleted = self.listed && self.belief.last_turn() > self.view.turn_revision();
        deleted || written < self.view.era.0
    }

    /// Since when reads have shown that the holder key proves nothing; none: none has yet, or it does prove something.
    pub fn unproven(&self) -> Option<Boot> {
        self.unproven.map(|(_, since)| since)
    }

    /// The newest revision that the store has shown.
    pub fn revision(&self) -> Revision {
        self.newest
    }

    /// The revision that no answer to a later question is below, unless the store went back.
    pub fn least(&self) -> Revision {
        self.newest.max(self.belief.least())
    }

    /// When a linearizable read last confirmed it.
    pub fn confirmed(&self) -> Option<Boot> {
        self.confirmed
    }

    /// Since when linearizable reads have shown the present holder without a beat.
    pub fn beat_gone(&self) -> Option<Boot> {
        self.beat_gone.map(|(_, since)| since)
    }

    /// Since when nobody holds, or the holder has no beat, from any source: for politeness among takers, never for
    /// safety.
    pub fn vacant(&self) -> Option<Boot> {
        self.vacant.map(|(_, since)| since)
    }

    /// The present turn, if somebody holds.
    pub fn held(&self) -> Option<(&Seen<Holder>, &Held)> {
        self.view.holder.as_ref().and_then(|seen| seen.value.held().map(|held| (seen, held)))
    }

    /// Why nobody may act on this picture; none: it is sound.
    pub fn trouble(&self) -> Option<String> {
        if let Some(trouble) = self.belief.trouble() {
            return Some(trouble);
        }
        let (shown, known) = (self.view.era.0, self.belief.era());
        if self.listed && shown < known {
            let (shown, known_era) = (shown.0, known.0);
            return Some(format!("the era key shows {shown} after {known_era}; {}", super::belief::command(known)));
        }
        let unreadable = self.unreadable.iter().find(|(key, _)| !self.is_for_takers(key)).map(|(_, why)| why.clone());
        unreadable.or_else(|| self.view.check().err().map(|corrupt| corrupt.to_string()))
    }

    /// Why nobody may take the lease or receive it, though whoever holds it goes on: a key that only takers need.
    pub fn takers_trouble(&self) -> Option<String> {
        self.unreadable.iter().find(|(key, _)| self.is_for_takers(key)).map(|(_, why)| why.clone())
    }

    fn is_for_takers(&self, key: &str) -> bool {
        key == self.keys.intent() || key == self.keys.roster()
    }

    /// Takes in a listing of everything under the lease's prefix.
    pub fn apply_listing(&mut self, listing: &Listing, now: Boot) {
        let key = self.keys.era();
        let era = listing.entries.iter().find(|entry| entry.key == key);
        // A listing may have been read before what is known by now: its revision is not to be compared.
        let (cluster, revision) = (listing.cluster_id, listing.revision);
        let holder = self.keys.holder();
        let holder = listing.entries.iter().find(|entry| entry.key == holder);
        let rewritten = self.rewritten(holder.map_or(0, |entry| entry.mod_revision), revision);
        let shown = Shown { cluster, revision, floor: 0, least: 0, era: era_of(&key, era), rewritten };
        if !self.counts(&shown, now) {
            return;
        }
        let mut keys: Vec<String> = self.as_of.keys().cloned().collect();
        keys.extend(listing.entries.iter().map(|entry| entry.key.clone()));
        for key in keys {
            let entry = listing.entries.iter().find(|entry| entry.key == key);
            self.put(&key, entry, listing.revision, true);
        }
        self.newest = self.newest.max(listing.revision);
        (self.listed, self.anew) = (true, false);
        self.confirm(now);
    }

    /// Takes in the answer to `asked`, a linearizable read that [`handover_proto::lease::read`] began when revision
    /// `floor` was known (0: not to be compared). Returns whether it counts.
    pub fn apply_read(&mut self, asked: &Txn, reply: &TxnReply, floor: Revision, now: Boot) -> bool {
        let branch = if reply.succeeded { &asked.then } else { &asked.or_else };
        let (mut era, mut rewritten) = (None, None);
        for (key, entry) in super::renewal::reads(branch, reply) {
            if key == self.keys.era() {
                era = era_of(key, entry);
            } else if key == self.keys.holder() {
                rewritten = self.rewritten(entry.map_or(0, |entry| entry.mod_revision), reply.revision);
            }
        }
        let least = floor.max(self.belief.least());
        let shown = Shown { cluster: reply.origin.cluster_id, revision: reply.revision, floor, least, era, rewritten };
        if !self.counts(&shown, now) {
            return false;
        }
        for (key, entry) in super::renewal::reads(branch, reply) {
            self.put(key, entry, reply.revision, true);
        }
        self.confirm(now);
        true
    }

    /// Takes in what the watch says of one revision.
    pub fn apply_changes(&mut self, revision: Revision, changes: &[Change], now: Boot) {
        if self.belief.trouble().is_some() {
            return;
        }
        for change in changes {
            self.put(&change.key, change.value.as_ref(), revision, false);
        }
        self.note_absence(now);
    }

    /// Whether an answer counts. One of a store that is believed anew does, and all that was known before does not:
    /// revisions of two clusters do not compare.
    fn counts(&mut self, shown: &Shown, now: Boot) -> bool {
        match self.belief.judge(shown, now) {
            Worth::Nothing => false,
            Worth::Counts => true,
            Worth::Anew => {
                *self = Self { anew: true, ..Self::new(self.keys.clone(), self.belief.clone()) };
                true
            }
        }
    }

    /// The holder key's revision in an answer, and the later one that is known, if the answer is not the older news.
    /// The revisions of its writes only grow.
    fn rewritten(&self, shown: Revision, revision: Revision) -> Option<(Revision, Revision)> {
        let key = self.keys.holder();
        let newer = revision >= self.as_of.get(&key).copied().unwrap_or_default();
        let known = self.belief.last_turn();
        (newer && 0 < shown && shown < known).then_some((shown, known))
    }

    fn put(&mut self, key: &str, entry: Option<&Entry>, revision: Revision, is_read: bool) {
        self.newest = self.newest.max(revision);
        let known = self.as_of.get(key).copied().unwrap_or_default();
        // A read at the revision of the last change shows the same; a change of that revision was seen already.
        if revision < known || (revision == known && !is_read) {
            return;
        }
        let raw = entry.map(|entry| RawEntry {
            value: &entry.value,
            mod_revision: entry.mod_revision,
            create_revision: entry.create_revision,
            lease: entry.lease,
        });
        self.as_of.insert(key.to_owned(), revision);
        self.unreadable.remove(key);
        if let Err(error) = self.view.put(&self.keys, key, raw) {
            let why = if key == self.keys.era() {
                let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                super::belief::unreadable_era(&cause)
            } else {
                error.to_string()
            };
            self.cannot_read(key, why);
        }
    }

    /// One candidate's garbled key must not stop the others; it just is no candidate.
    fn cannot_read(&mut self, key: &str, error: String) {
        if key.starts_with(&self.keys.candidates()) {
            tracing::warn!(key, error, "ignored a candidate");
            // `None` cannot fail: there is nothing to decode.
            if self.view.put(&self.keys, key, None).is_ok() {
                return;
            }
        }
        self.unreadable.insert(key.to_owned(), error);
    }

    fn confirm(&mut self, now: Boot) {
        self.confirmed = Some(now);
        self.note_absence(now);
        let absent = self.held().map(|(seen, _)| seen.mod_revision).filter(|_| self.view.beat.is_none());
        self.beat_gone = since(self.beat_gone, absent, now);
        let nothing = Some(self.view.turn_revision()).filter(|_| self.is_unproven());
        self.unproven = since(self.unproven, nothing, now);
    }

    fn note_absence(&mut self, now: Boot) {
        let turn = self.view.turn_revision();
        self.belief.note_turn(turn);
        let absent = Some(turn).filter(|_| self.view.beat.is_none());
        self.vacant = since(self.vacant, absent, now);
        // News from the watch can end the count, but not begin it.
        self.beat_gone = self.beat_gone.filter(|(counted, _)| absent == Some(*counted) && self.held().is_some());
    }
}

/// The count goes on for the same turn, begins anew for another one, and ends if there is nothing to count.
fn since(before: Option<(Revision, Boot)>, absent: Option<Revision>, now: Boot) -> Option<(Revision, Boot)> {
    let turn = absent?;
    before.filter(|(counted, _)| *counted == turn).or(Some((turn, now)))
}

/// The era in an answer; none: it cannot be read.
fn era_of(key: &str, entry: Option<&Entry>) -> Option<Era> {
    let Some(entry) = entry else { return Some(Era::default()) };
    decode::<EraValue>(key, &entry.value).ok().map(|value| value.era)
}

#[cfg(test)]
mod tests;
