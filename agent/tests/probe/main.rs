//! Probes against real servers and commands.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "tests may; clippy.toml's exception does not reach what #[test] functions call"
)]

mod exec;
mod http;
mod rounds;
mod stage;
