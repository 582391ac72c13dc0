//! Handover's coordinator and command line, as a library: the binary is a thin `main`, and tests run the parts.
//!
//! The road: [`cli`] asks a coordinator ([`serve`]), which keeps a [`world`], decides with the pure [`core`], and shows what
//! is with a [`view`].

pub mod cause;
pub mod cli;
mod clock;
pub mod core;
pub mod rollout;
pub mod serve;
pub mod setup;
pub mod telemetry;
pub mod view;
pub mod world;
