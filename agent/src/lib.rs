//! Handover's per-host agent, as a library.

pub mod driver;
pub mod durable;
pub mod duration;
pub mod lease;
pub mod probe;
