//! One rollout as the store has it: plan, journal and the journal's fold.

use handover_proto::ids::{RolloutId, Service};
use handover_proto::stored::{StoredError, decode};
use serde::{Deserialize, Serialize};

use crate::core::event::{Event, JournalError, Record, check_chain};
use crate::core::plan::Plan;
use crate::core::progress::{Illegal, Progress};
use crate::world::World;

/// A rollout with its whole journal.
#[derive(Debug, Clone)]
pub struct Rollout {
    /// What it will do.
    pub plan: Plan,
    /// What was decided so far; never empty.
    pub records: Vec<Record>,
    /// Where it stands.
    pub progress: Progress,
}

/// What stands under a service's rollout key while one runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Version of the stored form.
    pub v: u32,
    /// Which one runs.
    pub rollout: RolloutId,
}

/// A rollout that cannot be continued or shown.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// There is no such rollout.
    #[error("there is no rollout {0}; `handover rollout history` lists them")]
    Unknown(RolloutId),
    /// A stored value is not readable.
    #[error(transparent)]
    Stored(#[from] StoredError),
    /// The journal is not whole.
    #[error("rollout {rollout} cannot be continued")]
    Journal {
        /// Which.
        rollout: RolloutId,
        /// What is wrong with the records.
        source: JournalError,
    },
    /// The journal says what no coordinator can have decided.
    #[error("rollout {rollout} cannot be continued")]
    Illegal {
        /// Which.
        rollout: RolloutId,
        /// Which record.
        source: Illegal,
    },
}

impl Rollout {
    /// Reads a rollout, checks that its journal is whole, and folds it.
    ///
    /// # Errors
    /// [`RolloutError`].
    pub fn read(world: &World, id: &RolloutId) -> Result<Self, RolloutError> {
        let keys = world.keys.rollout(id);
        let plan = world.entry(&keys.plan()).ok_or_else(|| RolloutError::Unknown(id.clone()))?;
        let plan = Plan::from_bytes(&plan.key, &plan.value)?;
        let prefix = keys.events();
        let records = world.under(&prefix).map(|entry| decode(&entry.key, &entry.value));
        let records = records.collect::<Result<Vec<Record>, _>>()?;
        check_chain(&records).map_err(|source| RolloutError::Journal { rollout: id.clone(), source })?;
        let progress = Progress::fold(&plan, &records);
        let progress = progress.map_err(|source| RolloutError::Illegal { rollout: id.clone(), source })?;
        Ok(Self { plan, records, progress })
    }

    /// The rollout that runs for a service.
    ///
    /// # Errors
    /// [`StoredError::Garbled`], which names the key.
    pub fn claimed(world: &World, service: &Service) -> Result<Option<RolloutId>, StoredError> {
        Ok(world.value::<Claim>(&world.keys.service(service).rollout())?.map(|claim| claim.rollout))
    }

    /// The rollout of a service that began last, running or over.
    ///
    /// # Errors
    /// [`RolloutError`] of the newest one that cannot be read.
    pub fn latest(world: &World, service: &Service) -> Result<Option<Self>, RolloutError> {
        if let Some(id) = Self::claimed(world, service)? {
            return Self::read(world, &id).map(Some);
        }
        for id in world.rollouts().iter().rev() {
            let rollout = Self::read(world, id)?;
            if rollout.plan.service == *service {
                return Ok(Some(rollout));
            }
        }
        Ok(None)
    }

    /// The same one record later.
    ///
    /// # Errors
    /// [`RolloutError::Illegal`].
    pub fn then(mut self, record: Record) -> Result<Self, RolloutError> {
        let progress = self.progress.after(&self.plan, &record);
        self.progress = progress.map_err(|source| RolloutError::Illegal { rollout: self.plan.id.clone(), source })?;
        self.records.push(record);
        Ok(self)
    }

    /// The operation that a rollout was started with, which makes `Start` idempotent.
    pub fn start_op(&self) -> Option<&handover_proto::ids::OpId> {
        match self.records.first().map(|record| &record.event) {
            Some(Event::Started { op, .. }) => Some(op),
            _ => None,
        }
    }
}
