//! The agent's end of the control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::control::{FromGate, GateReport, GateState, Refusal, ToGate};
use super::text_lines::{self, LineReader};

/// Waits between attempts to connect: at first short, because a gate that restarts is back within milliseconds.
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// A gate says its first word within milliseconds.
const FIRST_WORD: Duration = Duration::from_secs(1);

/// A lasting link to a gate. It connects again whenever the gate went away, and then sends the last state again. Dropping it
/// disconnects; the gate goes on with the last state.
#[derive(Debug)]
pub struct GateLink {
    wanted: watch::Sender<Option<GateState>>,
    reports: watch::Receiver<Option<GateReport>>,
    refusals: watch::Receiver<Option<Refusal>>,
    _task: AbortOnDropHandle<()>,
}

impl GateLink {
    /// Starts to connect to the gate's control socket; needs a tokio runtime. That the gate is not there yet is no error.
    pub fn connect(path: impl Into<PathBuf>) -> Self {
        let wanted = watch::Sender::new(None);
        let (report_sender, reports) = watch::channel(None);
        let (refusal_sender, refusals) = watch::channel(None);
        let link = Link {
            path: path.into(),
            wanted: wanted.subscribe(),
            reports: report_sender,
            refusals: refusal_sender,
            start_id: None,
            in_flight: 0,
        };
        Self { wanted, reports, refusals, _task: AbortOnDropHandle::new(tokio::spawn(link.keep())) }
    }

    /// Sets the state that the gate should have. It is sent as soon as the gate is there; of several that were set meanwhile
    /// only the last is sent. It is in force when a report says `applied >= state.seq`, and lasting when `saved` does.
    pub fn send(&self, state: GateState) {
        self.wanted.send_replace(Some(state));
    }

    /// The gate's last report; none while the gate is away. A newer gate that takes over is not away in between. The first one after a connection tells the applied number, above
    /// which an agent that starts must go on.
    pub fn reports(&self) -> watch::Receiver<Option<GateReport>> {
        self.reports.clone()
    }

    /// The last refusal since the state was sent; a newer state clears it.
    pub fn refusals(&self) -> watch::Receiver<Option<Refusal>> {
        self.refusals.clone()
    }
}

struct Link {
    path: PathBuf,
    wanted: watch::Receiver<Option<GateState>>,
    reports: watch::Sender<Option<GateReport>>,
    refusals: watch::Sender<Option<Refusal>>,
    /// Of the last report.
    start_id: Option<String>,
    in_flight: u64,
}

impl Link {
    async fn keep(mut self) {
        let mut retry = FIRST_RETRY;
        loop {
            // A gate that was replaced ends the talk when the newer one answers on the path, so the next one is looked for
            // at once, and its first report is the next one after the last: the gate was not away.
            while let Ok(stream) = UnixStream::connect(&self.path).await {
                let mut heard = 0;
                let ended = self.talk(stream, &mut heard).await;
                tracing::debug!(path = %shown(&self.path), ?ended, "the gate ended the talk; connecting again");
                if heard == 0 {
                    break;
                }
                retry = FIRST_RETRY;
            }
            if self.reports.send_replace(None).is_some() {
                tracing::warn!(path = %shown(&self.path), "the gate went away; connecting again");
            }
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(LAST_RETRY);
        }
    }

    /// Says so when another process answers than the one before.
    fn note_start(&mut self, report: &GateReport) {
        let Some(before) = self.start_id.replace(report.gate_start_id.clone()) else { return };
        if before == report.gate_start_id {
            return;
        }
        let (now, pid) = (&report.gate_start_id, report.pid);
        if report.took_over_from.as_ref() == Some(&before) {
            tracing::info!(
                before,
                now,
                pid,
                "a newer gate has taken over; what is in flight finishes in the older one"
            );
        } else {
            let lost = self.in_flight;
            tracing::warn!(before, now, pid, lost, "the gate began anew: what was in flight in the one before is lost");
        }
    }

    async fn talk(&mut self, mut stream: UnixStream, heard: &mut u64) -> io::Result<()> {
        let (read, mut write) = stream.split();
        let mut lines = LineReader::new(BufReader::new(read));
        self.wanted.mark_changed();
        let silence = tokio::time::sleep(FIRST_WORD);
        let mut silence = std::pin::pin!(silence);
        loop {
            tokio::select! {
                () = &mut silence, if *heard == 0 => return Err(io::ErrorKind::TimedOut.into()),
                changed = self.wanted.changed() => {
                    if changed.is_err() {
                        // The link's owner is gone, and with it this task in a moment.
                        return Ok(());
                    }
                    let state = self.wanted.borrow_and_update().clone();
                    if let Some(state) = state {
                        self.refusals.send_replace(None);
                        text_lines::write(&mut write, &ToGate::State(state)).await?;
                    }
                }
                line = lines.next::<FromGate>() => match line? {
                    None => return Ok(()),
                    Some(Ok(FromGate::Report(report))) => {
                        *heard += 1;
                        self.note_start(&report);
                        self.in_flight = report.in_flight;
                        self.reports.send_replace(Some(report));
                    }
                    Some(Ok(FromGate::Refused(refusal))) => {
                        tracing::warn!(%refusal, "the gate refused a state");
                        self.refusals.send_replace(Some(refusal));
                    }
                    // Said to newer gates alone.
                    Some(Ok(FromGate::Offer(_) | FromGate::Left)) => {}
                    Some(Err(error)) => tracing::warn!(%error, "the gate sent a line that this agent cannot read"),
                },
            }
        }
    }
}

fn shown(path: &Path) -> std::path::Display<'_> {
    path.display()
}
