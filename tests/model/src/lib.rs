//! The scheduler lease's protocol (`SAFETY.md` §1) as a model that stateright explores to exhaustion.
//!
//! | file | what |
//! |---|---|
//! | [`bounds`] | the numbers of the modelled world, and what a configuration allows |
//! | [`configs`] | the configurations that are explored |
//! | [`state`] | what one moment consists of |
//! | [`store`] | etcd |
//! | [`agent`], [`moves`] | the agent's rules |
//! | [`service`] | the service's rules, and the fence |
//! | [`world`] | time, pauses, crashes, the coordinator |
//! | [`invariant`], [`reach`] | what must hold, and what must be reachable |
//! | [`mistake`] | mistakes that can be planted, each with the invariant that it breaks |
//! | [`rules`] | all of it as a `stateright::Model` |
//! | [`tale`] | a run, told in sentences |
//!
//! `README.md` says what is abstracted away, and why that is sound.

pub mod agent;
pub mod bounds;
pub mod configs;
pub mod invariant;
pub mod mistake;
pub mod moves;
pub mod reach;
pub mod rules;
pub mod service;
pub mod state;
pub mod store;
pub mod tale;
pub mod world;
