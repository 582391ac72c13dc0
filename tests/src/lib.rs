//! Handover's demo service, load generator, receipt and guard: what the demo, the gates and the long tests are made of.
//!
//! The parts know nothing of Handover's own crates beyond ids. What billing hears from an agent is written down a second
//! time in [`billing::contract`], as a foreign service would have to write it.

pub mod bench;
pub mod billing;
pub mod booted;
pub mod chain;
pub mod chaos;
pub mod clock;
pub mod cluster;
pub mod demo;
pub mod docs;
pub mod fleet;
pub mod fuzz;
pub mod guard;
pub mod load;
pub mod pki;
pub mod postgres;
pub mod receipt;
pub mod sim;
pub mod span;
pub mod switch;
