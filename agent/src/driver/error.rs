//! What a driver could not do.

use std::io;
use std::path::PathBuf;

use handover_proto::ids::{InstanceId, Version};

use super::{BusError, UnitError};

/// A start, an adoption or a signal that failed. The texts say what to do next.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The version is not on this host.
    #[error(
        "cannot start version {version}: its directory {path} does not exist; \
         put the build there (the config's `builds` says where versions live)", path = path.display()
    )]
    NoDirectory {
        /// Which version.
        version: Version,
        /// Where it should be.
        path: PathBuf,
    },
    /// The config's command is empty.
    #[error("cannot start version {version}: the config's `command` is empty; name a program in it")]
    NoCommand {
        /// Which version.
        version: Version,
    },
    /// The program is not there.
    #[error(
        "cannot start version {version}: there is no program at {path}; \
         complete the build or correct `command` in the agent's config", path = path.display()
    )]
    NoProgram {
        /// Which version.
        version: Version,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A program without a path that no directory of PATH holds.
    #[error(
        "cannot start version {version}: no directory of PATH ({searched}) holds a program {name:?}; \
         write the program with its path, such as \"{{builds}}/{{version}}/{name}\""
    )]
    NotInPath {
        /// Which version.
        version: Version,
        /// The program's name.
        name: String,
        /// The PATH that was searched.
        searched: String,
    },
    /// The program may not be run.
    #[error(
        "cannot start version {version}: {path} is not an executable file; \
         run chmod +x on it or correct `command` in the agent's config", path = path.display()
    )]
    NotExecutable {
        /// Which version.
        version: Version,
        /// The program.
        path: PathBuf,
    },
    /// The file for the process's output cannot be written.
    #[error("cannot start version {version}: the output file {path} cannot be opened: {source}", path = path.display())]
    Output {
        /// Which version.
        version: Version,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The kernel would not run it.
    #[error("cannot start {path}: {source}", path = path.display())]
    Spawn {
        /// The program.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A system call failed.
    #[error("cannot {operation}: {source}")]
    System {
        /// What was tried, on what.
        operation: String,
        /// Why not.
        source: io::Error,
    },
    /// systemd cannot be asked, or refuses.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A unit cannot be a slot.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// Something runs in it that this agent did not start.
    #[error("unit {unit} runs already (pid {pid}) and was not started by this agent; run systemctl stop {unit}")]
    UnitBusy {
        /// Which.
        unit: String,
        /// Its main process; 0: none.
        pid: i32,
    },
    /// It runs, and nothing says what.
    #[error(
        "unit {unit} runs (pid {pid}), and neither its variables nor the link {link} tell which version; \
         run systemctl stop {unit}, or point the link at the version's directory", link = link.display()
    )]
    UnknownUnit {
        /// Which.
        unit: String,
        /// Its main process; 0: none.
        pid: i32,
        /// The slot's link.
        link: PathBuf,
    },
    /// Something runs, and nothing says what.
    #[error(
        "something runs in slot {slot} ({name}), and the agent's state directory does not tell what; stop it by hand, and \
         start the agent again"
    )]
    UnknownOccupant {
        /// Where.
        slot: handover_proto::ids::SlotId,
        /// What its status command calls it.
        name: String,
    },
    /// Nothing is known under that id.
    #[error("instance {instance} is not watched by this agent: it has ended, or was never started or adopted here")]
    NotWatched {
        /// Which.
        instance: InstanceId,
    },
}

impl DriverError {
    /// Wraps a failed system call; for `map_err`.
    pub(super) fn system<E: Into<io::Error>>(operation: impl Into<String>) -> impl FnOnce(E) -> Self {
        let operation = operation.into();
        move |source| Self::System { operation, source: source.into() }
    }
}
