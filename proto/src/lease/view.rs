//! One linearizable look at the lease.

use std::collections::BTreeMap;

use super::values::{Beat, Candidate, EraValue, Holder, HolderState, Intent, IntentKind, Roster, StopProof};
use crate::ids::{AgentId, InstanceId};
use crate::keys::LeaseKeys;
use crate::numbers::{Era, NumberError, Token};
use crate::stored::{StoredError, decode};
use crate::txn::{LeaseId, Revision};

/// A value with the revisions that transactions compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen<T> {
    /// The value.
    pub value: T,
    /// Revision of its last write.
    pub mod_revision: Revision,
    /// Revision in which the key came to be.
    pub create_revision: Revision,
    /// The etcd lease it is bound to; 0: none.
    pub lease: LeaseId,
}

/// The lease's keys, all as of one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaseView {
    /// The holder key.
    pub holder: Option<Seen<Holder>>,
    /// The beat.
    pub beat: Option<Seen<Beat>>,
    /// The intent.
    pub intent: Option<Seen<Intent>>,
    /// The era, and the revision of its key (0: there is none, era 0).
    pub era: (Era, Revision),
    /// Who may take over.
    pub roster: Option<Seen<Roster>>,
    /// Whether take-over is frozen.
    pub frozen: bool,
    /// The candidates, by instance.
    pub candidates: BTreeMap<InstanceId, Seen<Candidate>>,
}

/// Holder and beat contradict each other: somebody wrote past the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "lease keys are corrupt: the holder key was written in revision {holder}, the beat in {beat}; nobody acts until an \
     operator has looked (`etcdctl get --prefix .../lease/`)"
)]
pub struct Corrupt {
    holder: Revision,
    beat: Revision,
}

impl LeaseView {
    /// Revision of the holder key's last write; 0: there has never been one.
    pub fn turn_revision(&self) -> Revision {
        self.holder.as_ref().map_or(0, |seen| seen.mod_revision)
    }

    /// Revision of the beat's last write; 0: there is none.
    pub fn beat_revision(&self) -> Revision {
        self.beat.as_ref().map_or(0, |seen| seen.mod_revision)
    }

    /// The token of the present turn.
    ///
    /// # Errors
    /// If the revision does not fit a token.
    pub fn token(&self) -> Result<Option<Token>, NumberError> {
        self.holder.as_ref().map(|seen| Token::new(seen.value.era, seen.mod_revision)).transpose()
    }

    /// The intent, unless the holder key shows that it is done: by its operation id, or because somebody else has held
    /// since (the id stands there only until the next turn).
    ///
    /// One to park is about one turn: whoever takes the lease up again later, perhaps the same instance, is not meant.
    pub fn open_intent(&self) -> Option<&Seen<Intent>> {
        let holder = &self.holder.as_ref()?.value;
        let past =
            |seen: &Seen<Intent>| seen.value.kind == IntentKind::Park && seen.mod_revision < self.turn_revision();
        let asks_owner = |seen: &Seen<Intent>| seen.value.from == holder.owner().instance;
        self.intent.as_ref().filter(|seen| holder.op != seen.value.op && asks_owner(seen) && !past(seen))
    }

    /// The open intent that keeps `instance` from taking the lease: it names another, which could take it.
    ///
    /// One that names nobody who could keeps nobody waiting: its coordinator may be gone.
    pub fn kept_for_other(&self, instance: &InstanceId) -> Option<&Seen<Intent>> {
        self.open_intent().filter(|seen| seen.value.to.as_ref().is_some_and(|to| to != instance && self.could_take(to)))
    }

    /// Whether `to` is a ready candidate that may take the lease: over from a holder only if the roster lists its agent.
    pub fn could_take(&self, to: &InstanceId) -> bool {
        let held = self.holder.as_ref().is_some_and(|seen| seen.value.held().is_some());
        self.candidates.get(to).is_some_and(|seen| seen.value.ready && (!held || self.lists(&seen.value.owner.agent)))
    }

    /// Whether a freeze keeps `agent` from taking the lease. Not the one that lost its own process: a freeze keeps the
    /// lease where it is.
    pub fn is_frozen_for(&self, agent: &AgentId) -> bool {
        let stays = |holder: &Holder| {
            let died = match &holder.state {
                HolderState::Held(_) => true,
                HolderState::Free(free) => free.stop_proof == StopProof::Dead,
            };
            died && holder.owner().agent == *agent
        };
        self.frozen && !self.holder.as_ref().is_some_and(|seen| stays(&seen.value))
    }

    /// Attachment rule 2 (`SAFETY.md` §1.4): a beat belongs to the turn that wrote it.
    ///
    /// # Errors
    /// [`Corrupt`], with both revisions.
    pub fn check(&self) -> Result<(), Corrupt> {
        let (holder, beat) = (self.turn_revision(), self.beat_revision());
        if beat != 0 && holder != beat { Err(Corrupt { holder, beat }) } else { Ok(()) }
    }
}

/// One key as the store gives it, from a read or from a watch.
#[derive(Debug, Clone, Copy)]
pub struct RawEntry<'a> {
    /// The value.
    pub value: &'a [u8],
    /// Revision of the last write.
    pub mod_revision: Revision,
    /// Revision in which the key came to be.
    pub create_revision: Revision,
    /// The etcd lease; 0: none.
    pub lease: LeaseId,
}

impl RawEntry<'_> {
    fn seen<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<Seen<T>, StoredError> {
        Ok(Seen {
            value: decode(key, self.value)?,
            mod_revision: self.mod_revision,
            create_revision: self.create_revision,
            lease: self.lease,
        })
    }
}

impl LeaseView {
    /// Takes in what one key holds now; `None`: it does not exist. Keys that are not the lease's are left alone.
    ///
    /// # Errors
    /// [`StoredError::Garbled`]; the view is then as before, but an intent or a roster that cannot be read is none: what
    /// others write must not stop the holder.
    pub fn put(&mut self, keys: &LeaseKeys, key: &str, entry: Option<RawEntry<'_>>) -> Result<(), StoredError> {
        if key == keys.holder() {
            self.holder = entry.map(|raw| raw.seen(key)).transpose()?;
        } else if key == keys.beat() {
            self.beat = entry.map(|raw| raw.seen(key)).transpose()?;
        } else if key == keys.intent() {
            self.intent = None;
            self.intent = entry.map(|raw| raw.seen(key)).transpose()?;
        } else if key == keys.roster() {
            self.roster = None;
            self.roster = entry.map(|raw| raw.seen(key)).transpose()?;
        } else if key == keys.freeze() {
            self.frozen = entry.is_some();
        } else if key == keys.era() {
            let era: Option<Seen<EraValue>> = entry.map(|raw| raw.seen(key)).transpose()?;
            self.era = era.map_or_else(Default::default, |seen| (seen.value.era, seen.mod_revision));
        } else if let Some(Ok(instance)) = key.strip_prefix(&keys.candidates()).map(str::parse::<InstanceId>) {
            match entry {
                Some(raw) => self.candidates.insert(instance, raw.seen(key)?),
                None => self.candidates.remove(&instance),
            };
        }
        Ok(())
    }
}
