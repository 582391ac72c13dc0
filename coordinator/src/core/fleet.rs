//! The world as the coordinator sees it: what is registered, what is assigned, what is reported, who holds the lease.
//!
//! The shell builds it anew for every lap, from the store and from the agents' reports.

mod report;

use std::collections::BTreeMap;
use std::time::Duration;

use handover_proto::assignment::Assignment;
use handover_proto::blocker::Blocker;
use handover_proto::ids::{AgentId, InstanceId, SlotId, Version};
use handover_proto::lease::LeaseView;
use handover_proto::lifecycle::Lifecycle;
use handover_proto::numbers::Serial;
use handover_proto::registration::Registration;
use handover_proto::staging::{StagingRefusal, StagingState};

use super::staging::Requested;

pub use report::ReportError;

/// One service's agents and its lease.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// Every registered agent of the service.
    pub agents: BTreeMap<AgentId, Agent>,
    /// The lease's keys.
    pub lease: LeaseView,
    /// Hosts that a standing order keeps out, with its number.
    pub drained: BTreeMap<AgentId, u64>,
    /// What hosts are asked to have in place ahead of its window.
    pub staging: Option<Requested>,
}

/// One agent.
#[derive(Debug, Clone)]
pub struct Agent {
    /// How it made itself known.
    pub registration: Registration,
    /// Whether its reports arrive.
    pub heard: Heard,
    /// Its stored assignment.
    pub assigned: Option<Assigned>,
    /// Its last report; none since this coordinator leads.
    pub report: Option<Reported>,
}

/// Whether an agent's reports arrive. Observations older than two seconds decide nothing (`SAFETY.md` R1), so the shell
/// says `Silent` after at most that long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// They do.
    Yes,
    /// They do not.
    Silent {
        /// Unix milliseconds of the last one, or of when it was first missed.
        since_ms: u64,
    },
}

/// An assignment as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// The value.
    pub assignment: Assignment,
    /// The key's mod revision.
    pub serial: Serial,
}

/// What an agent reports.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reported {
    /// The assignment that it acts on.
    pub accepted: Serial,
    /// The last one that was made true.
    pub reached: Serial,
    /// Why the accepted one is not true yet.
    pub blocker: Option<Blocker>,
    /// Whether its gate process answers.
    pub gate: bool,
    /// A balancer in front does not say yet that it does as the agent told it.
    pub front_pending: bool,
    /// How far it is with what it is asked to have in place.
    pub staging: Option<Staging>,
    /// Its slots.
    pub slots: BTreeMap<SlotId, Slot>,
}

/// How far an agent is with a version that it is to have in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staging {
    /// The request that it works on; 0: it cannot read it.
    pub serial: Serial,
    /// Which version it is about.
    pub version: Option<Version>,
    /// How far it is.
    pub state: StagingState,
    /// Since when, Unix milliseconds.
    pub since_ms: u64,
    /// Bytes of the version's files that are there.
    pub done_bytes: u64,
    /// All of them; 0: not known yet.
    pub total_bytes: u64,
    /// Why it refuses, if it does.
    pub refusal: Option<StagingRefusal>,
    /// Why it waits or refuses, or what is in place.
    pub sentence: String,
}

/// A place where one instance can run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slot {
    /// What runs there.
    pub instance: Option<Instance>,
    /// Starts of the assigned version in this slot that ended by themselves.
    pub crashes: u32,
    /// How the last process here ended, in words.
    pub last_exit: Option<String>,
}

/// What a process does; apart from the lifecycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// Not reported.
    Unknown,
    /// Being started.
    Starting,
    /// Runs.
    Running,
    /// Told to stop.
    Stopping,
    /// Gone.
    Exited,
}

/// One running copy of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Which.
    pub id: InstanceId,
    /// What it runs.
    pub version: Version,
    /// Where it stands; none until it was ready for the first time.
    pub lifecycle: Option<Lifecycle>,
    /// What its process does.
    pub process: Process,
    /// Whether every condition of readiness is met.
    pub ready: bool,
    /// The conditions that are not, with their last reading.
    pub unmet: Vec<String>,
    /// Unix milliseconds of the last change of lifecycle.
    pub since_ms: u64,
    /// Its share of the reads in its gate, 0 to 100.
    pub reads: u32,
    /// Its share of the writes in its gate, 0 to 100.
    pub writes: u32,
    /// Everything in its drain ledger.
    pub in_flight: u64,
    /// Age of the oldest line of it, in milliseconds.
    pub oldest_ms: u64,
    /// What its gate counted of it; none where nobody counts (mode `signal`, or a gate that does not answer).
    pub traffic: Option<Traffic>,
}

/// Counters of one instance; they only grow, until the gate restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Of reads.
    pub reads: Counts,
    /// Of writes.
    pub writes: Counts,
}

/// Counters of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Requests sent to it.
    pub requests: u64,
    /// Those answered with a status of 500 or more, or that got no whole answer.
    pub bad: u64,
}

impl Fleet {
    /// An agent whose report can be relied on.
    pub fn seen(&self, agent: &AgentId) -> Option<(&Agent, &Reported)> {
        self.agents.get(agent).and_then(|agent| agent.seen().map(|report| (agent, report)))
    }

    /// The instance in a slot, if its agent can be relied on.
    pub fn instance(&self, agent: &AgentId, slot: &SlotId) -> Option<&Instance> {
        self.seen(agent)?.1.slots.get(slot)?.instance.as_ref()
    }
}

impl Agent {
    /// Its report, if it can be relied on.
    pub fn seen(&self) -> Option<&Reported> {
        self.report.as_ref().filter(|_| self.heard == Heard::Yes)
    }

    /// The stored assignment.
    pub fn assignment(&self) -> Option<&Assignment> {
        self.assigned.as_ref().map(|assigned| &assigned.assignment)
    }

    /// Whether it acts on what is stored for it.
    pub fn has_taken(&self) -> bool {
        self.is_at(|report| report.accepted)
    }

    /// Whether what is stored for it is true.
    pub fn has_reached(&self) -> bool {
        self.has_taken() && self.is_at(|report| report.reached)
    }

    /// Whether it leaves, as it was told, and its balancers say so.
    pub fn is_out(&self) -> bool {
        let told = self.assignment().is_some_and(|assignment| assignment.leaving) && self.has_taken();
        told && self.seen().is_some_and(|report| !report.front_pending)
    }

    /// How long its gate holds requests, if nobody is told to send elsewhere while it cannot serve.
    pub fn hold(&self) -> Option<Duration> {
        self.registration.hold_ms.map(Duration::from_millis)
    }

    fn is_at(&self, number: fn(&Reported) -> Serial) -> bool {
        let serial = self.assigned.as_ref().map(|assigned| assigned.serial);
        self.seen().is_some_and(|report| Some(number(report)) == serial)
    }
}
