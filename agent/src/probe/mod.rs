//! Readiness as a list of named conditions (`DESIGN.md` §4, `SAFETY.md` §2.1 R9).
//!
//! `settings → runner → check (http, tcp, exec) → reading → condition → readiness`. What counts as met and when an
//! instance may come back is decided in [`condition`] and [`readiness`], which know no clock and no network.

mod check;
pub mod condition;
mod exec;
mod field;
mod http;
pub mod jobs;
pub mod readiness;
mod runner;
pub mod settings;
mod tcp;

pub use check::Target;
pub(crate) use check::look_once;
pub use condition::Reading;
pub use http::judged;
pub use readiness::{ConditionReport, Readiness};
pub use runner::ProbeRunner;
pub use settings::{Affects, Check, ProbeSettings};
