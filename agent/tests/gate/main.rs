//! The gate over real sockets, with real services behind it.

#![allow(clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod bench;
mod control;
mod cut;
mod deadlines;
mod errors;
mod frames;
mod grpc;
mod handed;
mod http;
mod http2;
mod http2_limits;
mod killed;
mod limits;
mod lingering;
mod no_start;
mod one_sided;
mod planned;
mod process;
mod program;
mod ready;
mod restless;
mod routes;
mod shared;
mod shares;
mod smuggling;
mod tcp;
mod tls;
mod tools;
mod upgraded;
mod vanished;
mod visitor;
mod waiting;
