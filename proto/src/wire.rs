//! The generated messages and services, and the few places where they meet the typed world.

use crate::blocker::{Blocker as TypedBlocker, BlockerKind};
use crate::lifecycle::Lifecycle as TypedLifecycle;

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/handover.v1.rs"));
}
pub use generated::*;

/// The encoded descriptor set, for gRPC reflection.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

/// Name of the metadata entry of a refused call that holds the refusal's kind.
pub const KIND_HEADER: &str = "handover-kind";

/// Kinds of refusal: the closed list of errors over the wire.
pub mod kind {
    /// Older than what was seen.
    pub const STALE: &str = "stale";
    /// Same number, other content.
    pub const CONFLICT: &str = "conflict";
    /// Contradicts itself, or is not understood.
    pub const INVALID: &str = "invalid";
    /// This coordinator does not lead.
    pub const NOT_LEADER: &str = "not-leader";
    /// Against a rule: floor, one rollout at a time, unknown service.
    pub const POLICY: &str = "policy";
    /// The agent's disk refuses; try again.
    pub const DISK: &str = "disk";
    /// The store does not answer.
    pub const STORE: &str = "store";
}

/// How bad a finding of the doctor's is.
pub mod verdict {
    /// As it should be.
    pub const OK: &str = "ok";
    /// It works, but something will be missed some day.
    pub const WARN: &str = "warn";
    /// A human is needed.
    pub const FAIL: &str = "fail";
}

/// A refusal with its kind.
pub fn refusal(code: tonic::Code, kind: &'static str, sentence: impl Into<String>) -> tonic::Status {
    let mut status = tonic::Status::new(code, sentence.into());
    status.metadata_mut().insert(KIND_HEADER, tonic::metadata::MetadataValue::from_static(kind));
    status
}

/// The kind of a refused call, if it has one.
pub fn refusal_kind(status: &tonic::Status) -> Option<&str> {
    status.metadata().get(KIND_HEADER)?.to_str().ok()
}

impl From<TypedLifecycle> for generated::Lifecycle {
    fn from(state: TypedLifecycle) -> Self {
        match state {
            TypedLifecycle::Ready => Self::Ready,
            TypedLifecycle::Migrating => Self::Migrating,
            TypedLifecycle::Serving => Self::Serving,
            TypedLifecycle::Draining => Self::Draining,
            TypedLifecycle::Terminated => Self::Terminated,
        }
    }
}

impl generated::Lifecycle {
    /// The typed state; `None` until there is one.
    pub fn typed(self) -> Option<TypedLifecycle> {
        match self {
            Self::Unspecified => None,
            Self::Ready => Some(TypedLifecycle::Ready),
            Self::Migrating => Some(TypedLifecycle::Migrating),
            Self::Serving => Some(TypedLifecycle::Serving),
            Self::Draining => Some(TypedLifecycle::Draining),
            Self::Terminated => Some(TypedLifecycle::Terminated),
        }
    }
}

impl From<TypedBlocker> for generated::Blocker {
    fn from(blocker: TypedBlocker) -> Self {
        Self { kind: blocker.kind.as_str().to_owned(), since_ms: blocker.since_ms, waiting_for: blocker.waiting_for }
    }
}

impl generated::Blocker {
    /// The typed blocker; a kind that only a newer peer knows becomes [`BlockerKind::Unknown`].
    pub fn typed(&self) -> TypedBlocker {
        TypedBlocker {
            kind: self.kind.parse().unwrap_or(BlockerKind::Unknown),
            since_ms: self.since_ms,
            waiting_for: self.waiting_for.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lifecycle_survives_the_wire() {
        for state in TypedLifecycle::ALL {
            assert_eq!(generated::Lifecycle::from(state).typed(), Some(state));
        }
        assert_eq!(generated::Lifecycle::Unspecified.typed(), None);
    }

    #[test]
    fn a_refusal_carries_its_kind() {
        let status = refusal(tonic::Code::FailedPrecondition, kind::STALE, "older");
        assert_eq!(refusal_kind(&status), Some("stale"));
        assert_eq!(refusal_kind(&tonic::Status::internal("x")), None);
    }
}
