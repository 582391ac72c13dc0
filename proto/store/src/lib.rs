//! The store, from both ends: the client that agents and coordinator use, and the embedded single-node server.
//!
//! There is one client path. [`client::Store`] talks etcd's v3 API, to an etcd cluster or to [`server::serve`], and
//! neither side knows which (`DESIGN.md` §8, §10).

pub mod client;
pub mod server;
