//! The keeper of the scheduler lease (`DESIGN.md` §6, `SAFETY.md` §1).
//!
//! The road: [`keeper`] (the thread) → [`event`] (news; `answer`, `replies`) → [`next`] (the decision; [`order`] what the service is told,
//! [`moves`] which transaction, [`upkeep`] the standing work) → [`started`] → `effects` (the doing) → the store, the
//! service ([`record`]), and back.
//!
//! Everything but `keeper`, `effects`, `call`, `acks`, `socket`, `files` and [`clock`] is pure: time and answers come in as values.

mod acks;
mod answer;
pub(crate) mod call;
pub mod clock;
pub mod deadline;
mod effects;
pub mod event;
pub(crate) mod files;
pub mod keeper;
mod local;
pub mod memory;
mod moves;
pub mod next;
mod order;
pub mod picture;
pub mod record;
pub mod renewal;
mod replies;
pub mod settings;
pub mod socket;
pub mod started;
pub mod state;
pub mod status;
pub mod step;
mod upkeep;
pub mod waiting;
pub mod wanted;

pub use effects::Kill;
pub use keeper::{KeeperHandle, LeaseError, Place, spawn};
pub use socket::SocketError;
