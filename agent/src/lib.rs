//! Handover's agent: one process per service and host, and the gate, the data plane as a process of its own.

pub mod duration;
pub mod gate;
