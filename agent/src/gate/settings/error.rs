//! Why settings are refused.

use std::path::PathBuf;

/// Settings that cannot work; the message names the setting and what would do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A header or cookie that cannot bind a client to a version.
    #[error("gate setting `{setting}` is {given:?}, which {rule}")]
    Pin {
        /// Which.
        setting: &'static str,
        /// What was given.
        given: String,
        /// What it must be.
        rule: &'static str,
    },
    /// A number that must be above another is not.
    #[error("gate setting `{setting}` is {given}, but must be at least {least}: {why}")]
    TooSmall {
        /// Which.
        setting: &'static str,
        /// What was given.
        given: String,
        /// What would do.
        least: String,
        /// Why.
        why: &'static str,
    },
    /// One address may have more than there is in all.
    #[error(
        "gate setting `{setting}` is {given}, but `{of}` is {all}: one address cannot have more than all together; lower the \
         first, or raise the second"
    )]
    MoreThanAll {
        /// What one address may have.
        setting: &'static str,
        /// What was given.
        given: u64,
        /// What all may have.
        of: &'static str,
        /// How much that is.
        all: u64,
    },
    /// A path that no request can have.
    #[error("gate setting `ready_path` is {0:?}, but must begin with \"/\" and have no \"?\", or be empty for none")]
    ReadyPath(String),
    /// A number that must be below another is not.
    #[error("gate setting `{setting}` is {given}, but must be at most {most}: {why}")]
    TooLarge {
        /// Which.
        setting: &'static str,
        /// What was given.
        given: u64,
        /// What would do.
        most: u64,
        /// Why.
        why: &'static str,
    },
    /// The state file is written aside under a name that ends so, and then put in place.
    #[error("gate setting `state_file` is {}, but must not end in \".new\": a new state is written beside it under that name", .0.display())]
    StateFile(PathBuf),
    /// The gate passes bytes as they are.
    #[error(
        "gate setting `tls` does not go with mode = \"tcp\", in which the service itself speaks TLS; leave [gate.tls] away"
    )]
    TlsInTcp,
}
