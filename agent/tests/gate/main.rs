//! The gate over real sockets, with real services behind it.

#![allow(clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod bench;
mod control;
mod errors;
mod http;
mod limits;
mod process;
mod routes;
mod upgraded;
mod visitor;
mod waiting;
