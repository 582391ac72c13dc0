//! One slot of the host, and the instance that runs in it.

use std::net::SocketAddr;
use std::sync::Arc;

use handover_proto::ids::{InstanceId, SlotId};
use handover_proto::lifecycle::Lifecycle;
use handover_proto::wire;
use tokio::sync::{Notify, watch};

use crate::clock;
use crate::config::Config;
use crate::core::observed::{Boot, Crashes, Ledger, Process};
use crate::driver::{Order, Values};
use crate::probe::jobs::JobCounter;
use crate::probe::{Affects, ConditionReport, ProbeRunner, Readiness, Target};
use crate::signal_mode::Watched;
use crate::state::InstanceRecord;

/// The last known readiness of an adopted instance is kept this long (`SAFETY.md` R9): many times a probe's first look.
const TRUSTED: Boot = Boot::from_secs(2);

/// One slot, with all that reports say of it.
pub struct Place {
    /// Where its instance listens.
    pub address: SocketAddr,
    /// What runs.
    pub running: Option<Running>,
    /// Ends in a row that nobody wanted.
    pub crashes: Option<Crashes>,
    /// How the last process ended.
    pub last_exit: Option<wire::ExitReport>,
}

/// One running instance.
pub struct Running {
    /// As it stands in the state file, or is to: see `unrecorded`.
    pub record: InstanceRecord,
    /// What its driver said of its process is not in the state file yet.
    pub(crate) unrecorded: bool,
    /// What its process does.
    pub process: Process,
    /// It had been told to stop when its main process ended.
    pub(crate) wanted_end: bool,
    /// What is left of it, its main process having ended.
    pub left: Option<String>,
    /// The order that its driver could not carry out last, and what follows from that.
    pub(crate) refused: Option<(Order, String)>,
    /// Why whoever started it does not take it for up, whatever its probes say.
    awaits: Option<String>,
    probes: ProbeRunner,
    jobs: JobCounter,
    /// Since when the gate sends it nothing and has nothing of it in hand.
    quiet_since: Option<Boot>,
    /// Adopted while it was ready: that is believed until the probes have had time to speak.
    pub(crate) trusted_until: Boot,
    /// Since when it drains.
    pub draining_since: Option<Boot>,
    /// Wall clock of the last move, Unix milliseconds.
    pub since_ms: u64,
    /// When it was started or adopted.
    pub(crate) started: Boot,
}

impl Running {
    /// Starts the probes of an instance whose process runs.
    pub(crate) fn watch(
        config: &Config,
        slot: &SlotId,
        address: SocketAddr,
        record: InstanceRecord,
        wake: Arc<Notify>,
    ) -> Self {
        let values = Values {
            port: address.port(),
            version: record.version.clone(),
            slot: slot.clone(),
            builds: config.driver.builds().to_owned(),
            instance: record.instance.clone(),
            state_dir: config.state_dir.clone(),
        };
        let target = Target { host: address.ip(), values };
        let jobs = JobCounter::start(&config.drain.jobs, &target, Arc::clone(&wake), clock::boot);
        let probes = ProbeRunner::start(config.probes.clone(), target, clock::boot);
        forward(probes.readiness(), wake);
        let adopted_ready = record.lifecycle.is_some() && record.ready;
        let draining_since = (record.lifecycle == Some(Lifecycle::Draining)).then(clock::boot);
        Self {
            process: if record.process.is_some() { Process::Running } else { Process::Starting },
            record,
            unrecorded: false,
            wanted_end: false,
            left: None,
            refused: None,
            awaits: None,
            probes,
            jobs,
            quiet_since: None,
            trusted_until: if adopted_ready { clock::boot() + TRUSTED } else { Boot::ZERO },
            draining_since,
            since_ms: clock::wall_ms(),
            started: clock::boot(),
        }
    }

    /// Takes in why whoever started it does not take it for up. Once they do, the probes need not wait for their turn.
    pub(crate) fn note_awaited(&mut self, awaits: Option<String>) {
        if awaits.is_none() && self.awaits.is_some() {
            self.probes.look_now();
        }
        self.awaits = awaits;
    }

    /// What its driver could not do, in words.
    pub fn refused(&self) -> Option<&str> {
        self.refused.as_ref().map(|(_, why)| why.as_str())
    }

    /// What the probes say.
    pub fn readiness(&self) -> Readiness {
        self.probes.readiness().borrow().clone()
    }

    /// The drain ledger: what the gate counts, and the jobs. `cut_off`: the gate has confirmed that it sends nothing new.
    /// What jobs there are must be asked after the last request has ended, and after the order that may end the instance.
    pub fn ledger(&mut self, gate: Ledger, cut_off: bool, assigned_at: Boot) -> Ledger {
        let quiet = cut_off && gate.is_drained();
        self.quiet_since = if quiet { self.quiet_since.or(Some(clock::boot())) } else { None };
        let mut ledger = gate;
        ledger.lines.extend(self.jobs.lines(self.quiet_since.map(|quiet| quiet.max(assigned_at))));
        ledger
    }

    /// Whether it may have traffic, as far as is known.
    pub fn ready(&self) -> bool {
        self.awaits.is_none() && (self.probes.readiness().borrow().ready || clock::boot() < self.trusted_until)
    }

    /// The conditions of readiness that are not met, in words.
    pub fn unmet(&self) -> Vec<String> {
        let readiness = self.readiness();
        let decisive = |c: &&ConditionReport| c.affects == Affects::Ready && !c.met;
        let unmet = readiness.conditions.iter().filter(decisive);
        let held = readiness.held_until.map(|_| "it was ready a moment ago; it returns at most once in ten seconds");
        let unmet = unmet.map(|c| format!("{}: {}", c.name, c.reading)).chain(held.map(str::to_owned));
        self.awaits.iter().cloned().chain(unmet).collect()
    }
}

impl Place {
    /// Nothing runs there.
    pub(crate) fn empty(address: SocketAddr) -> Self {
        Self { address, running: None, crashes: None, last_exit: None }
    }

    /// Whose connections are counted where there is no gate.
    pub(crate) fn watched(&self) -> Option<(InstanceId, Watched)> {
        let running = self.running.as_ref()?;
        let pid = running.record.process.as_ref()?.pid;
        let drains = running.draining_since.is_some();
        Some((running.record.instance.clone(), Watched { pid, port: self.address.port(), drains }))
    }

    /// Whether this very instance runs there.
    pub(crate) fn holds(&self, instance: &InstanceId) -> bool {
        self.running.as_ref().is_some_and(|running| running.record.instance == *instance)
    }
}

/// Wakes the main loop at each change, for as long as the probes run.
fn forward(mut readiness: watch::Receiver<Readiness>, wake: Arc<Notify>) {
    tokio::spawn(async move {
        while readiness.changed().await.is_ok() {
            wake.notify_one();
        }
    });
}
