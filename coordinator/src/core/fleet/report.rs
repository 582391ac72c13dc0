//! From the wire's report to the typed one.

use handover_proto::ids::IdError;
use handover_proto::numbers::Serial;
use handover_proto::staging::{StagingRefusal, StagingState};
use handover_proto::wire;

use super::{Counts, Instance, Process, Reported, Slot, Staging, Traffic};

/// A report that cannot be used. The agent counts as silent with it.
#[derive(Debug, thiserror::Error)]
#[error("a report of agent {agent:?} cannot be read; do agent and coordinator fit together?")]
pub struct ReportError {
    agent: String,
    source: IdError,
}

impl Reported {
    /// Reads a report.
    ///
    /// # Errors
    /// [`ReportError`] if a name or an id in it is none.
    pub fn from_wire(report: &wire::Report) -> Result<Self, ReportError> {
        let garbled = |source| ReportError { agent: report.agent.clone(), source };
        let slot = |slot: &wire::SlotReport| Ok((slot.slot.parse()?, Slot::from_wire(slot)?));
        Ok(Self {
            accepted: Serial(report.accepted),
            reached: Serial(report.reached),
            blocker: report.blocker.as_ref().map(wire::Blocker::typed),
            gate: report.gate.as_ref().is_some_and(|gate| gate.connected),
            front_pending: report.front.as_ref().is_some_and(|front| !front.confirmed),
            staging: report.staging.as_ref().map(Staging::from_wire),
            slots: report.slots.iter().map(slot).collect::<Result<_, IdError>>().map_err(garbled)?,
        })
    }
}

impl Staging {
    /// A word that only a newer agent knows means that it is not done.
    fn from_wire(staging: &wire::StagingReport) -> Self {
        Self {
            serial: Serial(staging.serial),
            version: staging.version.parse().ok(),
            state: staging.state.parse().unwrap_or(StagingState::Waiting),
            since_ms: staging.since_ms,
            done_bytes: staging.done_bytes,
            total_bytes: staging.total_bytes,
            refusal: (!staging.refusal.is_empty()).then(|| staging.refusal.parse().unwrap_or(StagingRefusal::Other)),
            sentence: staging.sentence.clone(),
        }
    }
}

impl Slot {
    fn from_wire(slot: &wire::SlotReport) -> Result<Self, IdError> {
        Ok(Self {
            instance: slot.instance.as_ref().map(Instance::from_wire).transpose()?,
            crashes: slot.crashes,
            last_exit: slot.last_exit.as_ref().map(|exit| exit.how.clone()),
        })
    }
}

impl Instance {
    fn from_wire(instance: &wire::InstanceReport) -> Result<Self, IdError> {
        let unmet = |condition: &wire::Condition| format!("{} ({})", condition.name, condition.reading);
        let ledger = instance.drain.iter().flat_map(|drain| &drain.lines);
        Ok(Self {
            id: instance.instance.parse()?,
            version: instance.version.parse()?,
            lifecycle: instance.lifecycle().typed(),
            process: Process::from_wire(instance.process()),
            ready: instance.ready,
            unmet: instance.conditions.iter().filter(|condition| !condition.met).map(unmet).collect(),
            since_ms: instance.since_ms,
            reads: instance.reads,
            writes: instance.writes,
            // What a peer sends may be any number.
            in_flight: ledger.clone().map(|line| line.count).fold(0, u64::saturating_add),
            oldest_ms: ledger.map(|line| line.oldest_ms).max().unwrap_or(0),
            traffic: Traffic::from_wire(instance),
        })
    }
}

impl Process {
    fn from_wire(process: wire::ProcessState) -> Self {
        match process {
            wire::ProcessState::Unspecified => Self::Unknown,
            wire::ProcessState::Starting => Self::Starting,
            wire::ProcessState::Running => Self::Running,
            wire::ProcessState::Stopping => Self::Stopping,
            wire::ProcessState::Exited => Self::Exited,
        }
    }
}

impl Traffic {
    /// A class that nobody named has counted nothing; if neither is named, nobody counts.
    fn from_wire(instance: &wire::InstanceReport) -> Option<Self> {
        let (reads, writes) = (instance.read_traffic.as_ref(), instance.write_traffic.as_ref());
        reads.or(writes)?;
        Some(Self { reads: Counts::from_wire(reads), writes: Counts::from_wire(writes) })
    }
}

impl Counts {
    fn from_wire(traffic: Option<&wire::Traffic>) -> Self {
        traffic.map_or_else(Self::default, |traffic| Self {
            requests: traffic.requests,
            bad: traffic.errors.saturating_add(traffic.lost),
        })
    }
}
