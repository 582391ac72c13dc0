//! The gate over real sockets, with real services behind it.

mod bench;
mod control;
mod errors;
mod http;
mod limits;
mod process;
mod routes;
mod waiting;
