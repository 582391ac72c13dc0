//! When reports go out: at once when the agent may be waiting for one, else once a second while something moves.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::control::GateReport;
use super::handover::forerunners;
use super::ticket::Gate;

/// The beat of the regular reports, and of the sweeping that goes with them.
const BEAT: Duration = Duration::from_secs(1);

/// The gate's report of this moment, with what older gates still have in hand.
pub(super) fn now(gate: &Gate) -> GateReport {
    let mut report = alone(gate);
    forerunners::add_living(gate, &mut report);
    report
}

/// The gate's report of this moment, without other gates that live.
pub(super) fn alone(gate: &Gate) -> GateReport {
    let mut report = gate.core().report(gate.now());
    let saved = gate.saved.borrow().clone();
    report.gate_start_id.clone_from(&gate.start_id);
    report.pid = std::process::id();
    report.took_over_from = gate.succession.took_over_from.get().cloned();
    report.leaving = gate.succession.is_leaving();
    report.connections = gate.connections.load(Ordering::Relaxed);
    report.refused_connections = gate.refused_connections.load(Ordering::Relaxed);
    forerunners::add_carried(gate, &mut report);
    report.tls = gate.tls.as_ref().map(|tls| tls.report());
    report.saved = saved.seq;
    report.save_error = saved.error;
    report
}

/// Publishes reports for as long as the gate runs.
pub(super) async fn publish(gate: Arc<Gate>, reports: watch::Sender<GateReport>) {
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = gate.news.notified() => {
                reports.send_replace(now(&gate));
            }
            _ = beat.tick() => {
                sweep(&gate, reports.receiver_count() > 0);
                let report = now(&gate);
                reports.send_if_modified(|last| {
                    let moved = without_clocks(last.clone()) != without_clocks(report.clone());
                    if moved {
                        *last = report;
                    }
                    moved
                });
            }
        }
    }
}

/// An upstream's last counts are kept while no agent is there to read them.
fn sweep(gate: &Gate, agent_listens: bool) {
    let mut core = gate.core();
    if agent_listens {
        core.forget_departed(gate.now());
    }
    let listed = core.listed_keys();
    drop(core);
    gate.pool.sweep(&listed);
    gate.multiplex.sweep(&listed);
}

/// A report without the number that moves although nothing happens.
fn without_clocks(mut report: GateReport) -> GateReport {
    for upstream in &mut report.upstreams {
        upstream.last_request_ms_ago = None;
    }
    report
}
