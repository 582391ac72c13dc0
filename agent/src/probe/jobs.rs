//! The drain ledger's line *jobs*: how much work the service has that no request shows, asked of the service itself.
//!
//! ```toml
//! [[drain.jobs]]
//! name = "invoice-runs"
//! http = { path = "/jobs", count = "in_flight", oldest_ms = "oldest_ms" }
//! interval = "1s"
//! timeout = "500ms"
//! deadline = "30m"       # both or none: then the assignment's drain policy holds
//! at_deadline = "wait"
//! ```
//!
//! A reading that fails is not known, and neither is a zero that was asked for before the last request had ended (which may
//! have started a job) or before the assignment was taken. What is not known is never zero.

mod counter;
mod settings;

pub use counter::{JobCounter, counted};
pub use settings::{DrainSettings, JobsError, JobsSettings};
