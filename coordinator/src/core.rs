//! The coordinator's pure heart: `spec → plan → progress → next`, with nothing but arguments and results.
//!
//! ```text
//! operator's TOML ── spec ──▶ plan ──┐
//!                journal ── progress ┼──▶ next ──▶ Decision: do (event, assignments, ask) | wait (why) | ended
//!       store and reports ── fleet ──┤
//!    the fleet, lap by lap ─ samples ┘
//! ```
//!
//! No runtime, no gRPC, no store, no clock, no files in here; `tests/core_pure.rs` guards that.

pub mod assign;
pub mod duration;
pub mod event;
pub mod fleet;
pub mod floor;
pub mod next;
pub mod order;
pub mod plan;
pub mod progress;
pub mod samples;
pub mod spec;
pub mod staging;
pub mod standing;
pub mod store_health;
pub mod turns;
