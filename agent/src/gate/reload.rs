//! A planned restart: what `ExecReload=` of the gate's unit runs.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tokio::sync::oneshot;

use super::client::GateLink;
use super::control::GateReport;
use super::control_socket::{EndpointError, Found, look};
use super::settings::GateSettings;

/// A gate accepts clients within milliseconds of its start.
const PATIENCE: Duration = Duration::from_secs(15);

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
    #[error(
        "the newer gate ended before it accepted clients; the one before goes on; the log of the newer one says why"
    )]
    Ended,
    /// It does not answer.
    #[error(
        "the newer gate did not come to accept clients in {}; the one before goes on",
        crate::duration::render(PATIENCE)
    )]
    Late,
}

/// Starts a gate of this program with `--replace` as a process of its own, and waits until it is the one that agents find.
/// The sentence says what happened.
///
/// # Errors
/// When no gate runs, or the newer one did not come to accept clients.
pub async fn reload(config: &Path, settings: &GateSettings) -> Result<String, ReloadError> {
    let no_gate = || ReloadError::NoGate(settings.control.display().to_string());
    let Found::Running(_) = look(&settings.control).await? else { return Err(no_gate()) };
    let link = GateLink::connect(&settings.control);
    let mut reports = link.reports();
    let before = tokio::time::timeout(PATIENCE, reports.wait_for(Option::is_some)).await;
    let before =
        before.ok().and_then(|report| Some(report.ok()?.as_ref()?.gate_start_id.clone())).ok_or_else(no_gate)?;
    let ended = start_an_orphan(config).map_err(ReloadError::Start)?;
    let newer = reports.wait_for(|report| report.as_ref().is_some_and(|report| report.gate_start_id != before));
    tokio::select! {
        biased;
        newer = newer => {
            let report = newer.ok().and_then(|report| report.clone());
            Ok(report.map_or_else(String::new, |report| sentence(&report)))
        }
        _ = ended => Err(ReloadError::Ended),
        () = tokio::time::sleep(PATIENCE) => Err(ReloadError::Late),
    }
}

/// Starts the newer gate by way of another process that ends at once. So its parent is the service manager, which waits for
/// the end of its main process only if that is a child of its own (systemd 252 calls others alien, and does not).
///
/// What comes back wakes when it has ended.
fn start_an_orphan(config: &Path) -> io::Result<oneshot::Receiver<()>> {
    let (mut alive, held) = io::pipe()?;
    let mut middle = gate(config, "--detach").stdin(held).process_group(0).spawn()?;
    if !middle.wait()?.success() {
        return Err(io::Error::other("the process between the two failed"));
    }
    let (tell, ended) = oneshot::channel();
    // Nothing is ever written: the end of the pipe is the end of who holds it. The thread ends with this process.
    std::thread::Builder::new().name("newer-gate".into()).spawn(move || {
        let read = alive.read(&mut [0]);
        drop((read, tell.send(())));
    })?;
    Ok(ended)
}

/// What the process between the two does: the newer gate inherits its end of the pipe as its standard input, which it does
/// not read.
///
/// # Errors
/// When the system refuses another process.
pub fn detach(config: &Path) -> io::Result<()> {
    gate(config, "--replace").spawn().map(drop)
}

fn gate(config: &Path, how: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap_or_else(|_| "handover-agent".into()));
    command.args(["gate", how, "--config"]).arg(config);
    command
}

fn sentence(report: &GateReport) -> String {
    let left: u64 = report.forerunners.iter().map(|older| older.connections).sum();
    format!("process {} is the gate now; {left} connections end with the one before", report.pid)
}
