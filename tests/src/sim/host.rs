//! An agent: the keeper's real core, its timer and its state file, over crashes and restarts.

use handover_agent::lease::event::Event;
use handover_agent::lease::memory::Memory;
use handover_agent::lease::next::Now;
use handover_agent::lease::state::Core;
use handover_agent::lease::step::LeaseStep;
use handover_agent::lease::waiting::Waiting;
use handover_agent::lease::wanted::{InstanceLease, KeeperStatus, LeaseState, Wanted};

use handover_proto::assignment::Assignment;
use handover_proto::txn::Revision;

use super::clock::Clock;
use super::fact::{Fact, Who};
use super::slot::Slot;
use super::world::{Act, MS, SECOND, World};

/// More steps than this without coming to rest are a bug of the decision code.
const MAX_STEPS: u32 = 200;
/// What a host has seen of trouble makes it no witness for this long.
const RECOVERY_US: u64 = 3 * SECOND;

pub(crate) struct Host {
    pub(crate) clock: Clock,
    pub(crate) core: Option<Core>,
    /// Counts agent processes: news for an earlier one is dropped.
    pub(crate) life: u32,
    /// Number of the timer that counts.
    pub(crate) timer: u64,
    pub(crate) disk: Option<Memory>,
    pub(crate) disk_fails_until: u64,
    pub(crate) slots: [Slot; 2],
    /// Whose processes have ended, and whether that is proved: their slots are free, and the keeper still has to know.
    pub(crate) departed: Vec<(Who, bool)>,
    pub(crate) wanted: Wanted,
    /// As it stands in the store, with its serial.
    pub(crate) assigned: Option<(Assignment, Revision)>,
    /// The serial of the one that it acts on.
    pub(crate) accepted: Revision,
    /// How much of the watch has been passed on; none: it begins with a listing.
    pub(crate) cursor: Option<usize>,
    pub(crate) pump_at: u64,
    /// Per member: nothing gets through before this.
    pub(crate) cut_until: [u64; 3],
    /// The member for everything but renewals.
    pub(crate) member: usize,
    /// Its next lease transaction arrives after it has given up on it.
    pub(crate) late_move: bool,
    pub(crate) watch_behind_until: u64,
    /// The other agents do not hear it before this.
    pub(crate) alone_until: u64,
    pub(crate) frozen_until: u64,
    pub(crate) agent_frozen_until: u64,
    /// What is to execute when it goes on.
    pub(crate) deferred: Vec<Act>,
    /// The whole host is gone until the weather is good again.
    pub(crate) lost: bool,
    /// Wall clock against true time, in milliseconds.
    pub(crate) wall_step_ms: i64,
    /// The last trouble.
    pub(crate) troubled: u64,
}

impl Host {
    pub(crate) fn new(n: usize, rate: f64) -> Self {
        Self {
            // Each host booted at its own time.
            clock: Clock::new((n as u64 + 1) * 1_000_000_000, rate),
            core: None,
            life: 0,
            timer: 0,
            disk: None,
            disk_fails_until: 0,
            slots: [Slot::serving(), Slot::default()],
            departed: Vec::new(),
            wanted: Wanted::default(),
            assigned: None,
            accepted: 0,
            cursor: None,
            pump_at: 0,
            cut_until: [0; 3],
            member: n,
            late_move: false,
            watch_behind_until: 0,
            alone_until: 0,
            frozen_until: 0,
            agent_frozen_until: 0,
            deferred: Vec::new(),
            lost: false,
            wall_step_ms: 0,
            troubled: 0,
        }
    }

    pub(crate) fn is_cut(&self, member: usize, now: u64) -> bool {
        self.lost || now < self.cut_until[member]
    }

    fn wall_ms(&self, now: u64) -> u64 {
        // Some day long ago, so that a step never goes below zero.
        (1_000_000_000 + (now / MS) as i64 + self.wall_step_ms) as u64
    }
}

impl World {
    pub(crate) fn agent_up(&mut self, host: usize) {
        let now = self.now;
        let (settings, keys) = (self.settings.clone(), self.keys.clone());
        let state = &mut self.hosts[host];
        if state.core.is_some() || state.lost {
            return;
        }
        state.life += 1;
        state.troubled = now;
        let mut core = Core::new(settings, keys, "boot", state.disk.clone());
        core.apply(Event::Wanted(state.wanted.clone()), state.clock.boot(now));
        state.core = Some(core);
        state.cursor = None;
        let lag = self.chance.within(1, 20) * MS;
        self.pump_soon(host, lag);
        self.lap(host);
    }

    pub(crate) fn agent_down(&mut self, host: usize) {
        self.hosts[host].core = None;
        // Its next process knows of them by the state file alone.
        self.hosts[host].departed.clear();
        self.fact(Fact::Down { host });
    }

    /// What runs here is told, as it is when the agent hears it.
    pub(crate) fn tell_wanted(&mut self, host: usize) {
        if self.frozen(&Act::Wanted { host }).is_some() {
            return self.at(0, Act::Wanted { host });
        }
        self.hosts[host].wanted = self.wanted(host);
        let (life, wanted) = (self.hosts[host].life, self.hosts[host].wanted.clone());
        self.hear(host, life, Event::Wanted(wanted));
    }

    pub(crate) fn hear(&mut self, host: usize, life: u32, event: Event) {
        let now = self.now;
        let state = &mut self.hosts[host];
        let boot = state.clock.boot(now);
        let Some(core) = state.core.as_mut().filter(|_| life == state.life) else { return };
        core.apply(event, boot);
        self.lap(host);
    }

    /// What the shell does: steps until there is nothing but to wait.
    pub(crate) fn lap(&mut self, host: usize) {
        for _ in 0..MAX_STEPS {
            let state = &mut self.hosts[host];
            let boot = state.clock.boot(self.now);
            let wall_ms = state.wall_ms(self.now);
            let Ok(op) = self.chance.hex().parse() else { return };
            let Some(core) = state.core.as_mut() else { return };
            let step = match core.next(&Now { boot, wall_ms, op }) {
                Ok(step) => step,
                Err(error) => return self.broken("core", error.to_string()),
            };
            if let Err(error) = core.started(&step, boot) {
                return self.broken("core", error.to_string());
            }
            if let LeaseStep::Wait { until, reason } = step {
                let after = until.map_or(SECOND, |until| state.clock.until(until.ns(), self.now));
                state.timer += 1;
                let n = state.timer;
                self.at(after.max(1), Act::Wake { host, n });
                self.waits(host, reason.as_ref());
                return self.retire(host);
            }
            self.start(host, step, boot);
        }
        self.broken("core", format!("the keeper of host {host} does not come to rest"));
    }

    /// Whether this host is one that should act, and what it says.
    fn waits(&mut self, host: usize, reason: Option<&Waiting>) {
        let state = &self.hosts[host];
        let witness = self.now > state.troubled.max(self.etcd.ready_at) + RECOVERY_US;
        let beats = self.etcd.keys.contains_key(&self.keys.beat());
        let holder = self.present.map(|(who, _, _)| who).filter(|who| {
            let service = &self.services[*who];
            service.alive && service.host == host && self.hosts[host].slots[service.slot].who == Some(*who)
        });
        let acts = match holder {
            Some(who) => self.services[who].unit.is_none(),
            None => !beats && self.could_take(host),
        };
        let silent = acts && reason.is_none();
        let acts = acts && witness && (!silent || self.knows(host, holder.is_some()));
        if let Some(reason) = reason {
            self.remark(|| format!("host {host} waits for {reason}"));
        }
        self.fact(Fact::Waits { host, acts, why: reason.map(Waiting::kind) });
    }

    /// Whether the keeper has heard that it is its turn to act.
    fn knows(&self, host: usize, holds: bool) -> bool {
        let state = &self.hosts[host];
        let Some(core) = &state.core else { return false };
        let status = core.status(&KeeperStatus::default(), None, state.clock.boot(self.now), 0);
        let works = |lease: &InstanceLease| lease.state == LeaseState::Holder;
        match status.holder {
            // One that has not heard of its own turn believes in an earlier holder.
            Some(holder) if holder.beating => {
                holds && status.instances.contains_key(&holder.instance) && !status.instances.values().any(works)
            }
            Some(_) | None => true,
        }
    }

    /// The main loop: what may stop is stopped, what is gone from the lease is forgotten.
    fn retire(&mut self, host: usize) {
        let state = &self.hosts[host];
        let stops = !state.departed.is_empty() || state.slots.iter().any(|slot| slot.who.is_some() && slot.leaves());
        let Some(core) = state.core.as_ref().filter(|_| stops) else { return };
        let status = core.status(&KeeperStatus::default(), None, state.clock.boot(self.now), 0);
        let lets_go = |who: &Who| status.instances.get(&self.services[*who].id).is_none_or(|lease| lease.may_stop);
        let forgotten: Vec<Who> = state.departed.iter().map(|(who, _)| *who).filter(lets_go).collect();
        // A process that lingers keeps its slot.
        let stoppable = |slot: &Slot| slot.who.filter(|_| slot.give_up && !slot.lingers);
        let done: Vec<Who> = state.slots.iter().filter_map(stoppable).filter(lets_go).collect();
        if !forgotten.is_empty() {
            self.hosts[host].departed.retain(|(who, _)| !forgotten.contains(who));
            self.at(0, Act::Wanted { host });
        }
        for who in done {
            self.stopped(who);
        }
    }
}
