//! The `process` driver with real processes.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "tests may; clippy.toml's exception does not reach what #[test] functions call"
)]

mod adoption;
mod ends;
mod lingers;
mod memory;
mod register;
mod restart;
mod stage;
mod starts;
mod strays;
mod trial;
