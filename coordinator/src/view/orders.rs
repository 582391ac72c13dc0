//! The standing orders, and what they wait for.

use std::time::Duration;

use handover_proto::blocker::{Blocker as TypedBlocker, BlockerKind};
use handover_proto::ids::Service;
use handover_proto::numbers::Term;
use handover_proto::stored::StoredError;
use handover_proto::wire::{Blocker, OrderLine, OrderStatus};

use super::{Viewer, staging};
use crate::core::next::Now;
use crate::core::standing::next::{Step, next};
use crate::core::standing::{Outcome, Phase, StandingOrder, What};
use crate::world::{Stage, World};

/// Orders that are over are shown this many.
const LATEST: usize = 5;

/// The open ones, the last ones that are over, and the one that is asked for; oldest first.
pub(super) fn statuses(all: &[StandingOrder], stage: &Stage, viewer: &Viewer, asked: u64) -> Vec<OrderStatus> {
    let over = all.iter().filter(|order| order.is_over()).count();
    let mut hidden = over.saturating_sub(LATEST);
    let shown = all.iter().filter(|order| {
        let hide = order.is_over() && hidden > 0;
        hidden = hidden.saturating_sub(usize::from(hide));
        !hide || order.number == asked
    });
    shown.map(|order| status(order, stage, viewer)).collect()
}

/// Those that nobody can read, as open ones that wait for an operator.
pub(super) fn unreadable(world: &World, service: &Service) -> Vec<OrderStatus> {
    let status = |(number, error): (u64, StoredError)| {
        let waiting_for =
            format!("somebody to mend or delete its key, since it cannot be read and nothing is done for it: {error}");
        let blocker = TypedBlocker { kind: BlockerKind::Operator, since_ms: 0, waiting_for };
        OrderStatus {
            number,
            sentence: "unreadable".to_owned(),
            state: "unreadable".to_owned(),
            blocker: Some(blocker.into()),
            ..OrderStatus::default()
        }
    };
    world.unreadable_orders(service).into_iter().map(status).collect()
}

/// All that are kept, oldest first.
pub(super) fn all(orders: &[StandingOrder], stage: &Stage) -> Vec<OrderStatus> {
    let viewer = Viewer { at_ms: crate::clock::wall_ms(), ..Viewer::default() };
    orders.iter().map(|order| status(order, stage, &viewer)).collect()
}

fn status(order: &StandingOrder, stage: &Stage, viewer: &Viewer) -> OrderStatus {
    let (ended_ms, reason) = match &order.phase {
        Phase::Ended { reason, at_ms, .. } => (*at_ms, reason.clone()),
        Phase::Returning { reason, .. } => (0, reason.clone()),
        _ => (0, String::new()),
    };
    let due_ms = match order.phase {
        Phase::Due { due_ms, .. } if due_ms > order.at_ms => due_ms,
        _ => 0,
    };
    let line = |line: &crate::core::standing::Line| OrderLine {
        at_ms: line.at_ms,
        term: line.term.get(),
        what: line.what.clone(),
    };
    OrderStatus {
        number: order.number,
        what: word(&order.what).to_owned(),
        sentence: order.sentence(),
        by: order.by.clone(),
        because: order.because.clone(),
        at_ms: order.at_ms,
        due_ms,
        ended_ms,
        state: state(&order.phase).to_owned(),
        reason,
        agent: order.drains().map(ToString::to_string).unwrap_or_default(),
        lines: order.lines.iter().map(line).collect(),
        blocker: blocker(order, stage, viewer),
        hosts: staging::rows(order, &stage.fleet),
    }
}

/// What an open order waits for; the same decision as the engine's comes out here.
pub(super) fn blocker(order: &StandingOrder, stage: &Stage, viewer: &Viewer) -> Option<Blocker> {
    let now = Now { wall_ms: viewer.at_ms, boot: Duration::ZERO, term: Term::default() };
    let others = stage.without(order.number);
    match next(order, &stage.scene(&others, Duration::ZERO, now)) {
        Step::Wait { blocker, .. } => Some(blocker.into()),
        Step::Do(_) | Step::Rest => None,
    }
}

fn word(what: &What) -> &'static str {
    match what {
        What::Handoff { .. } => "handoff",
        What::Release { .. } => "release",
        What::Freeze => "freeze",
        What::Unfreeze => "unfreeze",
        What::Drain { .. } => "drain",
        What::Stage { .. } => "stage",
    }
}

fn state(phase: &Phase) -> &'static str {
    match phase {
        Phase::Due { .. } => "scheduled",
        Phase::Moving { .. } | Phase::Settling { .. } => "moving",
        Phase::Leaving { .. } => "leaving",
        Phase::Emptying { .. } => "emptying",
        Phase::Drained { .. } => "drained",
        Phase::Staging { .. } => "staging",
        Phase::Returning { .. } => "returning",
        Phase::Ended { outcome: Outcome::Done, .. } => "done",
        Phase::Ended { outcome: Outcome::Undone, .. } => "undone",
        Phase::Ended { outcome: Outcome::Failed, .. } => "failed",
    }
}
