//! The keeper of the scheduler lease (`DESIGN.md` §6, `SAFETY.md` §1).
//!
//! The road: [`keeper`] (the thread) → [`event`] (news) → [`next`] (the decision; [`order`] what the service is told,
//! [`moves`] which transaction, [`upkeep`] the standing work) → [`started`] → `effects` (the doing) → the store, the
//! service ([`record`]), and back.
//!
//! Everything but `keeper`, `effects`, `call`, `local`, `files` and [`clock`] is pure: time and answers come in as values.

mod answer;
pub mod clock;
pub mod deadline;
pub mod event;
pub mod memory;
mod moves;
pub mod next;
mod order;
pub mod picture;
pub mod record;
pub mod renewal;
pub mod settings;
pub mod started;
pub mod state;
mod upkeep;
pub mod waiting;
pub mod wanted;
