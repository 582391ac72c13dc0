//! `handover-agent lease exec -- CMD`: a command that runs only while its instance holds the scheduler lease.
//!
//! For programs that know nothing of Handover. The road: [`ask`] (the agent's records, on `lease.sock`) → [`next`] (the
//! decision, pure) → [`run`] (the doing) → [`child`] (the command's start) and [`tree`] (its processes) → acknowledgements.
//!
//! The wrapper is a process of its own between agent and command. Its own clock and the last deadline that it heard
//! decide: an agent that is frozen, restarted or gone changes nothing. It is the subreaper of what it starts, so a
//! descendant cannot leave its sight, and it is single-threaded, so that the command dies with it (PR_SET_PDEATHSIG).

pub mod ask;
pub mod child;
pub mod next;
pub mod run;
pub mod tree;
