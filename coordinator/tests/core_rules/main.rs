//! The coordinator's core, tested as plain functions: no runtime, no store, no clock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod back;
mod event;
mod floor;
mod forward;
mod lease;
mod order;
mod plan;
mod progress;
mod pure;
mod report;
mod samples;
mod spec;
mod staging;
mod standing;
mod stop_first;
mod turns;
mod walk;
mod world;
