//! Three hosts behind a real balancer, changed stop-first under load, one after the other: no request is lost. The config
//! of each balancer is the sample in `docs/balancers`, with this machine's addresses.
#![allow(clippy::expect_used, clippy::panic)]

mod front;
mod haproxy;
mod readiness;
mod signal;
mod stop_first;
