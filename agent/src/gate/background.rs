//! What a gate does beside serving clients: it speaks to agents, reports, saves and watches its
//! certificate.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::control::GateReport;
use super::control_socket::ControlSocket;
use super::handover::succession::Phase;
use super::ticket::Gate;
use super::{endpoint, report, saving};

/// How long after its end a background task is started again.
const RETRY: Duration = Duration::from_millis(100);

/// The tasks beside the accepting of clients.
pub(super) struct Background {
    /// Ends by itself when everybody has heard the gate's last report.
    pub(super) endpoint: AbortOnDropHandle<()>,
    pub(super) others: Vec<AbortOnDropHandle<()>>,
}

impl Background {
    pub(super) fn start(gate: &Arc<Gate>, control: &Arc<ControlSocket>, reports: &watch::Sender<GateReport>) -> Self {
        let reporter = {
            let (g, r) = (Arc::clone(gate), reports.clone());
            move || report::publish(Arc::clone(&g), r.clone())
        };
        let speaker = {
            let (c, g, r) = (Arc::clone(control), Arc::clone(gate), reports.clone());
            move || endpoint::serve(Arc::clone(&c), Arc::clone(&g), r.clone())
        };
        let saver = {
            let g = Arc::clone(gate);
            move || saving::save_states(Arc::clone(&g))
        };
        let certificate = gate.tls.clone().map(|tls| {
            let g = Arc::clone(gate);
            forever("certificate watch", gate, move || {
                let (g, tls) = (Arc::clone(&g), Arc::clone(&tls));
                tls.watch(move || g.news.notify_one())
            })
        });
        let others = [forever("reporter", gate, reporter), forever("state saver", gate, saver)];
        let others = others.into_iter().chain(certificate).collect();
        Self { endpoint: forever("control socket", gate, speaker), others }
    }
}

/// A background task that is started again should it end before the gate does, which only a panic can bring about: a gate
/// without its reporter still serves, and must not be lost to that.
fn forever<F: Future<Output = ()> + Send + 'static>(
    name: &'static str,
    gate: &Arc<Gate>,
    make: impl Fn() -> F + Send + 'static,
) -> AbortOnDropHandle<()> {
    let phase = gate.succession.phase();
    AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let ended = AbortOnDropHandle::new(tokio::spawn(make())).await;
            if *phase.borrow() == Phase::Ended {
                return;
            }
            tracing::error!(name, ?ended, "a background task of the gate ended; it is started again");
            tokio::time::sleep(RETRY).await;
        }
    }))
}
