//! Why there can be no plan, each reason with what would do.

use std::collections::BTreeSet;
use std::time::Duration;

use handover_proto::ids::{AgentId, Service, SlotId, Version};
use handover_proto::stored::StoredError;

use crate::core::duration;

/// Why there can be no such rollout.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// No agent has registered for the service.
    #[error("no agent is registered for service {service}; known are: {}", list(known))]
    UnknownService {
        /// As the spec names it.
        service: Service,
        /// Those that agents have registered for.
        known: BTreeSet<Service>,
    },
    /// The fleet is as the spec wants it.
    #[error("no changes: {version} serves on every host already")]
    NoChanges {
        /// The version.
        version: Version,
    },
    /// An agent is not heard.
    #[error("agent {agent} is not heard; start it, or retire its registration if its host is gone for good")]
    Silent {
        /// Which.
        agent: AgentId,
    },
    /// A host that an operator took out.
    #[error("agent {agent} is drained (order {order}); give it back with `handover undrain {agent}`, then roll out")]
    Drained {
        /// Which.
        agent: AgentId,
        /// By which order.
        order: u64,
    },
    /// A host that an earlier rollout took out.
    #[error(
        "agent {agent} is out of its balancers, and no order keeps it there; `handover drain {agent}` and then \
         `handover undrain {agent}` give it back, then roll out"
    )]
    Leaves {
        /// Which.
        agent: AgentId,
    },
    /// An agent without its gate.
    #[error("the gate of agent {agent} does not answer; start handover-gate@SERVICE on its host")]
    NoGate {
        /// Which.
        agent: AgentId,
    },
    /// No place for the candidate.
    #[error(
        "agent {agent} has {} slot ({}), and start-first needs two; write way = \"stop-first\" to change its versions in \
         place, or add a slot to its config", slots.len(), list(slots)
    )]
    TooFewSlots {
        /// Which.
        agent: AgentId,
        /// What it has.
        slots: BTreeSet<SlotId>,
    },
    /// Every other place is taken.
    #[error("agent {agent} has no empty slot for the candidate ({}); end what runs there first", list(taken))]
    NoEmptySlot {
        /// Which.
        agent: AgentId,
        /// What runs where.
        taken: BTreeSet<String>,
    },
    /// Assigned or reported is a slot that the agent's config does not have.
    #[error(
        "agent {agent} serves from slot {slot}, which its registration does not have; put the slot back into its config"
    )]
    UnknownSlot {
        /// Which.
        agent: AgentId,
        /// The slot.
        slot: SlotId,
    },
    /// More than one slot of a host serves.
    #[error(
        "agent {agent} serves from more than one slot ({}); wait until that has ended (`handover why`)",
        list(serving)
    )]
    InTransition {
        /// Which.
        agent: AgentId,
        /// What serves where.
        serving: BTreeSet<String>,
    },
    /// The hosts that would change differ.
    #[error("the hosts to change serve different versions ({}); roll out one of those first, to all", list(serving))]
    Mixed {
        /// What serves where.
        serving: BTreeSet<String>,
    },
    /// More are to serve than there are.
    #[error("min_serving = {min_serving} cannot be met by {hosts} hosts; write at most {hosts}")]
    Floor {
        /// As the spec says.
        min_serving: usize,
        /// As the fleet has.
        hosts: usize,
    },
    /// The spec wants the version staged, and an agent does not know of that.
    #[error(
        "agent {agent} ({agent_version}) is too old to stage when it is asked; upgrade it, or write stage = false and stage \
         there by `handover-agent stage`"
    )]
    CannotStage {
        /// Which.
        agent: AgentId,
        /// The agent program's version.
        agent_version: String,
    },
    /// Stop-first: a wave would take out too many.
    #[error(
        "stop-first takes {wave} of {serving} serving hosts out at a time, which leaves {}, and min_serving = {min_serving}; \
         write a smaller wave_size, or min_serving = {}", serving - wave, serving - wave
    )]
    TakesTooMany {
        /// Hosts of the largest wave.
        wave: usize,
        /// Hosts that serve.
        serving: usize,
        /// The floor.
        min_serving: usize,
    },
    /// Stop-first: nobody else serves, and no gate holds meanwhile.
    #[error(
        "stop-first needs two serving hosts or a gate that may hold: it takes {wave} of {serving} serving hosts out at a time, \
         and the gate of {agent} may hold nothing (it has none, or balancers in front that are told to go elsewhere, or \
         gate.hold.count = 0, or its agent is older than this coordinator: upgrade it); use a smaller wave_size, or let \
         another host serve"
    )]
    NobodyLeft {
        /// One of the wave's.
        agent: AgentId,
        /// Hosts of the wave.
        wave: usize,
        /// Hosts that serve.
        serving: usize,
    },
    /// Stop-first: balancers are told nothing, and no gate holds meanwhile.
    #[error(
        "nothing tells clients of {agent} to go elsewhere while its versions change, and its gate may hold nothing \
         (gate.hold.count = 0); name its balancers in [balancer] of the agent's config, or let its gate hold"
    )]
    NobodyTold {
        /// One of the wave's.
        agent: AgentId,
    },
    /// Stop-first: clients are not told to go elsewhere, and the gate does not hold for long enough.
    #[error(
        "stop-first would let a start take {deadline} (start_deadline), and going back as long again, but nothing tells \
         clients of {agent} to go elsewhere, and its gate holds them for {hold} only; write start_deadline = \"{half}\", or \
         gate.hold.time = \"{twice}\" into the agent's config, or name its balancers there",
        deadline = duration::text(*deadline), hold = duration::text(*hold),
        half = duration::text(*hold / 2), twice = duration::text(*deadline * 2)
    )]
    HoldsTooShortly {
        /// Which.
        agent: AgentId,
        /// What its gate allows.
        hold: Duration,
        /// What the spec allows a start.
        deadline: Duration,
    },
    /// Cannot be written as JSON.
    #[error(transparent)]
    Unwritable(#[from] StoredError),
}

fn list<T: ToString>(all: &BTreeSet<T>) -> String {
    let words: Vec<String> = all.iter().map(ToString::to_string).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}
