//! What the host could not do, as a reason to wait.

use handover_proto::blocker::BlockerKind;
use handover_proto::ids::SlotId;

use crate::core::next::Waiting;
use crate::durable::DurableError;

/// What could not be done to a slot's process.
pub(super) fn failed<E: std::error::Error>(what: &str, slot: &SlotId, result: Result<(), E>) -> Option<Waiting> {
    let error = result.err()?;
    Some(Waiting {
        kind: BlockerKind::Stop,
        sentence: format!("slot {slot}: its process cannot {what}: {}", crate::report::chain(&error)),
    })
}

/// What could not be recorded.
pub(super) fn disk(error: &DurableError) -> Waiting {
    Waiting { kind: BlockerKind::Disk, sentence: crate::report::chain(error) }
}
