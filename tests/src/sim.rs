//! The lease's real decision code in a world of plain data: three agents with their services, a store with etcd's bad
//! habits, a database with the fence, and chance with a seed. Time is a number; the same seed gives the same run.
//!
//! | part | where |
//! |---|---|
//! | the queue of what is due, and everything that there is | [`world`] |
//! | an agent: the real [`handover_agent::lease`] core, restarts, its main loop | [`host`], [`slot`] |
//! | the service and the database | [`service`], [`database`] |
//! | the store, and the ways to it | [`etcd`], [`wire`], [`watch`] |
//! | two coordinators: the real [`handover::core::next`] over a journal | [`rollout`], [`report`] |
//! | what goes wrong | [`weather`] (the plan), [`nemesis`] (the doing), [`asker`], [`mistake`] (in the code itself) |
//! | what happened, and whether it may | [`fact`], [`check`] |
//!
//! A wall clock, threads and real I/O do not exist in here. `sim --seed N --trace` shows a run.

mod asker;
mod certificates;
mod chance;
pub mod check;
mod clock;
pub mod command;
mod database;
mod etcd;
pub mod fact;
mod host;
pub mod mistake;
mod nemesis;
mod report;
mod rollout;
mod service;
mod slot;
mod watch;
mod weather;
mod wire;
mod world;

use check::Violation;
use mistake::Mistake;
pub use world::Counts;
use world::World;

/// What one run came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// Of everything that happened.
    pub hash: u64,
    /// The first rule that was broken.
    pub violation: Option<Violation>,
    /// How often what happened.
    pub counts: Counts,
    /// How long it took in the run's own time, in microseconds.
    pub simulated_us: u64,
}

/// Runs one seed. With `trace` every fact is printed.
///
/// # Errors
/// If the mistake cannot be planted in this build.
pub fn run(seed: u64, mistake: Mistake, trace: bool) -> Result<Outcome, String> {
    let _planted = mistake.plant()?;
    let mut world = World::new(seed, mistake, trace).map_err(|error| error.to_string())?;
    world.run();
    let hash = world.hash();
    Ok(Outcome { seed, hash, violation: world.violation, counts: world.counts, simulated_us: world.now })
}
