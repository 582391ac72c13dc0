//! What our documentation shows, for tests that run it, and the programs that nobody here wrote.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The `number`-th block of this language in a page below `docs`.
///
/// # Errors
/// If there is no such page, or no such block in it.
pub fn sample(page: &str, language: &str, number: usize) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let blocks = text.split("\n```").filter_map(|block| block.strip_prefix(&format!("{language}\n")));
    blocks.map(|block| format!("{block}\n")).nth(number).with_context(|| format!("{page}: {language} {number}"))
}

/// Where `tests/run` puts what it takes from PyPI.
pub fn venv() -> PathBuf {
    let venv = std::env::var_os("HANDOVER_TEST_VENV").map(PathBuf::from);
    venv.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.tools/venv"))
}

/// The program: from [`venv`], or the machine's.
///
/// # Errors
/// If it is missing; the sentence says how to get it.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Servers are not on everybody's PATH.
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into()]).map(|dir| dir.join(name));
    let found = [venv().join("bin").join(name)].into_iter().chain(places).find(|path| path.is_file());
    found.with_context(|| format!("this test needs {name}; `tests/run --tools` installs it"))
}
