//! Orders outside of a rollout, as plain functions.

mod drain;
mod moves;
mod refusals;
mod stage;
mod staging;
