//! Billing, the service that is upgraded in the demo and in the long tests.
//!
//! Several instances of two versions on "three hosts" share one SQLite file, which stands for the shared database. Each
//! answers reads and writes, and one of them, under the scheduler lease, charges tick after tick.
//!
//! ```text
//! accept -> http ---- reads, writes ----> desk (two threads) ------------+
//!   |  ----> traffic (streams, WebSockets, gRPC, long bodies, jobs)      |
//!   |  POST /handover/lease                                              v
//!   +------------> scheduler (a thread; asks `right` before each unit) -> ledger (SQLite)
//!                     ^                                              \-> activity (JSON lines, for the checkers)
//! pull (agent's socket, while holding)
//! ```
//!
//! Where the obligations A1 to A8 of `SAFETY.md` §1.10 live: A1, A5, A8 in [`right`]; A2, A4 in [`scheduler`], whose one
//! thread both works and answers; A3 in [`ledger`]; A6 holds because billing never forks; A7 has no counterpart, since
//! billing has no effects outside its ledger.

mod accept;
pub mod activity;
pub mod contract;
pub mod desk;
pub mod faults;
pub mod http;
pub mod ledger;
pub mod mistakes;
mod notify;
mod pieces;
pub mod pull;
pub mod right;
pub mod scheduler;
pub mod service;
pub mod settings;
pub mod traffic;
