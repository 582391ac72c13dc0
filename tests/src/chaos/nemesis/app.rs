//! N17: the service itself misbehaves, as its behaviour file says (`billing/faults.rs`).

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::process::RESUME;
use super::{Deed, Scene, Undo};
use crate::chaos::bounds;

/// What the holder's service does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum AppFault {
    /// Says QUIESCED and goes on.
    LiesQuiesced,
    /// Neither obeys QUIESCE nor answers.
    IgnoresQuiesce,
    /// Hangs in a unit.
    HangsInUnit,
    /// Leaves a child behind, and is killed then.
    LeaksChild,
    /// The same with a child that is nobody's: double-forked, in a session of its own.
    LeaksDaemon,
    /// Dies in the middle of a unit.
    CrashesInUnit,
}

impl AppFault {
    fn behaviour(self) -> &'static str {
        match self {
            Self::LiesQuiesced => "quiesce-lie = true",
            Self::IgnoresQuiesce => "ignore-quiesce = true",
            Self::HangsInUnit => "hang-in-unit = true",
            Self::LeaksChild => "leak = \"child\"\ncrash-in-unit = true",
            Self::LeaksDaemon => "leak = \"daemon\"\ncrash-in-unit = true",
            Self::CrashesInUnit => "crash-in-unit = true",
        }
    }

    fn after(self) -> Duration {
        match self {
            Self::LiesQuiesced | Self::IgnoresQuiesce => RESUME,
            Self::HangsInUnit => bounds::APP_HANGS,
            Self::LeaksChild | Self::LeaksDaemon => bounds::APP_GONE + bounds::CLEARING,
            Self::CrashesInUnit => bounds::APP_GONE,
        }
    }
}

/// Begins it.
///
/// # Errors
/// If the behaviour cannot be written.
pub fn begin(scene: &mut Scene<'_>, fault: AppFault) -> Result<(Deed, Undo)> {
    let holder = scene.holder();
    scene.site.hosts[holder].behave(&scene.site.shared, fault.behaviour())?;
    let deed = Deed {
        what: format!("the service of {}: {fault:?}", scene.name(holder)),
        after: fault.after(),
        hosts: vec![scene.name(holder)],
        traffic_after: bounds::TRAFFIC_BACK_AFTER_STALL,
        paused: scene.instance(holder).filter(|_| fault == AppFault::LiesQuiesced).into_iter().collect(),
        lies: fault == AppFault::LiesQuiesced,
        ..Deed::default()
    };
    Ok((deed, Undo::Behave(holder)))
}
