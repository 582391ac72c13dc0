//! Starts the command of an instance.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::child::{self, Child};
use super::{DriverError, Owner, StartSpec};

/// A started process and where its output begins in the file, in bytes.
pub(super) struct Spawned {
    pub(super) child: Child,
    pub(super) output_from_bytes: u64,
}

/// Runs the command in its own process group, its output appended to the file.
pub(super) fn spawn(spec: &StartSpec, owner: &Owner) -> Result<Spawned, DriverError> {
    let program = program(spec)?;
    let output = open_output(&spec.output).map_err(|source| DriverError::Output {
        version: spec.version.clone(),
        path: spec.output.clone(),
        source,
    })?;
    let refused = |source| DriverError::Spawn { path: program.clone(), source };
    let mut command = Command::new(&program);
    child::clean_env(&mut command);
    command
        .args(spec.command.iter().skip(1))
        .envs(spec.env.iter().map(|(name, value)| (name, value)))
        .envs(owner.marks(spec))
        .current_dir(&spec.directory)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(output.0.try_clone().map_err(refused)?)
        .stderr(output.0);
    let child = child::spawn(&mut command).map_err(refused)?;
    Ok(Spawned { child, output_from_bytes: output.1 })
}

/// Opens a file for output to be appended to; its length now, in bytes.
pub(super) fn open_output(path: &Path) -> io::Result<(File, u64)> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

/// The program's path, checked: the kernel's own errors name neither the file nor the reason.
fn program(spec: &StartSpec) -> Result<PathBuf, DriverError> {
    let version = || spec.version.clone();
    if !spec.directory.is_dir() {
        return Err(DriverError::NoDirectory { version: version(), path: spec.directory.clone() });
    }
    let name = spec.command.first().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| DriverError::NoCommand { version: version() })?;
    if !name.contains('/') {
        return in_path(name, spec);
    }
    let path = spec.directory.join(name);
    match fs::metadata(&path) {
        Ok(about) if about.is_file() && about.permissions().mode() & 0o111 != 0 => Ok(path),
        Ok(_) => Err(DriverError::NotExecutable { version: version(), path }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(DriverError::NoProgram { version: version(), path })
        }
        Err(source) => Err(DriverError::Spawn { path, source }),
    }
}

fn in_path(name: &str, spec: &StartSpec) -> Result<PathBuf, DriverError> {
    let own = spec.env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.into());
    let searched = own.or_else(|| std::env::var_os("PATH")).unwrap_or_default();
    let is_program = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    };
    let found = std::env::split_paths(&searched).map(|dir| dir.join(name)).find(is_program);
    found.ok_or_else(|| DriverError::NotInPath {
        version: spec.version.clone(),
        name: name.to_owned(),
        searched: searched.to_string_lossy().into_owned(),
    })
}
