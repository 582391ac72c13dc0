//! The store's part of the world, as values.

use std::collections::{BTreeMap, BTreeSet};

use handover_proto::ids::{AgentId, RolloutId, Service};
use handover_proto::keys::{ServiceKeys, alive_agent};
use handover_proto::lease::{LeaseView, RawEntry};
use handover_proto::numbers::{Era, Serial};
use handover_proto::registration::Registration;
use handover_proto::staging::StagingRequest;
use handover_proto::stored::{STORED_VERSION, StoredError, decode};
use handover_proto::txn::Revision;
use handover_store::client::Entry;
use serde::de::Error as _;

use super::{Assigned, World};
use crate::core::staging::Requested;

impl World {
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

    /// What the service's hosts are asked to have in place ahead of its window.
    ///
    /// # Errors
    /// [`StoredError::Garbled`], which names the key; of another version, too, since no agent of ours takes that.
    pub fn staging(&self, service: &Service) -> Result<Option<Requested>, StoredError> {
        let key = self.keys.service(service).staging();
        let requested = |entry: &Entry| {
            let request: StagingRequest = decode(&key, &entry.value)?;
            if request.v != STORED_VERSION {
                let source = serde_json::Error::custom(format!("version {}, and not {STORED_VERSION}", request.v));
                return Err(StoredError::Garbled { key: key.clone(), source });
            }
            Ok(Requested { request, serial: Serial(entry.mod_revision) })
        };
        self.entry(&key).map(requested).transpose()
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
}
