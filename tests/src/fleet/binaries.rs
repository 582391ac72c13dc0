//! The programs, from beside our own executable.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

const PROGRAMS: [&str; 3] = ["handover", "handover-agent", "billing"];

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Binaries {
    dir: PathBuf,
}

impl Binaries {
    /// Looks beside our own executable, and one directory up from where cargo puts test executables.
    ///
    /// # Errors
    /// If a program is missing.
    pub fn find() -> Result<Self> {
        let own = std::env::current_exe().context("where our own executable is")?;
        let dir = own.ancestors().skip(1).find(|dir| dir.join("handover-agent").is_file());
        let dir =
            dir.with_context(|| format!("no handover-agent beside {}; run `cargo build` first", own.display()))?;
        for program in PROGRAMS {
            if !dir.join(program).is_file() {
                bail!("{program} is missing in {}; run `cargo build` first", dir.display());
            }
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// Where they all are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of one.
    pub fn path(&self, program: &str) -> PathBuf {
        self.dir.join(program)
    }
}

/// Builds all programs in the profile that our own executable was built in.
///
/// # Errors
/// If the build fails; cargo has said why.
pub fn build() -> Result<()> {
    let own = std::env::current_exe().context("where our own executable is")?;
    let release = own.components().any(|part| part.as_os_str() == "release");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace's directory")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root).args(["build", "--bins"]);
    if release {
        cargo.arg("--release");
    }
    let status = cargo.status().context("cannot run cargo")?;
    if status.success() { Ok(()) } else { bail!("the build failed ({status})") }
}
