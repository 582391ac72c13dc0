//! Billing as a process of its own, driven by a fake agent (a real Unix-socket HTTP server) and by real load.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

mod agent;
mod conformance;
mod crowd;
mod cutter;
mod jobs;
mod lease;
mod process;
mod pull;
mod receipt;
mod requests;
