//! The host, with a driver whose commands do what a test wants of them.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "tests may; clippy.toml's exception does not reach what #[test] functions call"
)]

mod ends;
mod orders;
mod site;
