//! The agent's pure heart (`DESIGN.md` §3): no runtime, no network, no store, no clock. A test guards that.

pub mod accept;
pub mod front;
pub mod next;
pub mod observed;
mod reach;
pub mod slot;
pub mod staging;
#[cfg(test)]
mod tests;
