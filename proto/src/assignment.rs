//! What an agent is to make true (`DESIGN.md` §3): one stored document per agent, delivered as it stands.
//!
//! `Assign` carries the stored bytes themselves, so that "same serial, other content" is a comparison of bytes and an
//! agent that reads its own key sees exactly what a delivery would have brought.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{InstanceId, OpId, RolloutId, SlotId, Version};
use crate::lifecycle::Lifecycle;
use crate::numbers::Term;
use crate::stored::STORED_VERSION;

/// What one agent is to make true.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Version of the stored form.
    pub v: u32,
    /// The term of the coordinator that decided it.
    pub term: Term,
    /// Why it was decided.
    pub cause: Cause,
    /// What is wanted of each slot. A slot that is not named is to be empty.
    pub slots: BTreeMap<SlotId, SlotWish>,
    /// Where the host's gate sends requests.
    pub routes: Vec<Route>,
    /// How a slot that loses its traffic is drained.
    pub drain: DrainPolicy,
    /// Whether the host leaves: balancers are told to send nothing here and clients to go elsewhere, while the gate still
    /// serves what comes (lame duck).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leaving: bool,
    /// Who goes first where several could take the scheduler lease.
    #[serde(default, skip_serializing_if = "LeaseRules::are_default")]
    pub lease: LeaseRules,
    /// Hooks of the agent's own config to run, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookCall>,
    /// What the agent does by itself when it hears nothing more. Reserved: an agent that does not know it refuses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<serde_json::Value>,
}

/// What an assignment belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// The rollout; none: an order outside of one.
    pub rollout: Option<RolloutId>,
    /// Number of the step in the plan, from 0.
    pub step: u32,
    /// SHA-256 of the plan, hexadecimal.
    pub plan_hash: String,
}

/// What is wanted of one slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotWish {
    /// The version that is to run there.
    pub version: Version,
    /// The state it is to reach.
    pub lifecycle: Lifecycle,
    /// Whether it may hold the scheduler lease.
    pub lease: LeaseWish,
}

/// Whether an instance may hold the scheduler lease. Moves are asked for by the intent key alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LeaseWish {
    /// May take the lease when it is free, or when it is handed over.
    Eligible,
    /// Never takes it. One that holds it goes on until it is asked to hand over or to stop.
    Never,
}

/// What the plan says about the scheduler lease.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LeaseRules {
    /// Who goes first where several could take it.
    #[serde(default)]
    pub prefer: Prefer,
}

/// Who goes first where several could take the lease: each part counts more than the ones below it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Prefer {
    /// Instances of this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// Instances on hosts whose agent has this label `zone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

impl LeaseRules {
    /// Nothing is preferred.
    pub fn are_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Prefer {
    /// The rank of an instance: the lowest goes first. Version before zone before traffic.
    pub fn rank(&self, version: &Version, zone: Option<&str>, serving: bool) -> u32 {
        let other_version = self.version.as_ref().is_some_and(|wanted| wanted != version);
        let other_zone = self.zone.as_deref().is_some_and(|wanted| Some(wanted) != zone);
        u32::from(other_version) * 4 + u32::from(other_zone) * 2 + u32::from(!serving)
    }
}

/// One upstream of the gate. Weights are absolute, 0 to 100.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Where to.
    pub to: Upstream,
    /// Weight for reads.
    pub reads: u32,
    /// Weight for writes.
    pub writes: u32,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Upstream {
    /// A slot of this host.
    Slot(SlotId),
    /// An instance on another host.
    Remote(Remote),
}

/// An instance on another host, so that this host's gate can carry traffic to it when the balancer in front cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Remote {
    /// The instance, as its own agent reports it.
    pub instance: InstanceId,
    /// What it runs.
    pub version: Version,
    /// Its own port there, never that of a gate: two gates that route to each other would go round in circles.
    pub address: SocketAddr,
}

/// How work is drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainPolicy {
    /// How long work may take to finish, in milliseconds.
    pub deadline_ms: u64,
    /// What happens to what is left then.
    pub at_deadline: AtDeadline,
    /// Whether it holds for every kind of work, also for one that has a policy of its own: on the way back nothing of a new
    /// version may keep the current one out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub over_all: bool,
}

/// What happens to work that is left at the drain's deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AtDeadline {
    /// Go on waiting, and say so.
    Wait,
    /// Stop the instance; what was left is reported line by line.
    Cut,
    /// Stay drained and running, and report a failure.
    Fail,
}

/// One hook to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookCall {
    /// Its name in the agent's config.
    pub name: String,
    /// Under which its result is recorded; a repeat returns that.
    pub op: OpId,
}

impl DrainPolicy {
    /// The deadline.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }
}

/// An assignment that contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssignmentError {
    /// A newer stored form, or a part that this agent does not know.
    #[error("the assignment needs a newer agent ({0}); upgrade this agent, what serves goes on serving")]
    TooNew(String),
    /// A route to a slot that is to be empty.
    #[error("the assignment routes traffic to slot {0}, which is not to be SERVING")]
    RouteToNowhere(SlotId),
    /// A weight above 100.
    #[error("the assignment gives a route a weight of {0}; weights are 0 to 100")]
    Weight(u32),
    /// A state that cannot be asked for.
    #[error("slot {0} cannot be assigned the state {1}; READY, SERVING and TERMINATED can")]
    Lifecycle(SlotId, Lifecycle),
}

impl Assignment {
    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// [`AssignmentError`] with the first contradiction; the agent then keeps what it has.
    pub fn check(&self) -> Result<(), AssignmentError> {
        if self.v != STORED_VERSION {
            return Err(AssignmentError::TooNew(format!("stored form {}", self.v)));
        }
        if self.fallback.is_some() {
            return Err(AssignmentError::TooNew("it has a fallback".into()));
        }
        if !self.hooks.is_empty() {
            return Err(AssignmentError::TooNew("it has hooks".into()));
        }
        for (slot, wish) in &self.slots {
            match wish.lifecycle {
                Lifecycle::Ready | Lifecycle::Serving | Lifecycle::Terminated => {}
                other @ (Lifecycle::Migrating | Lifecycle::Draining) => {
                    return Err(AssignmentError::Lifecycle(slot.clone(), other));
                }
            }
        }
        self.routes.iter().try_for_each(|route| self.check_route(route))
    }

    fn check_route(&self, route: &Route) -> Result<(), AssignmentError> {
        if let Some(weight) = [route.reads, route.writes].into_iter().find(|w| *w > 100) {
            return Err(AssignmentError::Weight(weight));
        }
        match &route.to {
            Upstream::Slot(slot) if route.reads + route.writes > 0 && !self.serves(slot) => {
                Err(AssignmentError::RouteToNowhere(slot.clone()))
            }
            Upstream::Slot(_) | Upstream::Remote(_) => Ok(()),
        }
    }

    fn serves(&self, slot: &SlotId) -> bool {
        self.slots.get(slot).is_some_and(|wish| wish.lifecycle == Lifecycle::Serving)
    }

    /// Weights of a slot, for reads and for writes.
    pub fn weights(&self, slot: &SlotId) -> (u32, u32) {
        self.routes
            .iter()
            .find(|route| route.to == Upstream::Slot(slot.clone()))
            .map_or((0, 0), |route| (route.reads, route.writes))
    }
}
