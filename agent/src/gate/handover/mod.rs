//! From one gate process to the next without losing a connection (`docs/gate-restart.md`).
//!
//! There is one listening socket, whatever process reads from it: [`source`] says where it comes from. A newer gate asks the
//! one that runs ([`take`], [`give`]): it gets the same socket and the state in force, accepts clients, says so, and only
//! then the older one accepts no more and finishes what it has. Until the last of its requests has ended the newer one adds
//! the older one's counts to its own and passes each state on to it ([`forerunners`], [`merge`]), so that an instance counts
//! as drained only when no process has work for it.

pub mod given;
pub mod take;

pub(super) mod descriptors;
pub(super) mod forerunners;
pub(super) mod give;
pub(super) mod merge;
pub(super) mod source;
pub(super) mod succession;
