//! The keeper of the scheduler lease (`DESIGN.md` §6, `SAFETY.md` §1).
//!
//! The road: [`keeper`] (the thread) → [`event`] (news; `answer`, `replies`) → [`next`] (the decision; [`order`] what the service is told,
//! [`moves`] which transaction, [`upkeep`] the standing work) → [`started`] → `effects` (the doing) → the store, the
//! service ([`record`]), and back.
//!
//! Everything but `keeper`, `effects`, `call`, `acks`, `socket`, `files`, `tick`, `copied`, `trial` and [`clock`] is pure: time
//! and answers come in as values.

mod acks;
mod answer;
mod belief;
pub(crate) mod call;
pub mod certificate;
pub mod clock;
mod copied;
pub mod deadline;
mod doubt;
mod effects;
pub mod event;
pub(crate) mod files;
pub mod fitness;
mod inquiry;
pub mod keeper;
mod ladder;
mod local;
pub mod memory;
mod moves;
pub mod next;
mod order;
pub mod picture;
pub(crate) mod preset;
pub mod record;
pub mod renewal;
mod replies;
pub mod settings;
pub mod socket;
pub mod stall;
pub mod started;
pub mod state;
pub mod status;
pub mod step;
pub mod suspect;
mod taking;
mod tick;
mod trial;
mod upkeep;
pub mod versions;
pub mod waiting;
pub mod wanted;

pub use effects::Kill;
pub(crate) use inquiry::survey;
pub use keeper::{Certifier, KeeperHandle, LeaseError, Place, spawn};
pub use ladder::Doom;
pub use socket::SocketError;
pub use trial::Trial;
