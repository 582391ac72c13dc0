//! Placeholder of the skeleton.

pub mod lease;
