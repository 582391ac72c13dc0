//! Chaos on real processes (`SAFETY.md` §3): faults against a site of etcd members, agents, demo services and coordinators
//! in network namespaces, and ten checkers over what was recorded meanwhile.
//!
//! ```text
//! seed -> plan (pure) -> nemesis against site -> history -> checkers (pure) -> one line, or the logs and a command
//! ```
//! The checkers know nothing of site or nemesis: each is a function over rows, and each has a test in which a planted
//! violation is caught.

pub mod checkers;
