//! The scheduler lease, for `lease show`.

use handover_proto::ids::Service;
use handover_proto::lease::{Candidate, HolderState, LeaseCause, LeaseView};
use handover_proto::stored::StoredError;
use handover_proto::wire::{Freeze, LeaseReport, LeaseStatus};

use crate::core::{standing, store_health, turns};
use crate::world::World;

/// Who holds, or held last, and who could.
///
/// # Errors
/// [`StoredError::Garbled`], which names the key.
pub(super) fn status(world: &World, service: &Service, view: &LeaseView) -> Result<LeaseStatus, StoredError> {
    let mut status = LeaseStatus {
        state: "never held".into(),
        guard: "timed only".into(),
        beating: view.beat.is_some(),
        intent: intent(world, service, view)?,
        candidates: candidates(view),
        freeze: world.freeze(service).map(|f| Freeze { by: f.by, because: f.because, at_ms: f.at_ms }),
        store: store_health::sentence(&world.members, world.guard()),
        roster: roster(view),
        era: u32::from(view.era.0.0),
        ..LeaseStatus::default()
    };
    let Some(holder) = &view.holder else { return Ok(status) };
    let owner = holder.value.owner();
    status.state = match &holder.value.state {
        HolderState::Held(_) if view.beat.is_some() => "held".into(),
        HolderState::Held(_) => "lost".into(),
        HolderState::Free(_) => "free".into(),
    };
    status.agent = owner.agent.to_string();
    status.instance = owner.instance.to_string();
    status.version = owner.version.to_string();
    status.token = view.token().ok().flatten().map(|token| token.get().to_string()).unwrap_or_default();
    status.turn = holder.value.turn;
    status.since_ms = holder.value.at_ms;
    status.cause = cause(&holder.value.cause);
    if let Err(corrupt) = view.check() {
        status.cause = corrupt.to_string();
    }
    let newest = world.turns(service)?.pop();
    if let Some((since_ms, because)) = turns::dark(view, newest.as_ref(), world.beat_gone(service)) {
        (status.dark_since_ms, status.dark_because) = (since_ms, because);
    }
    // A token that its service has stored is one that it checks its writes against.
    let stored = view.candidates.get(&owner.instance).and_then(|seen| seen.value.stored_token);
    if stored.is_some() {
        status.guard = "enforced at database".into();
    }
    if let Some(report) = report(world, service, view) {
        status.remaining_soft_ms = (!report.token.is_empty()).then_some(report.remaining_soft_ms);
        let reason = if report.reason.is_empty() { String::new() } else { format!(": {}", report.reason) };
        status.holder_state = format!("{}{reason}", report.state);
    }
    Ok(status)
}

/// What the holder's agent says of it, if it is heard.
fn report<'w>(world: &'w World, service: &Service, view: &LeaseView) -> Option<&'w LeaseReport> {
    let held = view.holder.as_ref()?.value.held()?;
    let heard = world.heard.get(&(service.clone(), held.owner.agent.clone()))?;
    heard.report.as_ref().filter(|_| heard.silent.is_none())?.lease.as_ref()
}

/// The open intent in words: by which order or rollout, and to whom.
fn intent(world: &World, service: &Service, view: &LeaseView) -> Result<String, StoredError> {
    let Some(open) = view.open_intent() else { return Ok(String::new()) };
    let intent = &open.value;
    let to = intent.to.as_ref().map(|to| match view.candidates.get(to) {
        Some(seen) => name(&seen.value),
        None => format!("instance {to}, which is gone"),
    });
    let what = to.map_or_else(|| "to release it".to_owned(), |to| format!("to hand it over to {to}"));
    let orders = world.orders(service);
    let order = orders.iter().find(|order| order.has_asked(&intent.op));
    let by = match (&intent.cause.rollout, order) {
        (Some(rollout), _) => format!("rollout {rollout}, step {}", intent.cause.step + 1),
        (None, Some(order)) => format!("order {}, by {}", order.number, order.by),
        (None, None) => format!("intent {}", intent.op),
    };
    Ok(format!("{what} ({by})"))
}

/// Who could take it, best first; the holder does not take it from himself.
fn candidates(view: &LeaseView) -> Vec<String> {
    let holder = view.holder.as_ref().and_then(|seen| seen.value.held()).map(|held| &held.owner.instance);
    let others = view.candidates.values().map(|seen| &seen.value);
    let mut others: Vec<&Candidate> = others.filter(|candidate| Some(&candidate.owner.instance) != holder).collect();
    others.sort_by_key(|candidate| standing::rank(candidate));
    let ready = |candidate: &Candidate| if candidate.ready { "" } else { " (not ready)" };
    others.iter().map(|candidate| format!("{}{}", name(candidate), ready(candidate))).collect()
}

fn name(candidate: &Candidate) -> String {
    format!("{}/{}", candidate.owner.agent, candidate.owner.version)
}

fn roster(view: &LeaseView) -> Vec<String> {
    view.roster.iter().flat_map(|seen| &seen.value.agents).map(ToString::to_string).collect()
}

fn cause(cause: &LeaseCause) -> String {
    match cause {
        LeaseCause::Acquire => "acquired: it was free".into(),
        LeaseCause::TakeOver => "taken over: the holder was lost".into(),
        LeaseCause::HandOver { asked, .. } => match &asked.rollout {
            Some(rollout) => format!("handed over in rollout {rollout}, step {}", asked.step),
            None => format!("handed over by order {}", asked.step),
        },
        LeaseCause::Release => "released without a successor".into(),
        LeaseCause::Renewed => "the same holder with a new token".into(),
        LeaseCause::BreakGlass(order) => {
            format!("moved by {} and {} past the protocol: {}", order.by, order.second, order.because)
        }
        LeaseCause::Other => "changed for a reason that only a newer version knows".into(),
    }
}
