//! A rollout over three hosts, small enough to be walked: what is stored, what agents have taken, how each process is,
//! who holds the lease. Dwells and soaks are zero here; time has two values, early and late.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use handover::core::fleet::Fleet;
use handover::core::plan::Plan;
use handover::core::progress::{Progress, State};
use handover_proto::assignment::{Assignment, Cause};
use handover_proto::lifecycle::Lifecycle;
use handover_proto::numbers::Term;

use crate::world::{World, serving_fleet, slot};

/// What does not change during a walk.
pub(crate) struct Rules {
    pub(crate) plan: Plan,
    /// Faults and pauses on one path.
    pub(crate) faults: u8,
    /// Every assignment that was ever stored; models hold its place in here.
    pub(crate) table: RefCell<Vec<Assignment>>,
    /// The fleet that models are written into, one after the other.
    pub(crate) fleet: RefCell<Fleet>,
}

/// One state of everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) progress: Progress,
    pub(crate) hosts: Vec<Host>,
    /// Who the store says holds; none: free.
    pub(crate) holder: Option<(usize, Side)>,
    /// Number of the request by which it came to hold.
    pub(crate) holder_op: Option<u32>,
    /// The instances whose service schedules.
    pub(crate) acting: BTreeSet<(usize, Side)>,
    pub(crate) intent: Option<Request>,
    pub(crate) faults_left: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Side {
    Current,
    Candidate,
}

pub(crate) const SIDES: [Side; 2] = [Side::Current, Side::Candidate];

/// How a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Health {
    Absent,
    Starting,
    Ready,
    Unready,
    Crashed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Host {
    pub(crate) stored: usize,
    pub(crate) taken: usize,
    pub(crate) current: Health,
    pub(crate) candidate: Health,
    pub(crate) heard: bool,
}

/// The intent key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Request {
    pub(crate) op: u32,
    pub(crate) from: (usize, Side),
    pub(crate) to: (usize, Side),
    pub(crate) declined: bool,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// A coordinator that has just started decides.
    Lap,
    /// The same, with candidates that answer nothing but errors.
    ErrorsLap,
    /// The same, when every deadline has passed, on the way forward.
    LateLap,
    /// The same on the way back.
    LateBackLap,
    Take,
    CandidateUp,
    CandidateCrash,
    CandidateUnready,
    CandidateHeal,
    CandidateRestart,
    CurrentUnready,
    CurrentHeal,
    Silence,
    Hear,
    Decline,
    HandOver,
    Work,
    Acquire,
    Pause,
    Resume,
    Abort,
}

impl Kind {
    pub(crate) const ALL: [Self; 21] = [
        Self::Lap,
        Self::ErrorsLap,
        Self::LateLap,
        Self::LateBackLap,
        Self::Take,
        Self::CandidateUp,
        Self::CandidateCrash,
        Self::CandidateUnready,
        Self::CandidateHeal,
        Self::CandidateRestart,
        Self::CurrentUnready,
        Self::CurrentHeal,
        Self::Silence,
        Self::Hear,
        Self::Decline,
        Self::HandOver,
        Self::Work,
        Self::Acquire,
        Self::Pause,
        Self::Resume,
        Self::Abort,
    ];

    /// Costs one of the faults of a path.
    pub(crate) fn costs(self) -> bool {
        use Kind::{CandidateCrash, CandidateUnready, CurrentUnready, Decline, ErrorsLap, LateLap, Pause, Silence};
        matches!(
            self,
            CandidateCrash | CandidateUnready | CurrentUnready | Decline | ErrorsLap | LateLap | Pause | Silence
        )
    }

    /// Happens by our own side's work, or in time, without the new version's help.
    pub(crate) fn is_ours(self) -> bool {
        use Kind::{Acquire, CurrentHeal, Hear, Lap, LateBackLap, Take, Work};
        matches!(self, Lap | LateBackLap | Take | CurrentHeal | Hear | Acquire | Work)
    }
}

impl Rules {
    /// The last host holds the lease.
    pub(crate) fn new(hosts: u8, min_serving: u8, faults: u8) -> Self {
        let more = format!(
            "
            [rollout]
            min_serving = {min_serving}
            shift = [\"100%\"]
            step_soak = \"0s\"
            soak = \"0s\"
            [health]
            dwell = \"0s\"
            unready_dwell = \"0s\"
            min_samples = 1
        "
        );
        let world = World::with_holder(hosts, hosts, &more);
        Self { plan: world.plan, faults, table: RefCell::default(), fleet: RefCell::new(serving_fleet(hosts)) }
    }

    /// The place of an assignment; who decided it, and at which step, makes no difference to the world.
    pub(crate) fn place_of(&self, mut assignment: Assignment) -> usize {
        assignment.term = Term::default();
        assignment.cause = Cause { rollout: None, step: 0, plan_hash: String::new() };
        let mut table = self.table.borrow_mut();
        table.iter().position(|known| *known == assignment).unwrap_or_else(|| {
            table.push(assignment);
            table.len() - 1
        })
    }

    /// Reads and writes that an assignment gives a side.
    pub(crate) fn weights(&self, place: usize, side: Side) -> (u32, u32) {
        self.table.borrow()[place].weights(&slot(side.slot()))
    }

    /// Whether an assignment wants an instance there.
    pub(crate) fn wants(&self, place: usize, side: Side) -> bool {
        let table = self.table.borrow();
        let wish = table[place].slots.get(&slot(side.slot()));
        wish.is_some_and(|wish| wish.lifecycle != Lifecycle::Terminated)
    }
}

impl Model {
    pub(crate) fn first(rules: &Rules, progress: Progress) -> Self {
        let fleet = rules.fleet.borrow();
        let hosts = fleet.agents.values().map(|view| {
            let place = rules.place_of(view.assignment().expect("an assignment").clone());
            Host { stored: place, taken: place, current: Health::Ready, candidate: Health::Absent, heard: true }
        });
        let hosts: Vec<Host> = hosts.collect();
        let holder = (hosts.len() - 1, Side::Current);
        Self {
            progress,
            hosts,
            holder: Some(holder),
            holder_op: None,
            acting: BTreeSet::from([holder]),
            intent: None,
            faults_left: rules.faults,
        }
    }

    /// Forgets what makes no difference: who did it, in which words.
    pub(crate) fn plain(mut self) -> Self {
        match &mut self.progress.state {
            State::Paused { by, reason, .. } | State::GoingBack { by, reason, .. } => {
                by.clear();
                reason.clear();
            }
            State::Ended { reason, .. } => reason.clear(),
            State::Running { .. } => {}
        }
        self
    }

    pub(crate) fn open_intent(&self) -> Option<Request> {
        self.intent.filter(|request| self.holder_op != Some(request.op))
    }

    pub(crate) fn health(&self, (number, side): (usize, Side)) -> Health {
        self.hosts[number].side(side)
    }

    /// The process is gone; its agent knows, and gives up what it held.
    pub(crate) fn lose(&mut self, number: usize, side: Side, health: Health) {
        *self.hosts[number].side_mut(side) = health;
        self.acting.remove(&(number, side));
        if self.holder == Some((number, side)) {
            (self.holder, self.holder_op) = (None, None);
        }
    }
}

impl Host {
    pub(crate) fn side(&self, side: Side) -> Health {
        match side {
            Side::Current => self.current,
            Side::Candidate => self.candidate,
        }
    }

    pub(crate) fn side_mut(&mut self, side: Side) -> &mut Health {
        match side {
            Side::Current => &mut self.current,
            Side::Candidate => &mut self.candidate,
        }
    }

    pub(crate) fn has_fault(&self) -> bool {
        SIDES.iter().any(|side| matches!(self.side(*side), Health::Unready | Health::Crashed))
    }

    /// What its gate does: ready instances with a share, for reads and for writes.
    pub(crate) fn serves(&self, rules: &Rules) -> bool {
        let ready = || SIDES.into_iter().filter(|side| self.side(*side) == Health::Ready);
        ready().any(|side| rules.weights(self.taken, side).0 > 0)
            && ready().any(|side| rules.weights(self.taken, side).1 > 0)
    }

    /// Whether its agent can say that the assignment is true.
    pub(crate) fn is_true(&self, rules: &Rules) -> bool {
        SIDES.iter().all(|side| {
            let wanted = if rules.wants(self.taken, *side) { Health::Ready } else { Health::Absent };
            self.side(*side) == wanted
        })
    }

    /// It serves from this side alone, wholly, and the other one is gone. A host that the rollout never touched may have
    /// a fault of its own.
    pub(crate) fn has_only(&self, rules: &Rules, side: Side, other: Side) -> bool {
        let untouched = self.stored == UNTOUCHED;
        (self.side(side) == Health::Ready || untouched)
            && self.side(other) == Health::Absent
            && self.taken == self.stored
            && rules.weights(self.taken, side) == (100, 100)
    }
}

impl Side {
    pub(crate) fn slot(self) -> &'static str {
        match self {
            Self::Current => "a",
            Self::Candidate => "b",
        }
    }

    pub(crate) fn version(self) -> &'static str {
        match self {
            Self::Current => "1.0.0",
            Self::Candidate => "1.1.0",
        }
    }
}

/// The place of the assignment that every host has before the rollout.
const UNTOUCHED: usize = 0;

/// Early: before every deadline, but late enough for the lease's keys to be seen.
pub(crate) const EARLY: Duration = Duration::from_secs(10);
/// After every deadline.
pub(crate) const LATE: Duration = Duration::from_secs(600);
