//! The scheduler lease, for `lease show`.

use handover_proto::lease::{HolderState, LeaseCause, LeaseView};
use handover_proto::wire::LeaseStatus;

/// Who holds, or held last, and who could.
pub(super) fn status(view: &LeaseView) -> LeaseStatus {
    let mut status = LeaseStatus {
        state: "never held".into(),
        guard: "timed only".into(),
        beating: view.beat.is_some(),
        intent: view.open_intent().map(|seen| seen.value.op.to_string()).unwrap_or_default(),
        candidates: view.candidates.values().map(|seen| candidate(&seen.value)).collect(),
        ..LeaseStatus::default()
    };
    let Some(holder) = &view.holder else { return status };
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
    status
}

fn candidate(candidate: &handover_proto::lease::Candidate) -> String {
    let ready = if candidate.ready { "" } else { " (not ready)" };
    format!("{}/{}{ready}", candidate.owner.agent, candidate.owner.version)
}

fn cause(cause: &LeaseCause) -> String {
    match cause {
        LeaseCause::Acquire => "acquired: it was free".into(),
        LeaseCause::TakeOver => "taken over: the holder was lost".into(),
        LeaseCause::HandOver { asked, .. } => match &asked.rollout {
            Some(rollout) => format!("handed over in rollout {rollout}, step {}", asked.step),
            None => "handed over by order".into(),
        },
        LeaseCause::Release => "released without a successor".into(),
        LeaseCause::Renewed => "the same holder with a new token".into(),
        LeaseCause::BreakGlass(order) => {
            format!("moved by {} and {} past the protocol: {}", order.by, order.second, order.because)
        }
        LeaseCause::Other => "changed for a reason that only a newer version knows".into(),
    }
}
