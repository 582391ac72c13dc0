//! How an agent makes itself known.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{AgentId, Service, SlotId};
use crate::staging::Stages;
use crate::stored::Rest;

/// How long an agent counts as alive without a renewal.
///
/// Long against a restart of the agent (about a second) and an etcd leader change (2 s), since only the fleet view and
/// the protection of the name depend on it.
pub const ALIVE_TTL: Duration = Duration::from_secs(30);

/// What stands under an agent's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Version of the stored form.
    pub v: u32,
    /// The agent's name.
    pub agent: AgentId,
    /// Its service.
    pub service: Service,
    /// Where the coordinator dials it.
    pub endpoint: SocketAddr,
    /// Its operations port (`/ready`, `/metrics`, ...).
    pub operations: SocketAddr,
    /// Its host's name, for people.
    pub host: String,
    /// Where one instance each can run, and where that listens.
    pub slots: BTreeMap<SlotId, SocketAddr>,
    /// How long requests may wait in its gate while nothing runs behind it, in milliseconds; 0: it may not hold. None: it has
    /// no gate, or balancers in front of it would be told to send elsewhere meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_ms: Option<u64>,
    /// What it does when it is asked to have a version in place. None: an older agent, which is not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stages: Option<Stages>,
    /// Free labels, for plans.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Random, made with the state directory: whoever has it is this agent, nobody else is.
    pub state_dir_id: String,
    /// Of the host, as of registration.
    pub boot_id: String,
    /// The agent program's own version.
    pub agent_version: String,
    /// Lowest and highest version of this protocol that it speaks.
    pub protocol: (u32, u32),
    /// Of a newer agent.
    #[serde(flatten)]
    pub rest: Rest,
}

/// What stands under an agent's alive key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alive {
    /// Version of the stored form.
    pub v: u32,
    /// As in the registration.
    pub state_dir_id: String,
}
