//! The way to a real three-member etcd cluster over mutual TLS, and what is said when it is not open.

#![allow(clippy::expect_used, clippy::panic, reason = "these are tests, also where clippy cannot see it")]

mod files;
mod reach;
