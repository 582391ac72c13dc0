//! Everything on which Handover's agent and coordinator must agree.
//!
//! A line enters this crate only if changing it on one side alone would break the other (`DESIGN.md` §2).

pub mod assignment;
pub mod blocker;
pub mod ids;
pub mod keys;
pub mod lease;
pub mod lifecycle;
pub mod numbers;
pub mod peer;
pub mod planted;
pub mod registration;
pub mod roles;
pub mod staging;
pub mod stored;
pub mod txn;
pub mod wire;
