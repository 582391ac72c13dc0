//! Handover's agent: one process per service per host, and its gate, the data plane as a process of its own.

pub mod core;
