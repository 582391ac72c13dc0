//! What the host could not do, as a reason to wait.

use handover_proto::blocker::BlockerKind;

use crate::core::next::Waiting;
use crate::durable::DurableError;

/// What could not be recorded.
pub(super) fn disk(error: &DurableError) -> Waiting {
    Waiting { kind: BlockerKind::Disk, sentence: crate::report::chain(error) }
}
