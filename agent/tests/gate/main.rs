//! The gate over real sockets, with real services behind it.

#![allow(clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod bench;
mod control;
mod errors;
mod frames;
mod grpc;
mod http;
mod http2;
mod http2_limits;
mod limits;
mod process;
mod routes;
mod smuggling;
mod tls;
mod tools;
mod upgraded;
mod visitor;
mod waiting;
