//! Handover's coordinator and command line.

pub mod core;
