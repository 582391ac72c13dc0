mod accept;
mod crashes;
mod walk;

use std::time::Duration;

use handover_proto::assignment::{Assignment, AtDeadline, Cause, DrainPolicy, LeaseWish, Route, SlotWish, Upstream};
use handover_proto::blocker::BlockerKind;
use handover_proto::ids::{InstanceId, SlotId};
use handover_proto::lifecycle::{Event, Lifecycle};
use handover_proto::numbers::{Era, Serial, Term};

use super::next::{Effect, Next, next};
use super::observed::{Boot, Crashes, Instance, Kind, Ledger, Line, Observed, Process, Routes, Slot};

mod front;
mod jobs;

const GRACE: Duration = Duration::from_secs(10);

fn id(text: &str) -> SlotId {
    text.parse().expect("slot")
}

fn wish(version: &str, lifecycle: Lifecycle) -> SlotWish {
    SlotWish { version: version.parse().expect("version"), lifecycle, lease: LeaseWish::Eligible }
}

/// An assignment of (slot, version, state, reads and writes).
fn assigned(slots: &[(&str, &str, Lifecycle, u32)]) -> Assignment {
    Assignment {
        v: 1,
        term: Term::new(Era(0), 1).expect("term"),
        cause: Cause { rollout: None, step: 0, plan_hash: String::new() },
        slots: slots.iter().map(|(slot, version, state, _)| (id(slot), wish(version, *state))).collect(),
        routes: slots
            .iter()
            .map(|(slot, _, _, weight)| Route { to: Upstream::Slot(id(slot)), reads: *weight, writes: *weight })
            .collect(),
        drain: DrainPolicy { deadline_ms: 30_000, at_deadline: AtDeadline::Wait, over_all: false },
        leaving: false,
        lease: Default::default(),
        hooks: Vec::new(),
        fallback: None,
    }
}

/// A host that does what it is told: effects happen, the gate confirms, processes become ready.
struct Host {
    seen: Observed,
    now: Boot,
    log: Vec<Effect>,
    /// The policy allows to stop with work in hand.
    cuts: bool,
}

impl Host {
    fn new() -> Self {
        let slots = ["a", "b"].map(|slot| (id(slot), Slot::default()));
        let mut seen = Observed { slots: slots.into_iter().collect(), ..Observed::default() };
        seen.gate.connected = true;
        Self { seen, now: Duration::from_secs(100), log: Vec::new(), cuts: false }
    }

    fn lap(&mut self, assignment: &Assignment) -> Next {
        let out = next(Some(assignment), &self.seen, GRACE, self.now).expect("an assignment");
        for effect in &out.effects {
            self.act(effect);
        }
        out
    }

    fn act(&mut self, effect: &Effect) {
        self.log.push(effect.clone());
        let slot = match effect {
            Effect::Start { slot, .. }
            | Effect::FirstReady { slot }
            | Effect::Move { slot, .. }
            | Effect::Terminate { slot, .. }
            | Effect::Kill { slot } => self.seen.slots.get_mut(slot).expect("a slot of the host"),
        };
        match (effect, &mut slot.instance) {
            (Effect::Start { version, .. }, none @ None) => *none = Some(instance(version.as_str())),
            (Effect::FirstReady { .. }, Some(it)) => it.lifecycle = Some(Lifecycle::Ready),
            (Effect::Move { event, .. }, Some(it)) => {
                let from = it.lifecycle.expect("a state");
                it.lifecycle = Some(from.after(*event).expect("next only asks for legal moves"));
                it.draining_since = (*event == Event::Drain).then_some(self.now);
            }
            (Effect::Terminate { kill_at, .. }, Some(it)) => {
                assert!(it.ledger.is_drained() || self.cuts, "nothing is stopped with work in hand");
                it.process = Process::Stopping { kill_at: *kill_at, killed: false };
            }
            (Effect::Kill { .. }, Some(it)) => it.process = Process::Stopping { kill_at: self.now, killed: true },
            (effect, found) => panic!("{effect:?} with {found:?}"),
        }
    }

    /// Laps until nothing changes; the gate confirms in between.
    fn settle(&mut self, assignment: &Assignment) -> Next {
        for _ in 0..50 {
            let out = self.lap(assignment);
            let applied = self.seen.gate.applied.as_ref() == Some(&out.routes);
            if self.seen.gate.connected {
                self.seen.gate.applied = Some(out.routes.clone());
            }
            if out.effects.is_empty() && applied {
                return out;
            }
            if out.effects.is_empty() && !self.seen.gate.connected {
                return out;
            }
        }
        panic!("does not settle: {:?}", self.log);
    }

    fn instance(&mut self, slot: &str) -> &mut Instance {
        self.seen.slots.get_mut(&id(slot)).expect("slot").instance.as_mut().expect("an instance")
    }

    fn exit(&mut self, slot: &str) {
        self.seen.slots.get_mut(&id(slot)).expect("slot").instance = None;
    }

    /// Version 1 serves in slot a.
    fn serving() -> (Self, Assignment) {
        let mut host = Self::new();
        let wish = assigned(&[("a", "1", Lifecycle::Serving, 100)]);
        host.settle(&wish);
        host.instance("a").ready = true;
        assert!(host.settle(&wish).reached);
        host.log.clear();
        (host, wish)
    }
}

fn instance(version: &str) -> Instance {
    Instance {
        id: InstanceId::random(),
        version: version.parse().expect("version"),
        process: Process::Running,
        lifecycle: None,
        ready: false,
        unmet: vec!["schema_gate: inactive".into()],
        left: None,
        refused: None,
        ledger: Ledger::default(),
        draining_since: None,
        holds_lease: false,
        lease_lets_stop: true,
    }
}

fn requests(count: u64) -> Ledger {
    Ledger { lines: vec![Line::counted(Kind::Requests, count, Duration::from_secs(9))] }
}

fn kind(out: &Next) -> BlockerKind {
    out.waiting.as_ref().expect("a reason").kind
}

#[test]
fn without_an_assignment_nothing_is_decided_at_all() {
    let (host, _) = Host::serving();
    assert_eq!(next(None, &host.seen, GRACE, host.now), None);
}

#[test]
fn an_instance_gets_no_traffic_before_it_was_ready() {
    let mut host = Host::new();
    let wish = assigned(&[("a", "1", Lifecycle::Serving, 100)]);
    let out = host.settle(&wish);
    assert_eq!(host.log, [Effect::Start { slot: id("a"), version: "1".parse().expect("version") }]);
    assert!(out.routes.local.is_empty() && !out.reached);
    assert_eq!(kind(&out), BlockerKind::Readiness);
    assert!(out.waiting.expect("a reason").sentence.contains("schema_gate"), "the condition is named");

    host.instance("a").ready = true;
    let out = host.settle(&wish);
    assert!(out.reached);
    assert_eq!((out.routes.local[0].reads, out.routes.local[0].writes), (100, 100));
    assert_eq!(host.instance("a").lifecycle, Some(Lifecycle::Serving));
}

#[test]
fn readiness_lost_reaches_the_gate_in_the_same_lap_and_the_state_stays() {
    let (mut host, wish) = Host::serving();
    host.instance("a").ready = false;
    let out = host.lap(&wish);
    assert!(!out.routes.local[0].ready);
    assert!(!out.reached);
    assert_eq!(host.instance("a").lifecycle, Some(Lifecycle::Serving));
}

#[test]
fn a_start_first_upgrade_runs_both_versions_and_stops_the_old_one_last() {
    let (mut host, _) = Host::serving();
    let both = assigned(&[("a", "1", Lifecycle::Serving, 100), ("b", "2", Lifecycle::Ready, 0)]);
    host.settle(&both);
    host.instance("b").ready = true;
    assert!(host.settle(&both).reached);
    let shifted = assigned(&[("a", "1", Lifecycle::Ready, 0), ("b", "2", Lifecycle::Serving, 100)]);
    assert!(host.settle(&shifted).reached);
    assert_eq!(host.instance("a").lifecycle, Some(Lifecycle::Ready), "kept warm");
    let retired = assigned(&[("b", "2", Lifecycle::Serving, 100)]);
    assert_eq!(kind(&host.settle(&retired)), BlockerKind::Stop);
    host.exit("a");
    assert!(host.settle(&retired).reached);
}

#[test]
fn a_drain_ends_with_the_work_and_not_with_a_timer() {
    let (mut host, _) = Host::serving();
    host.instance("a").ledger = requests(4);
    let gone = assigned(&[]);
    let out = host.settle(&gone);
    assert_eq!(kind(&out), BlockerKind::Drain);
    assert!(out.waiting.as_ref().expect("a reason").sentence.contains("4 requests"));
    assert_eq!(out.wake_at, Some(host.now + Duration::from_secs(30)));
    host.now += Duration::from_secs(3600);
    let out = host.settle(&gone);
    assert_eq!(kind(&out), BlockerKind::Drain, "policy wait: it goes on waiting");
    assert!(out.waiting.expect("a reason").sentence.contains("past its deadline"));
    host.instance("a").ledger = requests(0);
    assert_eq!(kind(&host.settle(&gone)), BlockerKind::Stop);
}

#[test]
fn work_that_is_left_is_cut_only_if_the_policy_says_so_and_only_at_the_deadline() {
    let (mut host, _) = Host::serving();
    host.instance("a").ledger = requests(4);
    let mut gone = assigned(&[]);
    gone.drain.at_deadline = AtDeadline::Cut;
    assert_eq!(kind(&host.settle(&gone)), BlockerKind::Drain);
    host.now += Duration::from_secs(30);
    let out = next(Some(&gone), &host.seen, GRACE, host.now).expect("an assignment");
    assert_eq!(out.effects, [Effect::Move { slot: id("a"), event: Event::Retire }]);
    host.cuts = true;
    assert_eq!(kind(&host.settle(&gone)), BlockerKind::Stop, "what was decided is carried out");
}

#[test]
fn nothing_is_stopped_while_the_gate_cannot_confirm_that_its_traffic_is_gone() {
    let (mut host, _) = Host::serving();
    host.seen.gate.connected = false;
    let out = host.settle(&assigned(&[]));
    assert_eq!(kind(&out), BlockerKind::Drain);
    assert!(!host.log.iter().any(|effect| matches!(effect, Effect::Terminate { .. })));
    host.seen.gate.connected = true;
    host.seen.gate.applied = None;
    host.lap(&assigned(&[]));
    assert!(!host.log.iter().any(|effect| matches!(effect, Effect::Terminate { .. })), "not confirmed yet");
    assert_eq!(kind(&host.settle(&assigned(&[]))), BlockerKind::Stop);
}

#[test]
fn work_is_never_cut_while_the_gate_may_still_be_sending() {
    let (mut host, _) = Host::serving();
    host.seen.gate.connected = false;
    let mut gone = assigned(&[]);
    gone.drain.at_deadline = AtDeadline::Cut;
    assert_eq!(kind(&host.settle(&gone)), BlockerKind::Drain);
    host.now += Duration::from_secs(3600);
    assert_eq!(kind(&host.settle(&gone)), BlockerKind::Drain, "past the deadline, but not cut off");
}

#[test]
fn a_drain_that_is_to_fail_asks_for_a_human_at_its_deadline() {
    let (mut host, _) = Host::serving();
    host.instance("a").ledger = requests(4);
    let mut gone = assigned(&[]);
    gone.drain.at_deadline = AtDeadline::Fail;
    assert_eq!(kind(&host.settle(&gone)), BlockerKind::Drain);
    host.now += Duration::from_secs(30);
    assert_eq!(kind(&host.settle(&gone)), BlockerKind::Operator);
}

#[test]
fn an_instance_that_was_retired_is_stopped_even_if_its_version_is_wanted_again() {
    let (mut host, wish) = Host::serving();
    host.instance("a").lifecycle = Some(Lifecycle::Terminated);
    let out = host.settle(&wish);
    assert_eq!(kind(&out), BlockerKind::Stop);
    let stand = out.lease[&id("a")];
    assert!(stand.give_up && !stand.eligible, "it takes no lease on its way out: {stand:?}");
    host.exit("a");
    host.settle(&wish);
    assert!(matches!(host.log.last(), Some(Effect::Start { .. })));
}

#[test]
fn the_holder_of_the_lease_gives_it_up_before_it_is_stopped() {
    let (mut host, _) = Host::serving();
    host.instance("a").holds_lease = true;
    host.instance("a").lease_lets_stop = false;
    let out = host.settle(&assigned(&[]));
    assert_eq!(kind(&out), BlockerKind::Quiesce);
    assert!(out.lease[&id("a")].give_up);
    host.instance("a").holds_lease = false;
    host.instance("a").lease_lets_stop = true;
    assert_eq!(kind(&host.settle(&assigned(&[]))), BlockerKind::Stop);
}

#[test]
fn the_holder_of_the_lease_keeps_serving_without_traffic_and_that_is_as_assigned() {
    let (mut host, _) = Host::serving();
    host.instance("a").holds_lease = true;
    let out = host.settle(&assigned(&[("a", "1", Lifecycle::Ready, 0)]));
    assert!(out.reached, "{:?}", out.waiting);
    assert_eq!(host.instance("a").lifecycle, Some(Lifecycle::Serving));
    assert!(!out.lease[&id("a")].give_up, "moves are asked for by the intent alone");
}

#[test]
fn grace_ends_in_a_kill_and_a_kill_is_sent_once() {
    let (mut host, _) = Host::serving();
    let gone = assigned(&[]);
    let out = host.settle(&gone);
    assert_eq!(out.wake_at, Some(host.now + GRACE));
    host.now += GRACE;
    assert_eq!(kind(&host.settle(&gone)), BlockerKind::Stop);
    host.settle(&gone);
    assert_eq!(host.log.iter().filter(|effect| matches!(effect, Effect::Kill { .. })).count(), 1);
}

#[test]
fn a_kill_that_was_refused_is_ordered_again_and_the_reason_is_said() {
    let (mut host, _) = Host::serving();
    let gone = assigned(&[]);
    host.settle(&gone);
    let again = host.now + Duration::from_secs(1);
    let instance = host.instance("a");
    instance.process = Process::Stopping { kill_at: again, killed: false };
    instance.refused = Some("could not be killed: the engine is busy; trying again".into());
    let out = host.settle(&gone);
    assert_eq!((kind(&out), out.wake_at), (BlockerKind::Stop, Some(again)));
    assert!(out.waiting.expect("a reason").sentence.contains("the engine is busy"));
    host.now = again;
    let out = host.settle(&gone);
    assert!(matches!(host.log.last(), Some(Effect::Kill { .. })));
    assert!(out.waiting.expect("a reason").sentence.contains("the engine is busy"), "it may be so still");
    host.instance("a").refused = None;
    assert!(host.settle(&gone).waiting.expect("a reason").sentence.contains("is killed and has not ended yet"));
}

#[test]
fn nothing_is_asked_of_an_instance_that_is_only_being_started() {
    let mut host = Host::new();
    host.act(&Effect::Start { slot: id("a"), version: "1".parse().expect("version") });
    host.log.clear();
    host.instance("a").process = Process::Starting;
    for (wish, eligible) in [(assigned(&[]), false), (assigned(&[("a", "1", Lifecycle::Serving, 100)]), true)] {
        let out = host.settle(&wish);
        assert_eq!((kind(&out), host.log.len()), (BlockerKind::Start, 0));
        assert_eq!(out.lease[&id("a")].eligible, eligible, "it is not on its way out");
    }
    host.instance("a").process = Process::Running;
    assert_eq!(kind(&host.settle(&assigned(&[]))), BlockerKind::Stop);
}

#[test]
fn while_killed_processes_are_left_nothing_is_started_in_their_place() {
    let (mut host, wish) = Host::serving();
    let instance = host.instance("a");
    (instance.process, instance.left) = (Process::Lingering, Some("processes [7] are still there".into()));
    let out = host.settle(&wish);
    assert!(host.log.is_empty() && !out.reached && kind(&out) == BlockerKind::Stop);
    assert!(out.waiting.is_some_and(|waiting| waiting.sentence.contains("processes [7]")));
}

#[test]
fn another_version_in_a_slot_replaces_what_runs_there_in_order() {
    let (mut host, _) = Host::serving();
    let other = assigned(&[("a", "2", Lifecycle::Serving, 100)]);
    assert_eq!(kind(&host.settle(&other)), BlockerKind::Stop);
    host.exit("a");
    host.settle(&other);
    assert_eq!(host.instance("a").version.as_str(), "2");
}

#[test]
fn routes_are_equal_only_if_everything_in_them_is() {
    let (mut host, wish) = Host::serving();
    let before: Routes = host.lap(&wish).routes;
    host.instance("a").ready = false;
    assert_ne!(before, host.lap(&wish).routes);
}
