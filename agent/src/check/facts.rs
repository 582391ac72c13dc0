//! What a look at the host found, without a judgement.

use std::net::SocketAddr;
use std::path::PathBuf;

use handover_proto::ids::SlotId;
use handover_tls::validity::Alarm;

use super::units::UnitState;
use crate::lease::versions::Survey;
use crate::probe::Reading;

/// Everything that was looked at.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The config's agent answers on its operations port.
    pub agent_runs: bool,
    /// A gate answers on the config's control socket.
    pub gate_runs: bool,
    /// Directories that the agent needs.
    pub directories: Vec<Directory>,
    /// Files with private keys, and their modes.
    pub keys: Vec<(PathBuf, u32)>,
    /// Our own certificates, for the store and for the coordinators.
    pub certificates: Vec<Certificate>,
    /// Addresses where something of ours is to listen.
    pub listeners: Vec<Listener>,
    /// Units of slots that cannot be slots; with what the driver says.
    pub slot_units: Vec<Result<SlotId, String>>,
    /// The agent's and the gate's units, in this order; none: there is no systemd.
    pub units: Option<Vec<UnitState>>,
    /// The store.
    pub store: StoreFacts,
    /// What runs in slots.
    pub slots: Vec<SlotFacts>,
}

/// A certificate of ours.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The field that names it.
    pub field: String,
    /// Until when it is valid, as text, and whether somebody has to hear of that; or why it cannot be used.
    pub state: Result<(String, Option<Alarm>), String>,
}

/// A directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// The field that names it.
    pub field: &'static str,
    /// Where.
    pub path: PathBuf,
    /// Whether it is there, and whether it can be used.
    pub state: DirectoryState,
    /// It is gone after a boot.
    pub volatile: bool,
}

/// How a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectoryState {
    /// It is there, and can be written to.
    Writable,
    /// It is not there, and can be made.
    CanBeMade,
    /// It is not there, and cannot be made by this user.
    Missing,
    /// It is there, and this user may not write to it.
    Locked,
    /// Something else is there.
    NoDirectory,
}

/// Whose a port is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The agent's.
    Agent,
    /// The gate's.
    Gate,
    /// An instance's.
    Slot(SlotId),
}

/// An address where something is to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The field that names it.
    pub field: String,
    /// The address.
    pub address: SocketAddr,
    /// Who is to listen.
    pub owner: Owner,
    /// Whether this user could listen there now.
    pub bound: Bound,
}

/// Whether an address can be listened on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// Nobody listens.
    Free,
    /// Somebody does.
    InUse,
    /// This host has no such address.
    NotHere,
    /// This user may not.
    Denied,
    /// Something else is wrong.
    Failed(String),
}

/// What the store says.
#[derive(Debug, Clone, Default)]
pub struct StoreFacts {
    /// Each endpoint: what is wrong with it, if it does not answer, or what it complains of.
    pub members: Vec<(String, Result<Vec<String>, String>)>,
    /// Versions, members, guard.
    pub survey: Survey,
    /// Whether the store asks who calls; none: it did not say.
    pub asks: Option<bool>,
    /// As what this agent's name is registered, or that it cannot be read; none: the store was not reached.
    pub name: Option<Result<Name, String>>,
    /// Whether a coordinator leads; none: not known.
    pub led: Option<bool>,
}

/// To whom the agent's name belongs in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// Nobody, or an agent that is gone.
    Free,
    /// This host's agent.
    Ours,
    /// A live agent with another state directory, on that host.
    Taken(String),
}

/// What was found in one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotFacts {
    /// Which.
    pub slot: SlotId,
    /// Each probe's name with what it read; none: nothing listens there.
    pub probes: Option<Vec<(String, Reading)>>,
}
