//! What is: the world as the agent sees it, in one value.

use std::collections::BTreeMap;
use std::time::Duration;

use handover_proto::assignment::{DrainPolicy, Remote};
use handover_proto::ids::{InstanceId, SlotId, Version};
use handover_proto::lifecycle::Lifecycle;

use super::front::FrontSeen;

/// Time since boot (CLOCK_BOOTTIME), the only clock that decisions use.
pub type Boot = Duration;

/// The host as the agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// Every slot of the config.
    pub slots: BTreeMap<SlotId, Slot>,
    /// The gate.
    pub gate: GateSeen,
    /// The balancers in front.
    pub front: FrontSeen,
}

/// One slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Slot {
    /// What runs there.
    pub instance: Option<Instance>,
    /// Starts of one version that ended by themselves, in a row.
    pub crashes: Option<Crashes>,
}

/// Processes of one version that ended without being told to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crashes {
    /// Which version.
    pub version: Version,
    /// How many in a row.
    pub count: u32,
    /// When the next start is due.
    pub retry_at: Boot,
    /// How the last one ended, or why it could not be started.
    pub reason: String,
}

/// One running copy of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// What it runs.
    pub version: Version,
    /// Its process.
    pub process: Process,
    /// Where it stands; none until it was ready for the first time.
    pub lifecycle: Option<Lifecycle>,
    /// Every condition of readiness is met.
    pub ready: bool,
    /// The conditions that are not, in words.
    pub unmet: Vec<String>,
    /// What is left of an instance whose main process has ended, in words.
    pub left: Option<String>,
    /// The order that its driver could not carry out last, and what follows from that, in words.
    pub refused: Option<String>,
    /// The drain ledger.
    pub ledger: Ledger,
    /// Since when it drains.
    pub draining_since: Option<Boot>,
    /// Whether it holds the scheduler lease.
    pub holds_lease: bool,
    /// Nothing of the scheduler lease forbids to stop it.
    pub lease_lets_stop: bool,
}

/// What an instance's process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Process {
    /// Its driver was told to start it, and has not said yet that it did.
    Starting,
    /// It runs.
    Running,
    /// It was told to stop.
    Stopping {
        /// When it will be killed.
        kill_at: Boot,
        /// Whether its kill was ordered, and not refused.
        killed: bool,
    },
    /// Its main process has ended and others of it have not, though they were killed.
    Lingering,
}

/// All kinds of work that an instance has in hand (`DESIGN.md` §5). Drained means that every line is zero, never that a
/// timer ran out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ledger {
    /// One line per kind. Positions come with their issue.
    pub lines: Vec<Line>,
}

/// One kind of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Which.
    pub kind: Kind,
    /// How many are in hand.
    pub count: u64,
    /// Age of the oldest.
    pub oldest: Duration,
    /// Why the count is not known, in words: it may be anything but zero.
    pub unknown: Option<String>,
    /// What holds for this line instead of the assignment's drain policy.
    pub policy: Option<DrainPolicy>,
}

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Requests in the gate, from head to the end of the answer's body.
    Requests,
    /// Connections through the gate that speak another protocol since an `Upgrade`, such as WebSockets.
    Upgraded,
    /// Connections to the instance's port in the kernel's tables (mode `signal`).
    Sockets,
    /// Work that goes on without a request, by the service's own word.
    Jobs,
}

impl Kind {
    /// As it stands in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Upgraded => "upgraded connections",
            Self::Sockets => "sockets",
            Self::Jobs => "jobs",
        }
    }
}

impl Line {
    /// A line that was counted, under the assignment's policy.
    pub fn counted(kind: Kind, count: u64, oldest: Duration) -> Self {
        Self { kind, count, oldest, unknown: None, policy: None }
    }

    /// A line that could not be counted, and why.
    pub fn unknown(kind: Kind, why: String) -> Self {
        Self { unknown: Some(why), ..Self::counted(kind, 0, Duration::ZERO) }
    }

    fn is_zero(&self) -> bool {
        self.count == 0 && self.unknown.is_none()
    }

    fn sentence(&self) -> String {
        let kind = self.kind.as_str();
        match &self.unknown {
            Some(why) => format!("{kind} that are not known ({why})"),
            None => format!("{} {kind} (oldest {}s)", self.count, self.oldest.as_secs()),
        }
    }
}

impl Ledger {
    /// Nothing is left, and that is known.
    pub fn is_drained(&self) -> bool {
        self.left().next().is_none()
    }

    /// The lines that are not zero, or not known to be.
    pub fn left(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| !line.is_zero())
    }

    /// What is left, in words: `4 requests (oldest 9s)`.
    pub fn sentence(&self) -> String {
        self.left().map(Line::sentence).collect::<Vec<_>>().join(", ")
    }
}

/// What is known of the gate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GateSeen {
    /// It answers.
    pub connected: bool,
    /// The routes that it confirmed last. Ledgers are as of these.
    pub applied: Option<Routes>,
}

/// What the gate is told: always the whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Routes {
    /// Local instances, whatever their weight, so that the gate counts what they have in hand.
    pub local: Vec<LocalRoute>,
    /// Instances elsewhere.
    pub remote: Vec<RemoteRoute>,
    /// Whether anything is to serve here at all; if not, requests are refused at once instead of held.
    pub open: bool,
    /// Whether clients are told to go elsewhere, while they are still served.
    pub leaving: bool,
}

/// A route to a slot of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalRoute {
    /// Which slot.
    pub slot: SlotId,
    /// Which instance in it.
    pub instance: InstanceId,
    /// What it runs.
    pub version: Version,
    /// Weight for reads, 0 to 100.
    pub reads: u32,
    /// Weight for writes, 0 to 100.
    pub writes: u32,
    /// Its readiness; the gate passes over one that is not.
    pub ready: bool,
}

/// A route to another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteRoute {
    /// Where.
    pub to: Remote,
    /// Weight for reads, 0 to 100.
    pub reads: u32,
    /// Weight for writes, 0 to 100.
    pub writes: u32,
}

impl GateSeen {
    /// The gate has confirmed that it sends this instance nothing new.
    pub fn sends_nothing_to(&self, instance: &InstanceId) -> bool {
        let weight = |routes: &Routes| routes.of(instance).map_or(0, |route| route.reads + route.writes);
        self.connected && self.applied.as_ref().is_some_and(|routes| weight(routes) == 0)
    }
}

impl Routes {
    /// The route to an instance.
    pub fn of(&self, instance: &InstanceId) -> Option<&LocalRoute> {
        self.local.iter().find(|route| route.instance == *instance)
    }
}
