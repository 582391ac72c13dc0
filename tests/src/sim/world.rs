//! One run: the queue of what is due, and everything that there is.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::hash::{DefaultHasher, Hash, Hasher};

use handover::core::plan::Plan;
use handover_agent::lease::event::Event;
use handover_agent::lease::record::LeaseRecord;
use handover_agent::lease::settings::LeaseSettings;
use handover_agent::lease::suspect::Suspicion;
use handover_proto::ids::InstanceId;
use handover_proto::keys::{EnvKeys, LeaseKeys};
use handover_proto::txn::LeaseId;

use super::certificates::Question;
use super::chance::Chance;
use super::check::{Allowed, Checks, Violation};
use super::database::Database;
use super::etcd::Etcd;
use super::fact::{Fact, Token, Who};
use super::host::Host;
use super::mistake::Mistake;
use super::rollout::Coordinator;
use super::service::Service;
use super::slot::End;
use super::weather::Weather;
use super::wire::Sent;

pub(crate) const MS: u64 = 1_000;
pub(crate) const SECOND: u64 = 1_000_000;

/// What is due at a moment.
pub(crate) enum Act {
    AgentUp {
        host: usize,
    },
    /// A new instance starts in a slot.
    Launch {
        host: usize,
        slot: usize,
    },
    /// It is ready.
    Ready {
        who: Who,
    },
    /// The keeper's timer.
    Wake {
        host: usize,
        n: u64,
    },
    /// The keeper hears something; `asked` numbers what it had asked of the holder key, 0: nothing.
    Hear {
        host: usize,
        life: u32,
        asked: u64,
        event: Box<Event>,
    },
    /// A request reaches its member.
    Arrive(Box<Sent>),
    /// The read that follows a keep-alive reaches it.
    Barrier(Box<Sent>),
    /// The watch passes on what it has.
    Pump {
        host: usize,
    },
    /// A call reaches a service.
    Call {
        life: u32,
        who: Who,
        record: Box<LeaseRecord>,
        until: u64,
    },
    /// Nobody waits for the answer to a call any more.
    Hangup {
        who: Who,
        seq: u64,
    },
    /// A unit has come to its end.
    UnitEnd {
        who: Who,
        n: u64,
    },
    /// The database gives up a transaction that takes too long.
    Timeout {
        who: Who,
        n: u64,
    },
    /// What a dead process had sent last is carried out.
    LateCommit {
        who: Who,
    },
    /// The processes of an instance end; all of them, or the main one alone.
    Die {
        who: Who,
        all: bool,
    },
    /// What was left of its processes ends.
    Orphan {
        who: Who,
    },
    /// The main loop learns of the end.
    Report {
        who: Who,
        end: End,
    },
    /// Something goes wrong, by the weather's plan.
    Fault {
        n: usize,
    },
    /// The host goes on.
    Thaw {
        host: usize,
    },
    /// An agent is asked for a certificate.
    Certify(Box<Question>),
    /// Two people raise the era.
    RaiseEra,
    /// The agent finds that its host may have been away.
    Suspect {
        host: usize,
        what: Suspicion,
    },
    /// The main loop tells the keeper what runs.
    Wanted {
        host: usize,
    },
    /// An agent takes its assignment.
    Assign {
        host: usize,
    },
    /// A coordinator has its turn.
    Coordinate {
        n: usize,
    },
    /// The store looks after its leases.
    Tick,
    /// From here on nothing fails any more.
    Heal,
}

struct Due {
    at: u64,
    order: u64,
    act: Act,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    /// The heap gives the greatest first: the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// How often something happened, so that a run which did nothing is noticed.
pub type Counts = BTreeMap<&'static str, u64>;

pub(crate) struct World {
    /// True time, in microseconds.
    pub(crate) now: u64,
    pub(crate) chance: Chance,
    pub(crate) mistake: Mistake,
    pub(crate) weather: Weather,
    pub(crate) settings: LeaseSettings,
    pub(crate) keys: LeaseKeys,
    pub(crate) etcd: Etcd,
    pub(crate) database: Database,
    pub(crate) coordinators: [Coordinator; 2],
    /// The rollout that runs.
    pub(crate) plan: Option<Plan>,
    /// The leader's key is gone after this.
    pub(crate) leader_until: u64,
    pub(crate) hosts: Vec<Host>,
    pub(crate) services: Vec<Service>,
    pub(crate) ids: BTreeMap<InstanceId, Who>,
    /// The present turn as the store has it.
    pub(crate) present: Option<(Who, Token, LeaseId)>,
    /// The etcd lease of each turn.
    pub(crate) turn_leases: BTreeMap<Token, LeaseId>,
    /// Tokens for which a certificate was given.
    pub(crate) certified: BTreeSet<Token>,
    pub(crate) read_log: usize,
    pub(crate) asked: u64,
    /// The highest era that was raised.
    pub(crate) era: u16,
    pub(crate) healed: bool,
    /// The first unit since then.
    pub(crate) works_since: Option<u64>,
    queue: BinaryHeap<Due>,
    order: u64,
    checks: Checks,
    pub(crate) violation: Option<Violation>,
    pub(crate) counts: Counts,
    hash: DefaultHasher,
    trace: bool,
}

pub(crate) fn keys() -> EnvKeys {
    EnvKeys::new(&handover_proto::ids::Env::default())
}

impl World {
    pub(crate) fn new(seed: u64, mistake: Mistake, trace: bool) -> Result<Self, handover_proto::ids::IdError> {
        let mut chance = Chance::new(seed);
        let weather = Weather::of(seed, &mut chance);
        let keys = keys().service(&"billing".parse()?).lease();
        let rate = |chance: &mut Chance| 0.96 + chance.within(0, 81) as f64 / 1000.0;
        let allowed = Allowed { two_at_once: weather.two_at_once(), dark_us: weather.dark_us() };
        let mut world = Self {
            now: SECOND,
            etcd: Etcd::new(weather.habits, rate(&mut chance), keys.prefix()),
            hosts: (0..3).map(|n| Host::new(n, rate(&mut chance))).collect(),
            database: Database::new(mistake),
            coordinators: Default::default(),
            plan: None,
            leader_until: 0,
            settings: weather.settings(),
            keys,
            mistake,
            weather,
            chance,
            services: Vec::new(),
            ids: BTreeMap::new(),
            present: None,
            turn_leases: BTreeMap::new(),
            certified: BTreeSet::new(),
            read_log: 0,
            asked: 0,
            era: 0,
            healed: false,
            works_since: None,
            queue: BinaryHeap::new(),
            order: 0,
            checks: Checks::new(allowed),
            violation: None,
            counts: Counts::new(),
            hash: DefaultHasher::new(),
            trace,
        };
        world.begin();
        Ok(world)
    }

    fn begin(&mut self) {
        for host in 0..self.hosts.len() {
            let after = self.chance.within(0, 200) * MS;
            self.at(after, Act::AgentUp { host });
            self.settle(host);
        }
        for (n, (at, _)) in self.weather.faults.clone().into_iter().enumerate() {
            self.at(at, Act::Fault { n });
        }
        self.at(100 * MS, Act::Tick);
        for n in 0..if self.weather.rollout { 2 } else { 1 } {
            self.at(SECOND + n as u64 * 137 * MS, Act::Coordinate { n });
        }
        self.at(self.weather.heal_at, Act::Heal);
    }

    pub(crate) fn at(&mut self, after: u64, act: Act) {
        self.order += 1;
        self.queue.push(Due { at: self.now + after, order: self.order, act });
    }

    /// The keeper of `host` hears something after this long.
    pub(crate) fn tell(&mut self, after: u64, host: usize, life: u32, event: Event) {
        self.at(after, Act::Hear { host, life, asked: 0, event: Box::new(event) });
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Shows a fact to the checkers and to the trace.
    pub(crate) fn fact(&mut self, fact: Fact) {
        self.now.hash(&mut self.hash);
        fact.hash(&mut self.hash);
        if self.trace {
            println!("{:>12.6}  {fact}", self.now as f64 / 1e6);
        }
        if self.violation.is_none() {
            self.violation = self.checks.see(self.now, &fact).err();
        }
    }

    /// Says something in the trace that no checker looks at.
    pub(crate) fn remark(&self, what: impl FnOnce() -> String) {
        if self.trace {
            println!("{:>12.6}      {}", self.now as f64 / 1e6, what());
        }
    }

    /// The decision code itself says that something is wrong.
    pub(crate) fn broken(&mut self, check: &'static str, what: String) {
        self.violation.get_or_insert(Violation { at: self.now, check, what });
    }

    /// Runs until the weather's end, or the first violation.
    pub(crate) fn run(&mut self) {
        while self.violation.is_none() {
            let Some(Due { at, act, .. }) = self.queue.pop() else { break };
            self.now = at;
            self.act(act);
            let worked = self.works_since.is_some_and(|since| self.now > since + SECOND);
            if self.healed && (self.now > self.weather.end_at || (worked && !self.weather.to_the_end)) {
                break;
            }
        }
        if self.violation.is_none() {
            self.look_for_leaks();
        }
        if self.violation.is_none() {
            self.violation = self.checks.end(self.now).err();
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash.finish()
    }

    fn act(&mut self, act: Act) {
        if let Some(host) = self.frozen(&act) {
            return self.hosts[host].deferred.push(act);
        }
        match act {
            Act::AgentUp { host } => self.agent_up(host),
            Act::Launch { host, slot } => self.launch(host, slot),
            Act::Ready { who } => self.ready(who),
            // An older timer was set anew since.
            Act::Wake { host, n } => {
                if n == self.hosts[host].timer {
                    self.lap(host);
                }
            }
            Act::Hear { host, life, asked, event } => self.heard(host, life, asked, *event),
            Act::Arrive(sent) => self.arrive(sent),
            Act::Barrier(sent) => self.barrier(sent),
            Act::Pump { host } => self.pump(host),
            Act::Call { life, who, record, until } => self.called(life, who, *record, until),
            Act::Hangup { who, seq } => self.hang_up(who, seq),
            Act::UnitEnd { who, n } => self.unit_end(who, n),
            Act::Timeout { who, n } => self.timeout(who, n),
            Act::LateCommit { who } => self.end_transaction(who, true),
            Act::Die { who, all } => self.die(who, all),
            Act::Orphan { who } => self.orphan_ends(who),
            Act::Report { who, end } => self.report(who, end),
            Act::Fault { n } => self.fault(n),
            Act::Thaw { host } => self.thaw(host),
            Act::Certify(question) => self.certify(*question),
            Act::RaiseEra => self.raise_era(),
            Act::Suspect { host, what } => self.suspected(host, what),
            Act::Wanted { host } => self.tell_wanted(host),
            Act::Assign { host } => self.assign(host),
            Act::Coordinate { n } if self.weather.rollout => self.coordinate_rollout(n),
            Act::Coordinate { n } => self.coordinate(n),
            Act::Tick => self.tick(),
            Act::Heal => self.heal(),
        }
    }

    /// The paused host on which this is to execute.
    pub(crate) fn frozen(&self, act: &Act) -> Option<usize> {
        let (at, agent) = match act {
            Act::Wake { host, .. }
            | Act::Hear { host, .. }
            | Act::Suspect { host, .. }
            | Act::Assign { host }
            | Act::Wanted { host }
            | Act::Pump { host } => (*host, true),
            Act::Launch { host, .. } => (*host, false),
            Act::Report { who, .. } => (self.services[*who].host, true),
            Act::Certify(question) => (question.of, true),
            Act::Call { who, .. } | Act::UnitEnd { who, .. } | Act::Die { who, .. } => {
                (self.services[*who].host, false)
            }
            _ => return None,
        };
        let host = &self.hosts[at];
        let until = if agent { host.frozen_until.max(host.agent_frozen_until) } else { host.frozen_until };
        (until > self.now).then_some(at)
    }
}
