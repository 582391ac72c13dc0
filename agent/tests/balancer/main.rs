//! The agent's balancers against a real HAProxy: what is told is read back, what is an operator's stays, and what a dead
//! agent left is undone.
#![allow(clippy::expect_used, clippy::panic)]

mod agent_check;
mod proxy;
mod relay;
mod runtime;
