//! Everything on which Handover's agent and coordinator must agree.
//!
//! A line enters this crate only if changing it on one side alone would break the other (`DESIGN.md` §2).

pub mod ids;
pub mod lifecycle;
pub mod txn;
