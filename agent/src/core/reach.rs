//! Whether the world is as assigned.

use handover_proto::assignment::Assignment;
use handover_proto::blocker::BlockerKind;
use handover_proto::ids::SlotId;
use handover_proto::lifecycle::Lifecycle;

use super::next::{Next, Waiting};
use super::observed::{Instance, Observed};

/// Sets `reached`, and a reason where there is none yet.
pub(super) fn settle(assignment: &Assignment, observed: &Observed, gate_applied: bool, out: &mut Next) {
    let unknown = assignment.slots.keys().find(|id| !observed.slots.contains_key(id));
    let slots = observed.slots.iter().all(|(id, slot)| is_as_wished(assignment, id, slot.instance.as_ref()));
    let front = observed.front.pending(&out.wishes);
    let all = slots && gate_applied && front.is_none() && unknown.is_none();
    out.reached = out.effects.is_empty() && out.waiting.is_none() && all;
    if out.reached || out.waiting.is_some() {
        return;
    }
    let (kind, sentence) = if let Some(id) = unknown {
        (BlockerKind::Refused, format!("the assignment names slot {id}, which this agent's config does not have"))
    } else if !observed.gate.connected {
        (BlockerKind::Gate, "the gate does not answer on its control socket; is `handover-agent gate` running?".into())
    } else if let Some(waiting) = front {
        (waiting.kind, waiting.sentence)
    } else if !gate_applied {
        (BlockerKind::Gate, "the gate to take the new routes".into())
    } else {
        (BlockerKind::Start, "the assigned instances to run".into())
    };
    out.waiting = Some(Waiting { kind, sentence });
}

fn is_as_wished(assignment: &Assignment, id: &SlotId, instance: Option<&Instance>) -> bool {
    let wish = assignment.slots.get(id).filter(|wish| wish.lifecycle != Lifecycle::Terminated);
    match (wish, instance) {
        (None, None) => true,
        (None, Some(_)) | (Some(_), None) => false,
        (Some(wish), Some(instance)) => {
            let state = match wish.lifecycle {
                Lifecycle::Serving => instance.lifecycle == Some(Lifecycle::Serving),
                // One that holds the lease serves until the lease has moved; that is asked for by the intent alone.
                _ if instance.holds_lease => instance.lifecycle == Some(Lifecycle::Serving),
                _ => instance.lifecycle == Some(Lifecycle::Ready),
            };
            instance.version == wish.version && instance.ready && state
        }
    }
}
