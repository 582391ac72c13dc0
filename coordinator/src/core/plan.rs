//! A plan: what a rollout will do, frozen before it starts, with a hash that every assignment carries.
//!
//! Start-first, per wave: start the candidates beside the current version, shift the reads in shares, then the writes in
//! one step. After the last wave the lease moves, once: as long as traffic is still moving, going back leaves the scheduler
//! where it is. It moves to the candidate that has soaked longest. Then the whole fleet soaks, with the current version kept
//! warm, and only then that is retired: the point of no return.
//!
//! Stop-first, per wave: the hosts leave their balancers, the candidates take the current version's place and open by
//! themselves, and are watched. The lease moves before the last wave, which its holder is in. Nothing is kept warm, and
//! until the end everything can go back the same way. A wave that leaves nobody serving does not leave: its gates hold.

mod make;
mod words;

use std::time::Duration;

use handover_proto::ids::{AgentId, RolloutId, Service, SlotId, Version};
use handover_proto::stored::{StoredError, decode, encode};
use serde::{Deserialize, Serialize};

use super::duration;
use super::event::sha256_hex;
use super::spec::{Rules, Way};

pub use make::PlanError;

/// What a rollout will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of the stored form.
    pub v: u32,
    /// The rollout.
    pub id: RolloutId,
    /// The service.
    pub service: Service,
    /// The version that serves now; none: the hosts are brought up.
    pub from: Option<Version>,
    /// The version that is to serve.
    pub to: Version,
    /// How a host is changed.
    pub way: Way,
    /// Every host that changes, in the order of the waves.
    pub hosts: Vec<Host>,
    /// The host whose candidate takes the lease; none if no instance of `from` has held it.
    pub lease_to: Option<AgentId>,
    /// The floor: hosts that serve at any moment.
    pub min_serving: usize,
    /// What is done, in this order.
    pub steps: Vec<Step>,
    /// Limits that hold all the time.
    pub rules: Rules,
    #[serde(skip)]
    hash: String,
}

/// One host of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its agent.
    pub agent: AgentId,
    /// Its wave, from 0.
    pub wave: u32,
    /// Where the current version runs.
    pub current: Option<SlotId>,
    /// Where the candidate will run.
    pub candidate: SlotId,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Step {
    /// Every host fetches and verifies the version. Nothing is touched, so that one that refuses ends the rollout.
    Stage,
    /// The wave's hosts leave their balancers, and still serve what comes.
    Leave {
        /// Which wave, from 0.
        wave: u32,
    },
    /// The wave's candidates are started, until they are READY; in the current version's place they open then, too.
    Start {
        /// Which wave, from 0.
        wave: u32,
    },
    /// The wave's candidates get these shares, in percent, and are watched with them.
    Shift {
        /// Which wave, from 0.
        wave: u32,
        /// Of the reads.
        reads: u32,
        /// Of the writes.
        writes: u32,
        /// For how long.
        #[serde(with = "duration", rename = "soak_ms")]
        soak: Duration,
    },
    /// The lease moves to a candidate; from here on candidates may hold it, and the current version may not.
    Lease,
    /// The whole fleet is watched, the current version is kept warm.
    Soak {
        /// For how long.
        #[serde(with = "duration", rename = "soak_ms")]
        soak: Duration,
    },
    /// The current version stops. There is no way back from here.
    Retire,
}

impl Plan {
    /// The plan in these bytes of store key `key`.
    ///
    /// # Errors
    /// If they are no plan.
    pub fn from_bytes(key: &str, bytes: &[u8]) -> Result<Self, StoredError> {
        let plan: Self = decode(key, bytes)?;
        Ok(Self { hash: plan.hash_of(bytes), ..plan })
    }

    /// The hash of what is planned: its bytes without the rollout's random id, so that two dry runs on the same fleet
    /// give the same one.
    fn hash_of(&self, bytes: &[u8]) -> String {
        let id = format!("\"id\":\"{}\",", self.id);
        sha256_hex(String::from_utf8_lossy(bytes).replacen(&id, "", 1).as_bytes())
    }

    /// As it is stored: always the same bytes for the same plan.
    ///
    /// # Errors
    /// If it cannot be written as JSON; none can.
    pub fn to_bytes(&self) -> Result<Vec<u8>, StoredError> {
        encode(self)
    }

    /// SHA-256 of its bytes without the rollout's id, hexadecimal.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Whether the candidates take the current version's place, on the way there and back.
    pub fn is_in_place(&self) -> bool {
        self.way == Way::StopFirst && self.from.is_some()
    }

    /// Whether the hosts of this wave leave before they change; if not, their gates hold.
    pub fn leaves(&self, wave: u32) -> bool {
        self.steps.contains(&Step::Leave { wave })
    }

    /// Number of waves.
    pub fn waves(&self) -> u32 {
        self.hosts.last().map_or(0, |host| host.wave + 1)
    }

    /// The host of this agent.
    pub fn host(&self, agent: &AgentId) -> Option<&Host> {
        self.hosts.iter().find(|host| host.agent == *agent)
    }

    /// The hosts that a step is about.
    pub fn hosts_of(&self, step: &Step) -> impl Iterator<Item = &Host> {
        let wave = step.wave();
        self.hosts.iter().filter(move |host| wave.is_none_or(|wave| wave == host.wave))
    }

    /// The step with this number.
    pub fn step(&self, number: u32) -> Option<&Step> {
        self.steps.get(usize::try_from(number).ok()?)
    }

    /// The steps up to this number, and it.
    pub fn steps_until(&self, number: u32) -> &[Step] {
        let end = usize::try_from(number).map_or(usize::MAX, |number| number.saturating_add(1));
        self.steps.get(..end).unwrap_or(&self.steps)
    }
}

impl Host {
    /// Whether the candidate takes the current version's place.
    pub fn is_in_place(&self) -> bool {
        self.current.as_ref() == Some(&self.candidate)
    }
}

impl Step {
    /// The wave it is about; none: all of them.
    pub fn wave(&self) -> Option<u32> {
        match self {
            Self::Leave { wave } | Self::Start { wave } | Self::Shift { wave, .. } => Some(*wave),
            Self::Stage | Self::Lease | Self::Soak { .. } | Self::Retire => None,
        }
    }

    /// How long it is watched once it is met.
    pub fn soak(&self) -> Duration {
        match self {
            Self::Shift { soak, .. } | Self::Soak { soak } => *soak,
            Self::Stage | Self::Leave { .. } | Self::Start { .. } | Self::Lease | Self::Retire => Duration::ZERO,
        }
    }
}
