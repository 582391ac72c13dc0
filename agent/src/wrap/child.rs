//! The command's start. In between stands a second life of our own program, for the one thing that only the new process
//! can do for itself: to ask the kernel to be killed when the wrapper dies (PR_SET_PDEATHSIG), which outlives its `exec`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;
use nix::unistd::getppid;

/// The token, for the command and all that it starts.
pub const TOKEN_VARIABLE: &str = "HANDOVER_LEASE_TOKEN";
/// The number of a descriptor with the same token and a line feed, read-only for ever: read it as `/dev/fd/N`. It is for
/// what the command starts with other variables.
pub const DESCRIPTOR_VARIABLE: &str = "HANDOVER_LEASE_FD";
/// As shells tell it: no such program.
pub const NOT_FOUND: u8 = 127;
/// As shells tell it: a program that cannot be run.
pub const NOT_EXECUTABLE: u8 = 126;

/// The command cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// There is none.
    #[error("no program {name:?} was found; give its path, or put it into PATH")]
    NotFound {
        /// As it was given.
        name: OsString,
    },
    /// It may not be run.
    #[error("{path} cannot be executed; is it a program, and may this user run it?")]
    NotExecutable {
        /// Its path.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("cannot start {name:?}")]
    Refused {
        /// As it was given.
        name: OsString,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The wrapper is gone.
    #[error("the wrapper that asked for this has ended")]
    Orphan,
}

impl ChildError {
    /// The exit code that says so.
    pub fn code(&self) -> u8 {
        match self {
            Self::NotFound { .. } => NOT_FOUND,
            Self::NotExecutable { .. } | Self::Refused { .. } | Self::Orphan => NOT_EXECUTABLE,
        }
    }
}

/// Looks whether the program is there, before anything is held for it.
///
/// # Errors
/// [`ChildError`].
pub fn check(name: &OsStr) -> Result<(), ChildError> {
    let is_program = |path: &Path| {
        std::fs::metadata(path).is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    };
    let path = Path::new(name);
    if name.as_encoded_bytes().contains(&b'/') {
        return match path.exists() {
            true if is_program(path) => Ok(()),
            true => Err(ChildError::NotExecutable { path: path.to_owned() }),
            false => Err(ChildError::NotFound { name: name.to_owned() }),
        };
    }
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&dirs).any(|dir| is_program(&dir.join(name)));
    if found { Ok(()) } else { Err(ChildError::NotFound { name: name.to_owned() }) }
}

/// Starts the command under `token`, in a process group of its own: the process id.
///
/// # Errors
/// [`ChildError::Refused`].
pub fn start(command: &[OsString], token: &str) -> Result<i32, ChildError> {
    let refused = |source| ChildError::Refused { name: command.first().cloned().unwrap_or_default(), source };
    // The very program that runs now, whatever stands at its path meanwhile.
    let mut start = Command::new("/proc/self/exe");
    start.args(["lease", "exec-child", "--parent", &std::process::id().to_string(), "--"]);
    start.args(command).env(TOKEN_VARIABLE, token).process_group(0);
    let child = start.spawn().map_err(refused)?;
    // Dropped, not waited for: the wrapper reaps all its children in one place.
    i32::try_from(child.id()).map_err(|error| refused(io::Error::other(error)))
}

/// A descriptor that is inherited, with this text, which nobody can change.
fn sealed(token: &str) -> io::Result<File> {
    let mut file = File::from(memfd_create("handover-lease-token", MFdFlags::MFD_ALLOW_SEALING)?);
    writeln!(file, "{token}")?;
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

/// The second life: becomes the command, and dies with the wrapper. Returns only if it cannot.
pub fn become_command(parent: u32, command: &[OsString]) -> ChildError {
    let Some((name, rest)) = command.split_first() else { return ChildError::NotFound { name: OsString::new() } };
    let refused = |source| ChildError::Refused { name: name.clone(), source };
    if let Err(error) = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL) {
        return refused(error.into());
    }
    // It may have died before we asked.
    if u32::try_from(getppid().as_raw()).ok() != Some(parent) {
        return ChildError::Orphan;
    }
    let token = match sealed(&std::env::var(TOKEN_VARIABLE).unwrap_or_default()) {
        Ok(token) => token,
        Err(error) => return refused(error),
    };
    // Open until the `exec`, and then the command's.
    let number = token.as_raw_fd().to_string();
    refused(Command::new(name).args(rest).env(DESCRIPTOR_VARIABLE, number).exec())
}
