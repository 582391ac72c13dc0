//! The `process` driver with real processes.

mod adoption;
mod ends;
mod restart;
mod stage;
mod starts;
mod strays;
