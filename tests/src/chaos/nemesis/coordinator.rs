//! N18: two coordinators at once, and a stale one that comes back.

use anyhow::{Result, bail};
use serde::Serialize;

use super::{Deed, Scene, Undo};

/// What happens among the coordinators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Rival {
    /// The leading one is stopped until another leads, then continued.
    Stale,
    /// The leading one is killed.
    Killed,
}

/// Begins it.
///
/// # Errors
/// If the site has no coordinators.
pub fn begin(_scene: &mut Scene<'_>, rival: Rival) -> Result<(Deed, Undo)> {
    bail!("{rival:?}: the site has no coordinators")
}

/// An operator raises the era, after a restore.
///
/// # Errors
/// If the command fails.
pub fn raise_era(_scene: &mut Scene<'_>) -> Result<()> {
    Ok(())
}
