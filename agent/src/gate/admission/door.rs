//! What is said at the door: how a request comes, and what it hears. Pure.

use std::sync::Arc;

use crate::gate::class::Class;
use crate::gate::control::{Reason, Upstream};

/// The version that a request is bound to, as a number that fits in a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin(u64);

impl Pin {
    /// Of a version's name: its FNV-1a hash. Two of a service's few versions do not meet, and no harm is done if they do.
    pub fn of(version: &str) -> Self {
        Self(
            version
                .bytes()
                .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)),
        )
    }
}

/// What a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// What it does.
    pub class: Class,
    /// The version that it is bound to.
    pub pin: Option<Pin>,
}

impl From<Class> for Ask {
    fn from(class: Class) -> Self {
        Self { class, pin: None }
    }
}

/// How a request comes to the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival<'a> {
    /// For the first time.
    New,
    /// After it was told to hold.
    Held,
    /// Already let in once, but the upstreams tried (by [`Route::key`]) could not be connected to.
    Again(&'a [u64]),
}

/// The answer at the door.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Go there; it is in flight now.
    Go(Route),
    /// Wait for a new state; it counts as held now.
    Hold,
    /// Turn it away.
    Refuse(Reason),
}

/// One request's way through the gate, to be handed back to [`Core::finish`](super::Core::finish) exactly once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The upstream's number within this gate process; another address has another number.
    pub key: u64,
    /// The upstream.
    pub upstream: Arc<Upstream>,
    pub(super) flight: u64,
    pub(super) class: Class,
}

impl Route {
    /// What the request does.
    pub fn class(&self) -> Class {
        self.class
    }
}

/// What came of a change, for the reporter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum News {
    /// A counter moved: the next regular report will do.
    Counters,
    /// The agent may be waiting for this: report at once.
    Urgent,
}
