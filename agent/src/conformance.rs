//! The conformance kit: `handover-agent lease conformance URL` plays the agent to somebody's service and says, for each of
//! the obligations A1 to A8 (`SAFETY.md` §1.10), whether it keeps it, what was seen, and what to change.
//!
//! The road: [`talk`] (records and answers) → [`run`] (the play, scene by scene) → [`seen`] (what came of it) →
//! [`judge`] (pure: what that means) → [`findings`]. [`processes`] and [`sql`] look where an answer cannot.

pub mod findings;
pub mod judge;
mod processes;
pub mod run;
pub mod seen;
pub mod sql;
pub mod talk;
