//! All rules together, as a model for stateright.

use stateright::{Model, Property};

use crate::bounds::{AGE_MAX, Bounds, Start, TTL};
use crate::configs::Config;
use crate::invariant::Invariant;
use crate::mistake::Mistake;
use crate::reach::Reach;
use crate::service::{NOBODY, Which};
use crate::state::{
    Agent, Beat, Candidate, Holder, Instance, Kind, Lease, LeaseNo, Pause, Phase, Service, Standing, State, Told, Turn,
};
use crate::world::Slip;

/// The world's rules: what may happen, and with which mistake.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What may happen.
    pub bounds: Bounds,
    /// What somebody does wrong.
    pub mistake: Option<Mistake>,
    /// What is checked.
    pub checked: Vec<Invariant>,
    /// What has to be reached, so that the checks are not about nothing.
    pub reached: Vec<Reach>,
    steps: Vec<Step>,
}

/// One step of somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Named as the rules that they call.
pub enum Step {
    Tick(Option<(usize, Slip)>),
    Grant(usize, bool),
    Adopt(usize),
    Stand(usize),
    Renew(usize, bool),
    RenewAgain(usize),
    Barrier(usize, bool),
    Read(usize),
    Observe(usize),
    Certify(usize),
    Activate(usize),
    Quiesce(usize),
    AcceptEra(usize),
    Take(usize),
    HandOver(usize),
    Release(usize),
    Mint(usize),
    Resolve(usize),
    Deliver(usize, usize),
    EndLease(usize, LeaseNo, bool),
    Install(usize),
    Begin(usize),
    Check(usize, Which),
    Commit(usize, Which),
    EndUnit(usize, Which),
    Abort(usize),
    Hang(usize),
    Kill(usize),
    Crash(usize, bool),
    StartProcess(usize),
    CrashAgent(usize),
    StartAgent(usize),
    Pause(usize, Pause),
    Resume(usize),
    Ask(usize),
    Restore,
    RaiseEra,
}

impl Rules {
    /// The rules as they should be, with every invariant that `config` claims.
    pub fn correct(config: &Config) -> Self {
        let checked = config.claimed().collect();
        Self {
            bounds: config.bounds,
            mistake: None,
            checked,
            reached: config.reached.to_vec(),
            steps: steps(&config.bounds),
        }
    }

    /// The rules with one mistake, in the configuration that shows it; only what it breaks is checked.
    pub fn mistaken(mistake: Mistake) -> Self {
        let correct = Self::correct(mistake.config());
        Self { mistake: Some(mistake), checked: vec![mistake.breaks()], reached: Vec::new(), ..correct }
    }

    /// Whether this mistake is made.
    pub fn has(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    /// The fencing token (§1.5): the era above the revision.
    pub fn token(&self, era: u8, rev: u8) -> u8 {
        if self.has(Mistake::CreateRevision) { 1 } else { era << 4 | rev }
    }
}

impl Model for Rules {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![begin(&self.bounds)]
    }

    fn actions(&self, _: &State, steps: &mut Vec<Step>) {
        steps.extend_from_slice(&self.steps);
    }

    fn next_state(&self, state: &State, step: Step) -> Option<State> {
        let mut next = self.take_step(state, step)?;
        next.settle();
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let checked = self.checked.iter().map(|invariant| invariant.property());
        checked.chain(self.reached.iter().map(|reach| reach.property())).collect()
    }
}

impl Rules {
    fn take_step(&self, state: &State, step: Step) -> Option<State> {
        match step {
            Step::Tick(slip) => self.tick(state, slip),
            Step::Grant(host, short) => self.grant(state, host, short),
            Step::Adopt(host) => self.adopt(state, host),
            Step::Stand(host) => self.stand(state, host),
            Step::Renew(host, real) => self.renew(state, host, real),
            Step::RenewAgain(host) => self.renew_again(state, host),
            Step::Barrier(host, stale) => self.barrier(state, host, stale),
            Step::Read(host) => self.read(state, host),
            Step::Observe(host) => self.observe(state, host),
            Step::Certify(host) => self.certify(state, host),
            Step::Activate(host) => self.activate(state, host),
            Step::Quiesce(host) => self.quiesce(state, host),
            Step::AcceptEra(host) => self.accept_era(state, host),
            Step::Take(host) => self.take(state, host),
            Step::HandOver(host) => self.hand_over(state, host),
            Step::Release(host) => self.release(state, host),
            Step::Mint(host) => self.mint(state, host),
            Step::Resolve(host) => self.resolve(state, host),
            Step::Deliver(host, slot) => self.deliver(state, host, slot),
            Step::EndLease(host, no, early) => self.end(state, host, no, early),
            Step::Install(host) => self.install(state, host),
            Step::Begin(host) => self.begin(state, host),
            Step::Check(host, which) => self.check(state, host, which),
            Step::Commit(host, which) => self.commit(state, host, which),
            Step::EndUnit(host, which) => self.end_unit(state, host, which),
            Step::Abort(host) => self.abort(state, host),
            Step::Hang(host) => self.hang(state, host),
            Step::Kill(host) => self.kill(state, host),
            Step::Crash(host, leaks) => self.crash(state, host, leaks),
            Step::StartProcess(host) => self.start_process(state, host),
            Step::CrashAgent(host) => self.crash_agent(state, host),
            Step::StartAgent(host) => self.start_agent(state, host),
            Step::Pause(host, pause) => self.pause(state, host, pause),
            Step::Resume(host) => self.resume(state, host),
            Step::Ask(to) => self.ask(state, to),
            Step::Restore => self.restore(state),
            Step::RaiseEra => self.raise_era(state),
        }
    }
}

/// Every step that `bounds` knows of; the rules say which of them can be taken.
fn steps(bounds: &Bounds) -> Vec<Step> {
    let mut steps = vec![Step::Tick(None)];
    for host in 0..usize::from(bounds.hosts) {
        steps.extend([Slip::Slow, Slip::Fast].map(|slip| Step::Tick(Some((host, slip)))));
        steps.extend([false, true].map(|short| Step::Grant(host, short)));
        steps.extend([true, false].map(|real| Step::Renew(host, real)));
        steps.extend([false, true].map(|stale| Step::Barrier(host, stale)));
        steps.extend([Step::Adopt(host), Step::Stand(host), Step::RenewAgain(host), Step::Read(host)]);
        steps.extend([Step::Observe(host), Step::Activate(host), Step::Quiesce(host), Step::AcceptEra(host)]);
        steps.extend([Step::Take(host), Step::HandOver(host), Step::Release(host), Step::Mint(host)]);
        steps.extend([Step::Certify(host), Step::Resolve(host), Step::Deliver(host, 0), Step::Deliver(host, 1)]);
        for no in 1..=bounds.leases {
            steps.extend([false, true].map(|early| Step::EndLease(host, no, early)));
        }
        for which in [Which::Present, Which::Left] {
            steps.extend([Step::Check(host, which), Step::Commit(host, which), Step::EndUnit(host, which)]);
        }
        steps.extend([Step::Install(host), Step::Begin(host), Step::Abort(host), Step::Hang(host), Step::Kill(host)]);
        steps.extend([false, true].map(|leaks| Step::Crash(host, leaks)));
        steps.extend([Step::StartProcess(host), Step::CrashAgent(host), Step::StartAgent(host), Step::Ask(host)]);
        steps.extend([Pause::Suspended, Pause::Undetected].map(|pause| Step::Pause(host, pause)));
        steps.push(Step::Resume(host));
    }
    steps.extend([Step::Restore, Step::RaiseEra]);
    steps
}

/// How the world begins.
fn begin(bounds: &Bounds) -> State {
    let mut state = State::default();
    state.fence.by = NOBODY;
    for number in 0..usize::from(bounds.hosts) {
        let host = &mut state.hosts[number];
        host.agent = Agent { up: true, age: AGE_MAX, ..Agent::default() };
        host.service = Service { up: true, age: AGE_MAX, ..Service::default() };
        if bounds.start == Start::Holding {
            host.agent = Agent { lease: 1, accepted: 2, ..host.agent };
            state.etcd.leases[number][0] = Lease::Alive { left: TTL, ttl: TTL };
            state.etcd.candidates[number] = Some(Candidate { life: 0, lease: 1, created: 1, prepared: 0 });
        }
    }
    if bounds.start == Start::Holding {
        first_turn(&mut state);
    }
    state
}

fn first_turn(state: &mut State) {
    let me = Instance { host: 0, life: 0 };
    state.etcd.holder = Holder { held: true, who: me, lease: 1, rev: 1, era: 0, op: 0, cause: Kind::Acquire };
    state.etcd.beat = Some(Beat { rev: 1, who: me, lease: 1 });
    let turn = Turn { rev: 1, era: 0, standing: Standing::Good, haunted: false, leaving: false };
    let host = &mut state.hosts[0];
    host.agent = Agent { used: true, age: 0, turn: Some(turn), ..host.agent };
    host.service = Service { told: Told::Active, token: 1, age: 0, installed: true, ..host.service };
    (state.fence.token, state.fence.by, state.seen.top) = (1, me, 1);
    debug_assert_eq!(host.service.unit.phase, Phase::None);
}
