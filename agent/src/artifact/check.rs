//! Verifying a version before it is started, beside the agent's loop: reading a version's files takes longer than the loop
//! may stand still.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use handover_artifact::{Expected, MANIFEST, Manifest, Refused, Trust, Verified, verify};
use handover_proto::ids::{Service, Version};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;

use super::ArtifactSettings;
use crate::clock;
use crate::core::observed::Boot;

/// A verdict is for the start that asked for it; one that has been waiting for longer is for nobody.
const HOLDS_FOR: Duration = Duration::from_secs(10);

/// Whether a version may be started.
#[derive(Debug)]
pub enum Stand {
    /// It may.
    Passed,
    /// That is being found out; the loop is woken when it is known.
    Underway,
    /// It may not.
    Refused(NotStarted),
}

/// A version that may not be started.
#[derive(Debug, thiserror::Error)]
pub enum NotStarted {
    /// It is not what it should be.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It says that it does not go together with what runs here, or that does.
    #[error(
        "{version} cannot run beside {other}, which runs here: {ranges}; upgrade by way of a version that goes together with \
         both"
    )]
    Incompatible {
        /// What was to be started.
        version: Version,
        /// What runs.
        other: Version,
        /// What the two say.
        ranges: String,
    },
    /// The check itself was cut short.
    #[error("the check of {version} was cut short: {reason}")]
    CutShort {
        /// Of which version.
        version: Version,
        /// Why.
        reason: String,
    },
}

#[derive(Debug)]
enum Check {
    Underway,
    Done(Boot, Result<(), NotStarted>),
}

/// Verifies versions.
#[derive(Debug, Clone)]
pub struct Checker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    builds: PathBuf,
    service: Service,
    trust: Trust,
    wake: Arc<Notify>,
    checks: Mutex<BTreeMap<Version, Check>>,
    /// What was verified before: its files are read again only if one was changed.
    passed: Mutex<BTreeMap<Version, Verified>>,
}

impl Checker {
    /// Verifies what is in `builds`, and wakes the loop whenever something is known.
    pub fn new(settings: &ArtifactSettings, builds: PathBuf, service: Service, wake: Arc<Notify>) -> Self {
        let trust = settings.trust.clone();
        Self(Arc::new(Inner { builds, service, trust, wake, checks: Mutex::default(), passed: Mutex::default() }))
    }

    /// Whether `version` may be started now, beside what runs here. Each verdict is given once: the next start is verified
    /// anew.
    pub fn ask(&self, version: &Version, beside: &[Version]) -> Stand {
        let mut checks = held(&self.0.checks);
        match checks.remove(version) {
            Some(Check::Done(at, result)) if clock::boot() < at + HOLDS_FOR => {
                return result.map_or_else(Stand::Refused, |()| Stand::Passed);
            }
            Some(Check::Underway) => {}
            Some(Check::Done(..)) | None => self.begin(version.clone(), beside.to_vec()),
        }
        checks.insert(version.clone(), Check::Underway);
        Stand::Underway
    }

    fn begin(&self, version: Version, beside: Vec<Version>) {
        let (inner, checked) = (Arc::clone(&self.0), version.clone());
        let check = spawn_blocking(move || inner.check(&checked, &beside));
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move {
            let cut_short = |error| Err(NotStarted::CutShort { version: version.clone(), reason: format!("{error}") });
            let result = check.await.unwrap_or_else(cut_short);
            held(&inner.checks).insert(version, Check::Done(clock::boot(), result));
            inner.wake.notify_one();
        });
    }
}

impl Inner {
    fn check(&self, version: &Version, beside: &[Version]) -> Result<(), NotStarted> {
        let expected = Expected { service: Some(self.service.clone()), version: Some(version.clone()) };
        let before = held(&self.passed).get(version).cloned();
        let verified = verify(&self.builds.join(version.as_str()), &expected, &self.trust, before.as_ref())?;
        if let Some(manifest) = &verified.manifest {
            beside.iter().try_for_each(|other| self.goes_together(manifest, other))?;
        }
        held(&self.passed).insert(version.clone(), verified);
        Ok(())
    }

    /// What runs was verified when it was started; without a manifest it says nothing.
    fn goes_together(&self, manifest: &Manifest, other: &Version) -> Result<(), NotStarted> {
        let read = std::fs::read(self.builds.join(other.as_str()).join(MANIFEST));
        let Some(running) = read.ok().and_then(|bytes| Manifest::parse(&bytes).ok()) else { return Ok(()) };
        if manifest.may_run_beside(&running) {
            return Ok(());
        }
        let says = |one: &Manifest| {
            let ranges: Vec<String> = one.compatible_with.iter().map(|range| format!("\"{range}\"")).collect();
            let ranges = if ranges.is_empty() { "nothing".to_owned() } else { ranges.join(", ") };
            format!("{} names {ranges} in compatible_with", one.version)
        };
        let ranges = format!("{}, and {}", says(manifest), says(&running));
        Err(NotStarted::Incompatible { version: manifest.version.clone(), other: other.clone(), ranges })
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
