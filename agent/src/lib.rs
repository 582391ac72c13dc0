//! Handover's agent: one process per service per host, and its gate, the data plane as a process of its own.

pub(crate) mod agent_loop;
pub mod clock;
pub mod config;
pub mod conformance;
pub mod core;
pub mod driver;
pub mod durable;
pub mod duration;
pub(crate) mod ending;
pub mod gate;
pub mod host;
pub mod kill_target;
pub mod lease;
pub mod metrics;
pub mod ops;
pub mod place;
pub mod probe;
pub mod register;
pub mod report;
pub mod routing;
pub mod run;
pub mod service;
pub mod signals;
pub mod state;
pub(crate) mod watchdog;
pub mod wrap;
