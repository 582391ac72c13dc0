//! Hosts with a real systemd: the harness itself, and the systemd driver on them. Where hosts cannot be booted these tests
//! say SKIPPED; under `.ci/run` they fail then. All of them take about two minutes on two busy cores.
#![allow(clippy::expect_used, clippy::panic)]

mod failures;
mod lost_power;
mod packages;
mod power;
mod programs;
mod readme;
mod stop_first;
mod units;
mod unprivileged;
mod upgrade;

use handover_tests::booted::site;
