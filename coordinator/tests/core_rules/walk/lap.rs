//! One lap of a coordinator that has just started, over a model.

use std::time::Duration;

use handover::core::event::{Event, Record};
use handover::core::fleet::{Agent, Assigned, Counts, Fleet, Heard, Instance, Process, Reported, Slot, Traffic};
use handover::core::next::{Act, Ask, Decision, Now, next};
use handover::core::order::{Order, order};
use handover::core::progress::{Progress, State};
use handover::core::samples::Samples;
use handover_proto::assignment::Cause;
use handover_proto::ids::InstanceId;
use handover_proto::lease::{Intent, LeaseView};
use handover_proto::lifecycle::Lifecycle;
use handover_proto::numbers::Serial;

use super::model::{EARLY, Health, Host, Kind, LATE, Model, Request, Rules, SIDES, Side};
use crate::world::{agent, candidate, hold, instance_id, owner, seen, slot, term, version};

/// What the coordinator does; none: it waits, or it is over.
pub(crate) fn lap(rules: &Rules, model: &Model, kind: Kind) -> Option<(Event, Model)> {
    let wall = if matches!(kind, Kind::LateLap | Kind::LateBackLap) { LATE } else { EARLY };
    let now = Now { wall_ms: wall.as_millis() as u64, boot: Duration::from_secs(1), term: term() };
    let mut fleet = rules.fleet.borrow_mut();
    write(rules, model, &mut fleet);
    let mut samples = Samples::default();
    samples.observe(&rules.plan, &model.progress, &fleet, now);
    if kind == Kind::ErrorsLap {
        only_errors(&mut fleet);
        samples.observe(&rules.plan, &model.progress, &fleet, now);
    }
    match next(&rules.plan, &model.progress, &fleet, &samples, now) {
        Decision::Do(act) => Some((act.event.clone(), carried_out(rules, model, *act))),
        Decision::Wait { blockers, .. } => {
            assert!(!blockers.is_empty(), "it waits and does not say for what: {model:?}");
            assert!(blockers.iter().all(|blocker| !blocker.waiting_for.is_empty()), "{blockers:?}");
            None
        }
        Decision::Ended(_) => {
            assert!(matches!(model.progress.state, State::Ended { .. }), "{model:?}");
            None
        }
    }
}

/// An operator's order; none: refused.
pub(crate) fn ordered(rules: &Rules, model: &Model, what: Order) -> Option<(Event, Model)> {
    let event = order(&rules.plan, &model.progress, what, "ann", "because").ok()?;
    let mut after = model.clone();
    after.progress = progress_after(rules, &model.progress, event.clone());
    Some((event, after))
}

fn progress_after(rules: &Rules, progress: &Progress, event: Event) -> Progress {
    let record = Record { v: 1, seq: 1, at_ms: 0, term: term(), prev_hash: String::new(), event };
    progress.clone().after(&rules.plan, &record).expect("what is decided is legal")
}

fn carried_out(rules: &Rules, model: &Model, act: Act) -> Model {
    let mut after = model.clone();
    for (number, host) in after.hosts.iter_mut().enumerate() {
        if let Some(assignment) = act.assignments.get(&agent(number as u8 + 1)) {
            assignment.check().expect("an assignment that agents accept");
            host.stored = rules.place_of(assignment.clone());
        }
    }
    takes_nothing_away(rules, model, &after, &act.event);
    match act.ask {
        Some(Ask::Intent(intent)) => after.intent = Some(request(model, &intent)),
        Some(Ask::Withdraw) => after.intent = None,
        None => {}
    }
    after.progress = progress_after(rules, &model.progress, act.event);
    after
}

/// What is decided, seen against how things are at this moment: no host that is heard stops serving by it, and forward
/// nothing begins below the floor.
fn takes_nothing_away(rules: &Rules, before: &Model, after: &Model, event: &Event) {
    let taken = |host: &Host| Host { taken: host.stored, ..host.clone() };
    for (old, new) in before.hosts.iter().zip(&after.hosts).filter(|(old, new)| old.heard && old.stored != new.stored) {
        assert!(!old.serves(rules) || taken(new).serves(rules), "{event:?} takes a host out: {before:?}");
    }
    if matches!(event, Event::Entered { .. }) {
        let serving = after.hosts.iter().filter(|host| host.heard && taken(host).serves(rules)).count();
        assert!(serving >= rules.plan.min_serving, "{event:?} below the floor: {before:?}");
    }
}

/// Only the holder is asked, and only for an instance that can.
fn request(model: &Model, intent: &Intent) -> Request {
    let place = |id: &InstanceId| {
        let mut places = (0..model.hosts.len()).flat_map(|number| SIDES.map(|side| (number, side)));
        places.find(|place| name(*place) == *id).expect("an instance of this fleet")
    };
    let (from, to) = (place(&intent.from), place(intent.to.as_ref().expect("an heir")));
    assert_eq!(model.holder, Some(from), "somebody is asked who does not hold: {model:?}");
    assert_eq!(model.health(to), Health::Ready, "the lease is asked for one that is not ready: {model:?}");
    let forward = matches!(model.progress.state, State::Running { .. });
    assert_eq!(
        (from.1, to.1),
        if forward { (Side::Current, Side::Candidate) } else { (Side::Candidate, Side::Current) }
    );
    Request { op: model.progress.asks, from, to, declined: false }
}

fn name((number, side): (usize, Side)) -> InstanceId {
    instance_id(&agent(number as u8 + 1), &slot(side.slot()))
}

fn write(rules: &Rules, model: &Model, fleet: &mut Fleet) {
    for ((number, host), view) in model.hosts.iter().enumerate().zip(fleet.agents.values_mut()) {
        write_agent(rules, model, number, host, view);
    }
    fleet.lease = lease(rules, model);
}

fn write_agent(rules: &Rules, model: &Model, number: usize, host: &Host, view: &mut Agent) {
    let serial = |place: usize| Serial(place as i64 + 1000);
    view.heard = if host.heard { Heard::Yes } else { Heard::Silent { since_ms: 0 } };
    if view.assigned.as_ref().is_none_or(|assigned| assigned.serial != serial(host.stored)) {
        let assignment = rules.table.borrow()[host.stored].clone();
        view.assigned = Some(Assigned { assignment, serial: serial(host.stored) });
    }
    let slots = SIDES.map(|side| {
        let crashes = u32::from(host.side(side) == Health::Crashed);
        (slot(side.slot()), Slot { instance: instance(rules, model, number, side), crashes, last_exit: None })
    });
    view.report = Some(Reported {
        accepted: serial(host.taken),
        reached: if host.is_true(rules) { serial(host.taken) } else { Serial(0) },
        blocker: None,
        gate: true,
        front_pending: false,
        staging: None,
        slots: slots.into_iter().collect(),
    });
}

fn instance(rules: &Rules, model: &Model, number: usize, side: Side) -> Option<Instance> {
    let host = &model.hosts[number];
    let (reads, writes) = rules.weights(host.taken, side);
    let serves = reads + writes > 0 || model.holder == Some((number, side));
    let (ready, lifecycle) = match host.side(side) {
        Health::Absent | Health::Crashed => return None,
        Health::Starting => (false, None),
        health => (health == Health::Ready, Some(if serves { Lifecycle::Serving } else { Lifecycle::Ready })),
    };
    Some(Instance {
        id: name((number, side)),
        version: version(side.version()),
        lifecycle,
        process: Process::Running,
        ready,
        unmet: Vec::new(),
        since_ms: 0,
        reads,
        writes,
        in_flight: 0,
        oldest_ms: 0,
        traffic: Some(Traffic::default()),
    })
}

fn lease(rules: &Rules, model: &Model) -> LeaseView {
    let mut view = LeaseView::default();
    if let Some((number, side)) = model.holder {
        hold(&mut view, &agent(number as u8 + 1), side.slot(), side.version(), 50);
        let op = model.holder_op.map(|op| op_id(rules, op));
        let holder = view.holder.as_mut().expect("just written");
        holder.value.op = op.unwrap_or(holder.value.op.clone());
    }
    let working = view.token().expect("a token");
    for number in 0..model.hosts.len() {
        for side in SIDES {
            let health = model.health((number, side));
            if matches!(health, Health::Absent | Health::Crashed) {
                continue;
            }
            let mut value = candidate(owner(&agent(number as u8 + 1), side.slot(), side.version()));
            value.ready = health == Health::Ready && eligible(rules, &model.hosts[number], side);
            value.active =
                working.filter(|_| model.acting.contains(&(number, side)) && model.holder == Some((number, side)));
            let declined = model.intent.filter(|request| request.declined && request.from == (number, side));
            value.declined = declined.map(|request| op_id(rules, request.op));
            view.candidates.insert(name((number, side)), seen(value, 60));
        }
    }
    view.intent = model.intent.map(|request| seen(intent(rules, request), 70));
    view
}

pub(crate) fn eligible(rules: &Rules, host: &Host, side: Side) -> bool {
    let table = rules.table.borrow();
    let wish = table[host.taken].slots.get(&slot(side.slot()));
    wish.is_some_and(|wish| wish.lease == handover_proto::assignment::LeaseWish::Eligible)
}

fn intent(rules: &Rules, request: Request) -> Intent {
    use handover_proto::lease::IntentKind::{Handoff, Return};
    Intent {
        v: 1,
        op: op_id(rules, request.op),
        kind: if request.to.1 == Side::Candidate { Handoff } else { Return },
        from: name(request.from),
        to: Some(name(request.to)),
        quiesce_timeout_ms: 30_000,
        term: term(),
        cause: Cause { rollout: Some(rules.plan.id.clone()), step: 0, plan_hash: String::new() },
    }
}

/// As the coordinator makes them.
fn op_id(rules: &Rules, count: u32) -> handover_proto::ids::OpId {
    let digest = handover::core::event::sha256_hex(format!("{}/asks/{count}", rules.plan.id).as_bytes());
    digest[..16].parse().expect("an op")
}

fn only_errors(fleet: &mut Fleet) {
    let slots = fleet.agents.values_mut().filter_map(|view| view.report.as_mut()).flat_map(|report| &mut report.slots);
    for found in slots.filter_map(|(name, here)| here.instance.as_mut().filter(|_| name.as_str() == "b")) {
        if found.reads + found.writes > 0 {
            found.traffic.get_or_insert_default().reads = Counts { requests: 100, bad: 100 };
        }
    }
}
