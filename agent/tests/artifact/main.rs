//! Versions are staged, verified, started and pruned, with real files, signatures and servers.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "tests may; clippy.toml's exception does not reach what #[test] functions call"
)]

mod fetch;
mod site;
mod stage;
mod start;
