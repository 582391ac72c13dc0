//! Chaos on real processes (`SAFETY.md` §3): faults against a site of etcd members, agents, demo services and a database
//! in network namespaces, and ten checkers over what was recorded meanwhile.
//!
//! ```text
//! seed -> plan (pure) -> nemesis against site -> record -> evidence -> checkers (pure) -> one line, or logs and a command
//! ```
//! The checkers know nothing of site or nemesis: each is a function over rows, and each has a test in which a planted
//! violation is caught.

pub mod bounds;
pub mod checkers;
pub mod command;
pub mod evidence;
pub mod inventory;
pub mod judge;
pub mod mistakes;
pub mod nemesis;
pub mod plan;
pub mod record;
pub mod sandbox;
pub mod schedule;
pub mod site;
pub mod stand_in;
pub mod sums;
pub mod wire;
