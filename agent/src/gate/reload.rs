//! A planned restart: what `ExecReload=` of the gate's unit runs.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::client::GateLink;
use super::control::GateReport;
use super::control_socket::{EndpointError, Found, look};
use super::settings::GateSettings;

/// A gate accepts clients within milliseconds of its start.
const PATIENCE: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(10);

/// The gate was not replaced. The one that ran goes on.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// There is none.
    #[error("no gate answers on {0}; start one instead")]
    NoGate(String),
    /// Its control socket cannot be spoken to.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The newer gate could not be started.
    #[error("cannot start another gate: {0}")]
    Start(#[source] io::Error),
    /// It ended at once.
    #[error("the newer gate ended ({0}); the one before goes on; the log of the newer one says why")]
    Ended(ExitStatus),
    /// It does not answer.
    #[error("the newer gate (process {0}) did not come to accept clients; it was ended, and the one before goes on")]
    Late(u32),
}

/// Starts a gate of this program with `--replace` as a process of its own, and waits until it is the one that agents find.
/// The sentence says what happened.
///
/// # Errors
/// When no gate runs, or the newer one did not come to accept clients.
pub async fn reload(config: &Path, settings: &GateSettings) -> Result<String, ReloadError> {
    if !matches!(look(&settings.control).await?, Found::Running(_)) {
        return Err(ReloadError::NoGate(settings.control.display().to_string()));
    }
    let link = GateLink::connect(&settings.control);
    let mut newer = start(config).map_err(ReloadError::Start)?;
    let pid = newer.id();
    let reports = link.reports();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < deadline {
        if let Some(status) = newer.try_wait().map_err(ReloadError::Start)? {
            return Err(ReloadError::Ended(status));
        }
        if let Some(report) = reports.borrow().as_ref().filter(|report| report.pid == pid) {
            return Ok(sentence(report));
        }
        tokio::time::sleep(LOOK).await;
    }
    // It never was in charge: the older gate does not wait for it this long.
    drop(newer.kill());
    drop(newer.wait());
    Err(ReloadError::Late(pid))
}

/// In a process group of its own, so that what ends this command does not end the gate.
fn start(config: &Path) -> io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .args(["gate", "--replace", "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
}

fn sentence(report: &GateReport) -> String {
    let left: u64 = report.forerunners.iter().map(|older| older.connections).sum();
    format!("process {} is the gate now; {left} connections end with the one before", report.pid)
}
