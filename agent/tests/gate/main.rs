//! The gate over real sockets, with real services behind it.

#![allow(clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod bench;
mod control;
mod errors;
mod handed;
mod http;
mod killed;
mod limits;
mod planned;
mod process;
mod program;
mod restless;
mod routes;
mod tcp;
mod upgraded;
mod visitor;
mod waiting;
