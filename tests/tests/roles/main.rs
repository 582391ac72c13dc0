//! Roles on real three-member etcd clusters with mutual TLS: etcd itself refuses what the lease's safety forbids, and
//! lets everybody do their work. Each test runs on every etcd version for which there is a program.

#![allow(clippy::expect_used, clippy::panic, reason = "these are tests, also where clippy cannot see it")]

mod contract;
mod refusals;
mod setup;
mod site;
