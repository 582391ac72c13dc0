//! One slot: from what is wanted of it and what runs there to the next moves.

use std::time::Duration;

use handover_proto::assignment::{AtDeadline, DrainPolicy, SlotWish};
use handover_proto::blocker::BlockerKind;
use handover_proto::ids::{SlotId, Version};
use handover_proto::lifecycle::{Event, Lifecycle};

use super::next::{Effect, Waiting};
use super::observed::{Boot, Crashes, GateSeen, Instance, LocalRoute, Process, Slot};

/// A first restart is quick, since most crashes are single; the limit keeps a crash loop from burning the host.
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(10);

/// When to start again after the `count`-th crash in a row.
pub fn retry_after(count: u32) -> Duration {
    FIRST_RETRY.saturating_mul(2u32.saturating_pow(count.saturating_sub(1))).min(LAST_RETRY)
}

/// What is wanted of a slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Want<'a> {
    pub(super) wish: Option<&'a SlotWish>,
    pub(super) weights: (u32, u32),
    pub(super) drain: DrainPolicy,
    pub(super) grace: Duration,
    pub(super) now: Boot,
    /// The host is to serve nothing, and its balancers still send here: whatever serves goes on.
    pub(super) kept: Option<&'a Waiting>,
    /// Why balancers may still send to an instance that drains.
    pub(super) unconfirmed: Option<&'a Waiting>,
}

/// What one slot adds to the lap.
#[derive(Debug, Default)]
pub(super) struct Lap {
    pub(super) effects: Vec<Effect>,
    pub(super) waiting: Option<Waiting>,
    pub(super) wake_at: Option<Boot>,
    /// The instance must give up the scheduler lease.
    pub(super) give_up: bool,
}

impl Lap {
    fn act(effect: Effect) -> Self {
        Self { effects: vec![effect], ..Self::default() }
    }

    fn wait(kind: BlockerKind, sentence: String) -> Self {
        Self { waiting: Some(Waiting { kind, sentence }), ..Self::default() }
    }

    fn until(mut self, at: Boot) -> Self {
        self.wake_at = Some(at);
        self
    }

    fn giving_up(mut self) -> Self {
        self.give_up = true;
        self
    }
}

impl Want<'_> {
    /// The version that is to run, if one is.
    pub(super) fn version(&self) -> Option<&Version> {
        self.wish.filter(|wish| wish.lifecycle != Lifecycle::Terminated).map(|wish| &wish.version)
    }

    /// Whether this very instance is wanted, in whatever state.
    pub(super) fn wants(&self, instance: &Instance) -> bool {
        self.version() == Some(&instance.version)
    }

    /// The weights that this instance gets.
    pub(super) fn weights_of(&self, instance: &Instance) -> (u32, u32) {
        if self.kept.is_some() && instance.lifecycle == Some(Lifecycle::Serving) {
            return if instance.process == Process::Running { (100, 100) } else { (0, 0) };
        }
        let serves = self.wish.is_some_and(|wish| wish.lifecycle == Lifecycle::Serving);
        if serves && self.wants(instance) && instance.process == Process::Running { self.weights } else { (0, 0) }
    }
}

/// The next moves of one slot.
pub(super) fn next(id: &SlotId, slot: &Slot, want: &Want<'_>, gate: &GateSeen) -> Lap {
    let cut_off = slot.instance.as_ref().is_some_and(|instance| is_cut_off(instance, gate));
    if let Some(waiting) = want.kept.filter(|_| is_serving(slot)) {
        return Lap::wait(
            waiting.kind,
            format!("slot {id} serves on until its balancers let it go: {}", waiting.sentence),
        );
    }
    match &slot.instance {
        None => empty(id, slot, want),
        Some(instance) => match instance.process {
            Process::Starting => {
                Lap::wait(BlockerKind::Start, format!("slot {id}: the driver to start {}", instance.version))
            }
            Process::Stopping { kill_at, killed } => stopping(id, instance, kill_at, killed, want.now),
            Process::Lingering => lingering(id, instance),
            Process::Running if want.wants(instance) && !is_retired(instance) => wanted(id, instance, want, cut_off),
            Process::Running => unwanted(id, instance, want, cut_off),
        },
    }
}

fn empty(id: &SlotId, slot: &Slot, want: &Want<'_>) -> Lap {
    let Some(version) = want.version() else { return Lap::default() };
    match slot.crashes.as_ref().filter(|crashes| crashes.version == *version) {
        Some(Crashes { count, retry_at, reason, .. }) if *retry_at > want.now => {
            let times = if *count == 1 { "once".to_owned() } else { format!("{count} times") };
            let sentence = format!("slot {id}: version {version} ended {times} ({reason}); starting it again soon");
            Lap::wait(BlockerKind::Crash, sentence).until(*retry_at)
        }
        _ => Lap::act(Effect::Start { slot: id.clone(), version: version.clone() }),
    }
}

fn stopping(id: &SlotId, instance: &Instance, kill_at: Boot, killed: bool, now: Boot) -> Lap {
    // What was refused last is what there is to say, also while it is tried again.
    let sentence = |what: &str| {
        format!("slot {id}: the process of {} {}", instance.version, instance.refused.as_deref().unwrap_or(what))
    };
    if killed {
        return Lap::wait(BlockerKind::Stop, sentence("is killed and has not ended yet"));
    }
    if now >= kill_at {
        return Lap::act(Effect::Kill { slot: id.clone() });
    }
    Lap::wait(BlockerKind::Stop, sentence("was told to stop; it is killed when its grace is over")).until(kill_at)
}

/// Nothing is started in its place, and its stop is not proved, before it is gone.
fn lingering(id: &SlotId, instance: &Instance) -> Lap {
    let left = instance.left.as_deref().unwrap_or("processes of it are left");
    Lap::wait(BlockerKind::Stop, format!("slot {id}: {} has ended, but {left}", instance.version))
}

/// An instance of the wanted version: becomes ready, gets traffic or loses it.
fn wanted(id: &SlotId, instance: &Instance, want: &Want<'_>, cut_off: bool) -> Lap {
    let duty = want.weights_of(instance) != (0, 0) || instance.holds_lease;
    let step = |event| Lap::act(Effect::Move { slot: id.clone(), event });
    match (instance.lifecycle, duty) {
        (None, _) if instance.ready => Lap::act(Effect::FirstReady { slot: id.clone() }),
        (None, _) => not_ready(id, instance),
        (Some(Lifecycle::Ready), true) => step(Event::Serve),
        (Some(Lifecycle::Serving), false) => step(Event::Drain),
        (Some(Lifecycle::Draining), true) => step(Event::Drained),
        (Some(Lifecycle::Draining), false) if cut_off && instance.ledger.is_drained() => step(Event::Drained),
        (Some(Lifecycle::Draining), false) => draining(id, instance, want),
        _ if !instance.ready => not_ready(id, instance),
        // Its traffic moved away, but it holds the lease: work that is left is waited for all the same.
        (Some(Lifecycle::Serving), true) if want.weights_of(instance) == (0, 0) && !instance.ledger.is_drained() => {
            draining(id, instance, want)
        }
        (Some(Lifecycle::Ready), false) | (Some(Lifecycle::Serving), true) => Lap::default(),
        (Some(Lifecycle::Migrating | Lifecycle::Terminated), _) => Lap::default(),
    }
}

fn not_ready(id: &SlotId, instance: &Instance) -> Lap {
    let unmet = if instance.unmet.is_empty() { "no probe has answered yet".into() } else { instance.unmet.join("; ") };
    Lap::wait(BlockerKind::Readiness, format!("slot {id}: {} is not ready: {unmet}", instance.version))
}

fn draining(id: &SlotId, instance: &Instance, want: &Want<'_>) -> Lap {
    let left = match want.unconfirmed {
        Some(waiting) => waiting.sentence.clone(),
        None if instance.ledger.is_drained() => "the gate to confirm".into(),
        None => instance.ledger.sentence(),
    };
    let policies = policies(instance, want);
    let late =
        |policy: &DrainPolicy| instance.draining_since.is_some_and(|since| want.now >= since + policy.deadline());
    let past = if policies.iter().any(late) { ", past its deadline" } else { "" };
    let failed = policies.iter().any(|policy| late(policy) && policy.at_deadline == AtDeadline::Fail);
    let uncounted = !instance.ledger.is_drained() && instance.ledger.left().all(|line| line.unknown.is_some());
    let kind = match (failed, want.unconfirmed, uncounted) {
        (true, ..) => BlockerKind::Operator,
        (false, Some(waiting), _) => waiting.kind,
        (false, None, true) => BlockerKind::Uncounted,
        (false, None, false) => BlockerKind::Drain,
    };
    let lap = Lap::wait(kind, format!("slot {id}: {} drains{past}: {left}", instance.version));
    let ahead = policies.iter().filter(|policy| !late(policy)).map(DrainPolicy::deadline).min();
    match instance.draining_since.zip(ahead) {
        Some((since, deadline)) => lap.until(since + deadline),
        None => lap,
    }
}

/// Under what the lines that are left are drained; with none left, under the assignment's policy.
fn policies(instance: &Instance, want: &Want<'_>) -> Vec<DrainPolicy> {
    if want.drain.over_all {
        return vec![want.drain];
    }
    let left: Vec<_> = instance.ledger.left().map(|line| line.policy.unwrap_or(want.drain)).collect();
    if left.is_empty() { vec![want.drain] } else { left }
}

/// An instance that is to go: out of routing, drained, lease elsewhere, SIGTERM, grace, SIGKILL (`DESIGN.md` §5).
fn unwanted(id: &SlotId, instance: &Instance, want: &Want<'_>, cut_off: bool) -> Lap {
    let step = |event| Lap::act(Effect::Move { slot: id.clone(), event }).giving_up();
    if instance.lifecycle == Some(Lifecycle::Serving) {
        return step(Event::Drain);
    }
    // Retired is decided: with the policy `cut`, work may be left.
    let retired = is_retired(instance);
    // A cut, too, comes only after the gate has stopped sending (`SAFETY.md` R5).
    let drained = cut_off && (instance.ledger.is_drained() || overdue(instance, want));
    if !(retired || drained) {
        return draining(id, instance, want).giving_up();
    }
    if !instance.lease_lets_stop {
        let sentence =
            format!("slot {id}: the service of {} has not given up the scheduler lease yet", instance.version);
        return Lap::wait(BlockerKind::Quiesce, sentence).giving_up();
    }
    match instance.lifecycle {
        Some(Lifecycle::Ready | Lifecycle::Migrating | Lifecycle::Draining) => step(Event::Retire),
        Some(Lifecycle::Serving) => step(Event::Drain),
        Some(Lifecycle::Terminated) | None => {
            let kill_at = want.now + want.grace;
            Lap::act(Effect::Terminate { slot: id.clone(), kill_at }).giving_up()
        }
    }
}

/// Something here has traffic.
pub(super) fn is_serving(slot: &Slot) -> bool {
    let serves = |it: &Instance| it.lifecycle == Some(Lifecycle::Serving) && it.process == Process::Running;
    slot.instance.as_ref().is_some_and(serves)
}

/// It was told to go, or is about to be: there is no way back from that, whatever is wanted meanwhile.
pub(super) fn is_retired(instance: &Instance) -> bool {
    let ends = matches!(instance.process, Process::Stopping { .. } | Process::Lingering);
    ends || instance.lifecycle == Some(Lifecycle::Terminated)
}

/// Of each line that is left the deadline has passed, and its policy says to cut it.
fn overdue(instance: &Instance, want: &Want<'_>) -> bool {
    let Some(since) = instance.draining_since else { return false };
    let is_cut = |policy: &DrainPolicy| want.now >= since + policy.deadline() && policy.at_deadline == AtDeadline::Cut;
    policies(instance, want).iter().all(is_cut)
}

/// The route that this slot's instance gets, once it has been ready.
pub(super) fn route(id: &SlotId, slot: &Slot, want: &Want<'_>) -> Option<LocalRoute> {
    let instance = slot.instance.as_ref()?;
    instance.lifecycle?;
    let (reads, writes) = want.weights_of(instance);
    Some(LocalRoute {
        slot: id.clone(),
        instance: instance.id.clone(),
        version: instance.version.clone(),
        reads,
        writes,
        ready: instance.ready,
    })
}

/// The gate has confirmed that it sends this instance nothing new, so its ledger can only shrink.
pub(super) fn is_cut_off(instance: &Instance, gate: &GateSeen) -> bool {
    let never_routed = instance.lifecycle.is_none();
    never_routed || gate.sends_nothing_to(&instance.id)
}
