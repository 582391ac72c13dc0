//! N16: the database restarts after a crash, or somebody holds the fence row.

use anyhow::{Context, Result};
use postgres::{Client, NoTls};
use serde::Serialize;

use super::process::RESUME;
use super::{Deed, Scene, Undo};

/// What happens to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum DatabaseFault {
    /// It crashes, and recovers.
    Crash,
    /// A transaction of somebody else holds the fence row.
    LockFence,
    /// A transaction of somebody else holds the row by which charges are ordered: every unit waits.
    LockOrder,
}

/// Begins it.
///
/// # Errors
/// If the database refuses.
pub fn begin(scene: &mut Scene<'_>, fault: DatabaseFault) -> Result<(Deed, Undo)> {
    let hosts = (0..scene.site.hosts.len()).map(|host| scene.name(host)).collect();
    let deed = Deed { what: format!("the database: {fault:?}"), after: RESUME, hosts, ..Deed::default() };
    let lock = |scene: &Scene<'_>, statement: &str| -> Result<Undo> {
        let mut client = Client::connect(&scene.site.database.url(), NoTls).context("connecting")?;
        client.batch_execute(&format!("BEGIN; {statement}"))?;
        Ok(Undo::Unlock(Box::new(client)))
    };
    let undo = match fault {
        DatabaseFault::Crash => {
            scene.site.database.crash_and_restart()?;
            Undo::Nothing
        }
        DatabaseFault::LockFence => lock(scene, "SELECT 1 FROM handover.scheduler_fence FOR UPDATE")?,
        DatabaseFault::LockOrder => lock(scene, "SELECT 1 FROM commit_order FOR UPDATE")?,
    };
    Ok((deed, undo))
}
