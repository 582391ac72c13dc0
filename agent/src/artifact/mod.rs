//! Versions on this host: staged ahead of time, verified before they are started, pruned when nobody needs them.
//!
//! [`stage`] fetches a version into a directory of its own, and renames that into `builds` once it is whole and verified;
//! [`check`] verifies it again before each start; [`prune`] takes away what is neither in use nor among the newest. What is
//! right and what is wrong is decided in [`handover_artifact`].

pub(crate) mod alone;
pub mod check;
pub mod exec;
pub mod fetch;
pub mod http;
pub mod neighbours;
pub mod pattern;
pub mod progress;
pub mod prune;
pub mod settings;
pub mod space;
pub mod stage;

pub use settings::ArtifactSettings;
